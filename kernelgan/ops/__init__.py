"""The arithmetic of layers: as matrix products, as vector code for CPUs, as a fused kernel for GPUs."""
