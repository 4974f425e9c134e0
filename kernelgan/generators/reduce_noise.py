"""`reduce` with probes that the package makes: dead leaves, no picture of anything (tier S)."""

from kernelgan import models
from kernelgan.generators import reduce
from kernelgan.generators.base import Generator

Config = reduce.Config
problems = reduce.problems

LABELS = {
    "": (
        "both parents united and reduced with noise",
        "the parents' filters united and reduced to a parent's number by least squares on noise",
    )
}


def make(network: models.ConvNet, config: reduce.Config) -> Generator:
    """Reduces with dead leaves, see `probes.noise`: no picture of anything."""
    return reduce.reducer(network, config, "S", "noise")
