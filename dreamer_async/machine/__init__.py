"""The machine a run has: processors, GPUs, compilers, processes."""
