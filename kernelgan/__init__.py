"""Generate machine-learning models from machine-learning models, in kernel space."""

__version__ = "0.1.0"
