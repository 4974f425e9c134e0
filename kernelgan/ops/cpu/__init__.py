"""Convolution, pooling and their gradients for CPUs: direct loops over images side by side in vector lanes.

XLA's CPU backend has no convolution that is fast inside a loop (jax issue 12868), and as a matrix product
(see `kernelgan.ops.products`) a 5 x 5 convolution costs 1.4 to 2.6 times its arithmetic. Here nothing is
computed twice and nothing is gathered: a block of images lies in the lanes of a few vectors, every weight is
broadcast against them, and the sums stay in registers. Compiled by numba for the machine it runs on, called
by XLA as a custom call.
"""

from __future__ import annotations

import functools


@functools.cache
def is_available() -> bool:
    """Whether numba is here, and a jaxlib whose custom calls are known."""
    try:
        from kernelgan.ops.cpu import operation  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True
