"""The default of every field. The other configs edit a fresh copy.

Each field is explained where it is defined: `kernelgan/config.py`, and for ``config.generators.NAME`` the
``Config`` in `kernelgan/generators/NAME.py`. ``python -m kernelgan.config`` lists them all.
"""

from ml_collections import ConfigDict

from kernelgan import config


def get_config(*families: str) -> ConfigDict:
    """The complete config; sized for a laptop CPU.

    Args:
      families: of generators, see `kernelgan.config.default`.
    """
    return config.default(*families)
