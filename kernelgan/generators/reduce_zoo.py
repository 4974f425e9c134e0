"""`reduce` of many parents: one network of four of each concept, with both zoos' mean answers (tier U)."""

import dataclasses

from kernelgan import models
from kernelgan.fields import setting, truth, whole
from kernelgan.generators import reduce
from kernelgan.generators.base import Generator

problems = reduce.problems

LABELS = {
    "": (
        "parts of both zoos united and reduced",
        "the filters of four parents of each concept reduced to an eighth by least squares on seen images, "
        "heads fitted to the zoos' mean answers",
    )
}


@dataclasses.dataclass(frozen=True)
class Config(reduce.Config):
    """The fields of ``config.generators.reduce_zoo``: those of `reduce.Config`, with other defaults."""

    parents: int = setting(4, whole(1), "parents of each concept whose filters are united")
    whole_zoo: bool = setting(
        True, truth, "whether heads imitate the mean answer of the whole zoo, not of these parents"
    )


def make(network: models.ConvNet, config: Config) -> Generator:
    """Reduces several parents of each concept to one network, with unlabelled seen images."""
    return reduce.reducer(network, config, "U")
