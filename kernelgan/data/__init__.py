"""Labelled images: all sources behind one `Source`, the held-out-quadrant split, and the leakage gate."""

from kernelgan.data.pairs import ConceptImages, Pair, split
from kernelgan.data.sources import load

__all__ = ["ConceptImages", "Pair", "load", "split"]
