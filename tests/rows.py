"""The rows of a run whose only generator is the CycleGANs, as several test modules need them."""

from kernelgan.baselines import methods
from kernelgan.generators import cyclegan

ROWS = methods.table(methods.generated_rows("cyclegan", ("a2b", "b2a"), "W", cyclegan))
