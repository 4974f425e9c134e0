"""Several attributes by several objects in one program: zoos shared, CycleGANs mapped over the pairs.

    python launch.py --config=configs/pair_matrix.py
        Procedural images, 2 x 2 pairs; small. About 6 minutes on 2 CPU cores.
    python launch.py --config=configs/pair_matrix.py:photos
        CIFAR-10 through TFDS, prepared beforehand.

More pairs: --config.pairs.attributes="('black','red','white')". With ``pairs.exclude = "all"`` a zoo serves
a whole row or column of the matrix, for it excludes every concept of the other kind; with ``"own"`` each pair
has zoos of its own.
"""

from ml_collections import ConfigDict

from configs import default

VARIANTS = ("", "photos")


def get_config(variant: str = "") -> ConfigDict:
    """The matrix, or its photographic variant."""
    if variant not in VARIANTS:
        raise ValueError(f"pair_matrix.py has no variant {variant!r}; known is 'photos', or none")
    config = default.get_config()
    config.name = "pair_matrix" + (f"_{variant}" if variant else "")
    config.pairs.attributes = ("black", "red")
    config.pairs.objects = ("cat", "car")
    config.pairs.exclude = "all"
    config.zoo.models = 16
    config.zoo.images_per_epoch = 1024
    config.cyclegan.epochs = (40, 40)
    config.opponents.models = 4
    config.evaluate.random_networks = 64
    config.evaluate.umap_networks = 1
    if variant == "photos":
        config.pairs.objects = ("cat", "automobile")
        config.data.source = "tfds"
        config.data.maximum_test = 300
    return config
