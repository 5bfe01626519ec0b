"""Kernels of our own for NVIDIA GPUs, in Triton, which is imported only where they are chosen."""
