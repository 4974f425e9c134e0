"""Several attributes by several objects in one program: zoos shared, CycleGANs mapped over the pairs.

    python launch.py --config=configs/pair_matrix.py
        Rendered images, 2 x 2 pairs; small. About 6 minutes on 2 CPU cores.
    python launch.py --config=configs/pair_matrix.py:photos
        CIFAR-10 through TFDS, prepared beforehand: every colour with every class that has at least 30 test
        photographs of the two together, 55 pairs. About an hour on 2 fast CPU cores (AVX-512), some five on
        slower ones (both estimated). 26 of them are sealed: the run is registered in runs/attempts.csv.
        --config.pairs.folds=development takes the 29 others.
    python launch.py --config=configs/pair_matrix.py:photos_full
        The same with populations of 64, for a GPU.

More pairs: --config.pairs.attributes="('black','red','white')". With ``pairs.exclude = "own"`` each pair has
two zoos, trained on all images but those of its own other concept. With ``"groups"`` a zoo leaves out a group
of such concepts, and serves the pairs with all of these. With ``"all"`` it leaves out every one and serves a
whole row or column (on CIFAR-10, whose every image is of a class, that leaves an attribute nothing to learn
from).
"""

from ml_collections import ConfigDict

from configs import default

VARIANTS = ("", "photos", "photos_full")
COLOURS = ("black", "white", "grey", "red", "orange", "brown", "yellow", "green", "blue", "purple")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def get_config(variant: str = "") -> ConfigDict:
    """The matrix, or one of its variants."""
    if variant not in VARIANTS:
        known = ", ".join(repr(name) for name in VARIANTS[1:])
        raise ValueError(f"pair_matrix.py has no variant {variant!r}; known are {known}, or none")
    config = default.get_config("cyclegan", "reduce")
    config.name = "pair_matrix" + (f"_{variant}" if variant else "")
    if variant:
        return _photos(config, full=variant == "photos_full")
    config.pairs.attributes = ("black", "red")
    config.pairs.objects = ("cat", "car")
    config.pairs.exclude = "all"
    config.zoo.epochs = 15
    config.zoo.images_per_epoch = 1024
    config.generators.cyclegan.epochs = 40
    config.baselines.models = 4
    config.baselines.random_networks = 64
    return config


def _photos(config: ConfigDict, *, full: bool) -> ConfigDict:
    """Every colour with every class of CIFAR-10."""
    config.data.source = "tfds"
    config.data.tfds.name = "cifar10"
    config.data.minimum_test = 30
    config.data.maximum_test = 500 if full else 200
    config.pairs.attributes = COLOURS
    config.pairs.objects = CLASSES
    config.pairs.skip_rare = True
    config.pairs.splits = "configs/splits/cifar10.json"
    config.registry = "runs/attempts.csv"  # half of the pairs are sealed: every attempt counts
    config.pairs.exclude = (
        "groups"  # of two: half as many zoos of twice the networks, for a tenth less images
    )
    config.zoo.models = 64 if full else 16
    config.zoo.epochs = 20
    config.zoo.images_per_epoch = 6400 if full else 3200
    config.zoo.validation_images = 512
    config.baselines.models = 16 if full else 4
    config.baselines.epochs = 20
    config.baselines.images_per_epoch = 6400 if full else 3200
    config.generators.cyclegan.batch_size = 16 if full else 8
    config.baselines.random_networks = 256 if full else 32
    config.evaluate.umap_networks = 1 if full else 0  # 0.6 s a network
    config.evaluate.umap_images = 480 if full else 240
    return config
