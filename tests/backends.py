"""The three backends on a CPU, for tests that compare them."""

from __future__ import annotations

import torch

from dreamer_async.agent.backend import PYTORCH, Backend
from dreamer_async.fast.choose import choose
from dreamer_async.fast.cuda.backend import CUDA


def native() -> Backend:
    """The native functions, which these tests cannot do without."""
    backend, problem = choose(torch.device("cpu"), native=True)
    assert not problem, f"these tests need a C++ compiler: {problem}"
    return backend


BACKENDS = {"PyTorch": PYTORCH, "CUDA": CUDA}
"""Those that need nothing built; what a GPU is given computes on a CPU, too."""


def backend(name: str) -> Backend:
    """By its name."""
    return native() if name == "native" else BACKENDS[name]
