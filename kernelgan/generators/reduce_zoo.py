"""`reduce` of many parents: one network of four of each concept, with both zoos' mean answers (tier U)."""

import dataclasses

from kernelgan import models
from kernelgan.fields import setting
from kernelgan.generators import reduce
from kernelgan.generators.base import Generator

problems = reduce.problems

LABELS = {
    "": (
        "parts of both zoos united and reduced",
        "the filters of several parents of each concept united and reduced to one parent's number by least "
        "squares on seen images",
    )
}


@dataclasses.dataclass(frozen=True)
class Config(reduce.Config):
    """The fields of ``config.generators.reduce_zoo``: those of `reduce.Config`, with other defaults."""

    parents: int = setting(4, *reduce.PARENTS)
    whole_zoo: bool = setting(True, *reduce.WHOLE_ZOO)


def make(network: models.ConvNet, config: Config) -> Generator:
    """Reduces several parents of each concept to one network, with unlabelled seen images."""
    return reduce.reducer(network, config, "U")
