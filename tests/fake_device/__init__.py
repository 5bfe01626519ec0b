"""A CUDA device for the CPU build of PyTorch, on which FakeTensors can live: see checks.py."""
