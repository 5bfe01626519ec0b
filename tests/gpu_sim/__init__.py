"""A simulated card: the CUDA build of PyTorch on stubbed libraries of NVIDIA (docs/gpu.md)."""
