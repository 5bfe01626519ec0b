"""The three backends on a CPU, for tests that compare them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from dreamer_async.agent import ops
from dreamer_async.agent.backend import PYTORCH, Backend
from dreamer_async.agent.coders import Encoder
from dreamer_async.agent.ops import compute_with
from dreamer_async.fast.choose import NATIVE_BFLOAT16, choose
from dreamer_async.fast.cuda.backend import CUDA
from dreamer_async.fast.native.library import permits_bfloat16
from dreamer_async.machine.device import lacks_bfloat16


def native() -> Backend:
    """The native functions, which these tests cannot do without."""
    backend, problem = choose(torch.device("cpu"), native=True)
    assert not problem, f"these tests need a C++ compiler: {problem}"
    return backend


def native_in_bfloat16() -> Backend:
    """Native functions whose dense layers multiply bfloat16; skips where the processor does not."""
    if lacks_bfloat16(torch.device("cpu"), native=True) or not permits_bfloat16():
        pytest.skip("this processor multiplies no bfloat16")
    return NATIVE_BFLOAT16


BACKENDS = {"PyTorch": PYTORCH, "CUDA": CUDA}
"""Those that need nothing built; what a GPU is given computes on a CPU, too."""


def backend(name: str) -> Backend:
    """By its name."""
    made = {"native": native, "native in bfloat16": native_in_bfloat16}
    return made[name]() if name in made else BACKENDS[name]


def least_gap(encoder: Encoder, obs: Mapping[str, Tensor]) -> float:
    """How far any two largest of 2x2 pooled pixels are apart, in standard deviations of the map.

    Where that is about as much as rounding, two backends may let another pixel have the gradient.
    """
    gaps, before, pool = [], encoder.ops, ops.F.max_pool2d

    def watched(x: Tensor, size: int) -> Tensor:
        four = torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])
        first, second = four.topk(2, dim=0).values
        gaps.append(float((first - second).min() / x.std()))
        return pool(x, size)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(ops.F, "max_pool2d", watched)
        compute_with(encoder, ops.PYTORCH)
        encoder(obs, torch.float32)
    compute_with(encoder, before)
    assert gaps, "nothing was pooled"
    return min(gaps)
