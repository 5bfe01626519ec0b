"""What GPUs compute with: an agent laid out for few kernels, compiled and recorded.

Kernels of our own are in Triton, which is imported only where they are chosen.
"""
