"""Every stage, in a few minutes on a CPU: what the tests run. Its figures mean nothing.

python launch.py --config=configs/tiny.py --generator=reduce
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A very small run on rendered images."""
    config = default.get_config()
    config.name = "tiny"
    config.data.rendered.train = 320
    config.data.rendered.test = 96
    config.data.minimum_train = 8
    config.data.minimum_test = 4
    config.zoo.models = 4
    config.zoo.epochs = 2
    config.zoo.images_per_epoch = 64
    config.zoo.batch_size = 32
    config.zoo.learning_rate = 0.002
    config.zoo.decay = False
    config.zoo.validation_images = 32
    config.zoo.chunk_size = 2
    config.generators.cyclegan.hidden = 4
    config.generators.cyclegan.epochs = (3, 2)
    config.generators.cyclegan.batch_size = 2
    config.checkpoint.steps = 2
    config.baselines.models = 2
    config.baselines.epochs = 2
    config.baselines.learning_rate = 0.002
    config.baselines.images_per_epoch = 64
    config.baselines.random_networks = 8
    config.evaluate.bootstrap = 50
    config.evaluate.umap_networks = 0  # UMAP alone takes 20 s to load
    config.checkpoint.seconds = 0.0
    return config
