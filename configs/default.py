"""Every field of a run, with its unit and meaning. The other configs edit a fresh copy of this one."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The complete config; sized for a laptop CPU."""
    config = ConfigDict()
    config.name = "default"  # names the default work directory, runs/<name>
    config.seed = 0  # every random number of the run is derived from it
    config.device = "auto"  # "auto", "cpu" or "gpu"; a device that is asked for and absent is an error

    # What is composed: every attribute with every object. One of each is the usual run.
    config.pairs = ConfigDict()
    config.pairs.attributes = ("black",)
    config.pairs.objects = ("cat",)
    # "own": a pair's attribute zoo excludes that pair's object only, and the other way round.
    # "all": it excludes every object named above, so that one zoo serves a whole row of pairs.
    # "groups": it excludes pairs.group objects at once, and serves the pairs with any of these.
    config.pairs.exclude = "own"
    config.pairs.group = 2
    # Whether a pair with fewer images than data.minimum_train or data.minimum_test is left out, or refused.
    config.pairs.skip_rare = False

    config.data = ConfigDict()
    config.data.source = "procedural"  # "procedural", "tfds" or "folder"
    config.data.image_size = 32  # pixels a side; images of another size are resized (bilinear)
    config.data.validation_share = 0.15  # share of the training images kept for validation
    config.data.minimum_train = 32  # fewest training images in each quadrant that a zoo learns from
    config.data.minimum_test = 20  # fewest test images in a quadrant that is scored
    config.data.maximum_train = 0  # most training images a quadrant; 0: all
    config.data.maximum_test = 0  # most test images a quadrant; 0: all
    config.data.folder = ""  # for "folder": a directory in the layout that README.md describes
    config.data.broken_share = 0.05  # for "folder": largest share of unreadable files that is skipped

    config.data.procedural = ConfigDict()
    config.data.procedural.train = 6000  # images rendered for training and validation
    config.data.procedural.test = 1200  # images rendered for the test

    config.data.tfds = ConfigDict()
    config.data.tfds.name = "cifar10"  # a name in kernelgan.data.tfds.SPECS
    config.data.tfds.data_dir = ""  # where it is prepared; "": $TFDS_DATA_DIR, or TFDS's own default

    config.model = ConfigDict()
    config.model.filters = (6, 16)  # filters of the two convolutional layers
    config.model.kernel_size = 5  # pixels a side

    config.zoo = ConfigDict()
    config.zoo.models = 32  # networks in the zoo of each attribute
    config.zoo.object_models = 0  # networks in the zoo of each object; 0: as many
    config.zoo.epochs = 15
    config.zoo.images_per_epoch = (
        1280  # drawn anew for each network and epoch; a side that is used up is used again
    )
    config.zoo.object_images_per_epoch = 0  # the same for objects' zoos; 0: as many
    config.zoo.batch_size = 128  # images
    config.zoo.learning_rate = 0.002  # Adam
    config.zoo.decay = False  # the learning rate falls linearly to zero over the epochs; the opponents' too
    config.zoo.balanced = True  # half of each batch holds the concept; False: as the data come (reference)
    config.zoo.validation_images = 512  # at most; read after each epoch
    config.zoo.chunk_size = 32  # networks in memory at a time, over all devices

    config.kernels = ConfigDict()
    # "none" (reference), "standard" (zero mean, 3 sd to 1) or "range" (into [-1, 1]); per layer and zoo
    config.kernels.normalisation = "range"

    config.cyclegan = ConfigDict()
    config.cyclegan.hidden = 64  # channels between the two convolutions of generator and discriminator
    config.cyclegan.epochs = (250, 250)  # passes over the larger zoo, for each convolutional layer
    config.cyclegan.batch_size = (16, 16)  # kernel sets of each domain, for each layer
    config.cyclegan.learning_rate = (2e-4, 2e-4)  # Adam, for each layer
    config.cyclegan.cycle_weight = 10.0
    config.cyclegan.identity_weight = 0.0  # the reference defines the identity loss and never uses it
    config.cyclegan.steps_per_call = 25  # steps between two looks at the losses (and a possible checkpoint)

    config.assemble = ConfigDict()
    config.assemble.bias = "zero"  # of generated networks: "zero" (reference) or "parent"

    # Networks trained by gradient to compare with: `distilled`, `trained_on_conjunction`, and the zoos of
    # `half_width_pair`, which are trained for as long as the parents.
    config.opponents = ConfigDict()
    config.opponents.models = 8  # networks of each kind
    config.opponents.epochs = 30
    config.opponents.images_per_epoch = 1280
    config.opponents.learning_rate = 0.002  # Adam; the batch size and the decay are the zoo's

    config.evaluate = ConfigDict()
    config.evaluate.random_networks = 256  # networks of each of the nulls `random` and `gaussian`
    config.evaluate.bootstrap = 1000  # resamples behind each 95% interval
    config.evaluate.umap_networks = 3  # networks a method that are embedded: the first, not the best
    config.evaluate.umap_images = 480  # test images that are embedded, as many of each quadrant
    config.evaluate.umap_neighbours = 15
    config.evaluate.dbscan_radius = 0.2  # in standard deviations of the embedding
    config.evaluate.dbscan_minimum_samples = 5
    config.evaluate.svm_nu = 0.1  # one-class SVM

    config.checkpoint = ConfigDict()
    config.checkpoint.seconds = 20.0  # least time between two saves in the middle of a stage
    return config
