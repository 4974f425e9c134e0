"""Settings of the study: all networks (``config.py``), or a tenth of them (``config.py:quick``)."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from kernelgan.types import Config, UserError

VARIANTS = ("", "quick")


def get_config(variant: str = "") -> ConfigDict:
    """The complete config.

    Args:
      variant: ``quick`` takes a tenth of the networks: too few to tell small differences.
    """
    if variant not in VARIANTS:
        raise ValueError(f"the study has no variant {variant!r}; known is 'quick', or none")
    config = ConfigDict()
    config.name = "jain2024" + (f"_{variant}" if variant else "")
    config.seed = 0  # of the random kernels and of the relabellings
    config.device = "auto"  # "auto", "cpu" or "gpu"
    config.networks = 0  # generated networks in each direction; 0: all, 1,749 of the published weights
    config.random_networks = 0  # networks of random kernels; 0: as many as generated in both directions
    config.composed = 64  # networks composed of a black and a cat network in closed form
    config.gaussian_networks = 500  # kernels drawn with each parameter's mean and spread in a zoo
    # UMAP seeds; the first is the notebook's and the only one of the fixed protocol.
    config.seeds = (47, 0, 1, 2, 3, 4, 5, 6, 7, 8)
    config.tuning_seeds = 5  # UMAP seeds that a picked network is tuned over; reported networks have all
    config.kmeans_seeds = (1, 0, 2, 3, 4, 5, 6, 7, 8, 9)  # the fixed protocol has the first alone
    # DBSCAN in UMAP units; the best for each network, as the original chose. Its notebook speaks of 2 to 6,
    # but many of the figures that it reports, A229's among them, need a radius below 1.
    config.radii = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    config.minimum_samples = (3, 4, 5)
    config.svm_nu = 0.1  # one-class SVM
    config.picked = 27  # networks that the original's report lists
    config.draws = 10_000  # relabellings behind each p-value
    config.chunk_size = 64  # networks in memory at a time
    if variant == "quick":
        config.networks = 175
        config.gaussian_networks = 50
        config.composed = 16
        config.seeds = (47, 0, 1)
        config.picked = 5
    return config


_LEAST = {
    **dict.fromkeys(("seed", "networks", "random_networks", "seeds", "kmeans_seeds"), 0),
    **dict.fromkeys(("tuning_seeds", "minimum_samples", "picked", "draws", "chunk_size", "composed"), 1),
    "gaussian_networks": 2,
}
"""The least of every whole number, and of each in a tuple."""


def check(config: Config) -> None:
    """Refuses values out of range and values that contradict each other.

    Raises:
      UserError: naming every such field, its value and what was expected.
    """
    expected = {name: f"whole numbers from {least} to 2**31 - 1" for name, least in _LEAST.items()}
    expected |= {"radii": "positive numbers", "device": "auto, cpu or gpu", "svm_nu": "above 0, at most 1"}
    sound = {
        name: all(type(value) is int and least <= value < 2**31 for value in _values(config[name]))
        for name, least in _LEAST.items()
    }
    sound["radii"] = all(
        isinstance(value, int | float) and 0 < value < 1e9 for value in _values(config.radii)
    )
    sound["svm_nu"] = isinstance(config.svm_nu, int | float) and 0 < config.svm_nu <= 1
    sound["device"] = config.device in ("auto", "cpu", "gpu")
    for name in ("seeds", "kmeans_seeds", "radii", "minimum_samples"):
        values = config[name]
        sound[name] &= isinstance(values, (tuple, list)) and 0 < len(values) == len(set(values))
        expected[name] = f"a tuple of different {expected[name]}"
    for name in ("networks", "random_networks"):
        # Each direction is compared with its sources alone too.
        if sound[name] and sound["picked"] and 0 < config[name] < config.picked:
            sound[name], expected[name] = False, f"0, or at least picked, {config.picked}"
    problems = [f"{n} is {config[n]!r}; expected {expected[n]}" for n, good in sound.items() if not good]
    if problems:
        raise UserError("The config is not usable:\n  " + "\n  ".join(problems))


def _values(value: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
