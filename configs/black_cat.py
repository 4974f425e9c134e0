"""The headline experiment: *black* (attribute) with *cat* (object).

    python launch.py --config=configs/black_cat.py
        Rendered images; no download. Eight to fifteen minutes on 2 CPU cores.
    python launch.py --config=configs/black_cat.py:photos
        CIFAR-10 photographs through TFDS, prepared beforehand (TFDS_DATA_DIR).
    python launch.py --config=configs/black_cat.py:folder --config.data.folder=DIR
        Your own images; README.md describes the layout.
    python launch.py --config=configs/black_cat.py:full
        The reference's scale and hyper-parameters, 2,749 + 1,749 networks, on rendered images: its own are
        not distributed. For a GPU. Your images: --config.data.source=folder --config.data.folder=DIR.

What to expect on rendered images: `reduce` composes (worst-quadrant AUROC 0.89; both parents side by side
0.92, the best merge 0.77); the CycleGANs do not: their networks are no better than random ones (0.41).
"""

from ml_collections import ConfigDict

from configs import default

VARIANTS = ("", "photos", "folder", "full")


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or one of its variants."""
    if variant not in VARIANTS:
        known = ", ".join(repr(name) for name in VARIANTS[1:])
        raise ValueError(f"black_cat.py has no variant {variant!r}; known are {known}, or none")
    generators = ("cyclegan",) if variant == "full" else ("cyclegan", "reduce", "reduce_noise")
    config = default.get_config(*generators)
    config.name = "black_cat" + (f"_{variant}" if variant else "")
    if variant == "photos":
        config.data.source = "tfds"
        config.data.tfds.name = "cifar10"
        config.data.maximum_test = 500
        config.zoo.models = 32
        config.zoo.epochs = 40
        config.generators.cyclegan.batch_size = 16
        config.baselines.epochs = 50
    if variant == "folder":
        config.name = "own_images"  # of whatever concepts
        config.data.source = "folder"
        config.zoo.images_per_epoch = 1280
    if variant == "full":
        config.data.rendered.train = 12_000
        config.zoo.models = 2749
        config.zoo.object_models = 1749
        config.zoo.epochs = 20
        config.zoo.images_per_epoch = 650
        config.zoo.object_images_per_epoch = 3000
        config.zoo.batch_size = 128
        config.zoo.learning_rate = 0.01
        config.zoo.decay = False
        config.zoo.balanced = False
        config.baselines.epochs = 30
        config.baselines.images_per_epoch = 3000
        config.baselines.learning_rate = 0.002
        config.generators.cyclegan.normalisation = "none"
        config.generators.cyclegan.epochs = (2000, 200)
        config.generators.cyclegan.batch_size = (10, 64)
        config.generators.cyclegan.learning_rate = (2e-5, 2e-4)
        config.baselines.random_networks = 2749
    return config
