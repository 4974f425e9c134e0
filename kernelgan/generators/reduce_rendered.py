"""`reduce` with probes that the package makes: rendered images, none of the conjunction (tier S)."""

from kernelgan import models
from kernelgan.generators import reduce
from kernelgan.generators.base import Generator

Config = reduce.Config
problems = reduce.problems

LABELS = {
    "": (
        "both parents united and reduced with rendered images",
        "the parents' filters united and reduced to a parent's number by least squares on rendered images",
    )
}


def make(network: models.ConvNet, config: reduce.Config) -> Generator:
    """Reduces with rendered images, none of the conjunction."""
    return reduce.reducer(network, config, "S", "rendered")
