"""Which of our own kernels a model can have; nothing here imports Triton before one is chosen.

Legend: D deter, Hd hidden, S stoch, K classes, G blocks.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dreamer_async.agent.actor_critic import Agent
from dreamer_async.agent.rssm import RSSM
from dreamer_async.config import ModelConfig
from dreamer_async.fast.cuda import rollout, scan
from dreamer_async.fast.cuda.unfit import Unfit

MOST_BYTES = 1_250_000
"""Weights that one processor of the GPU reads in each step: size1m has 1.1 MB in float32.

At 64 bytes a clock, which the second cache may give one processor, that is some 10 us; one kernel
after another is estimated at 30.
"""


def filtering(dyn: RSSM, dtype: torch.dtype) -> scan.Loops:
    """Kernels that filter in `dtype`: all steps at once, or each in a few if the model is wide.

    Raises Unfit where there are none. What is returned raises it where the GPU refuses a kernel.
    """
    if not scan.fits(dyn):
        raise Unfit("that takes one layer in front of the GRU and one in the posterior")
    try:
        from dreamer_async.fast.cuda import filtering as at_once
        from dreamer_async.fast.cuda import stepping
    except ImportError as error:
        raise Unfit(f"{error} (Triton comes with PyTorch for CUDA)") from None
    kernels = at_once if narrow(dyn.config, dtype) else stepping
    return scan.Loops(_guarded(kernels.forward), _guarded(kernels.backward))


def narrow(model: ModelConfig, dtype: torch.dtype) -> bool:
    """Whether one processor can read all weights of a step, in each step."""
    return dtype.itemsize * weights_of(model) <= MOST_BYTES


def imagination(agent: Agent) -> rollout.Imagination:
    """All imagined steps in one kernel; raises Unfit like `filtering`, and for the same reasons."""
    try:
        from dreamer_async.fast.cuda import imagination as kernels
    except ImportError as error:
        raise Unfit(f"{error} (Triton comes with PyTorch for CUDA)") from None
    if not rollout.fits(agent):
        raise Unfit("it has one layer in front of the GRU")
    if not kernels.fits(agent):
        raise Unfit(
            f"it needs one action, and widths that are powers of two from {kernels.ROWS} "
            f"to {kernels.WIDEST}"
        )
    return kernels.Fused(agent)


def weights_of(model: ModelConfig) -> int:
    """How many of them one step of filtering reads."""
    deter, hidden, latent = model.deter, model.hidden, model.stoch * model.classes
    block = deter // model.blocks
    return deter * (4 * block + 4 * hidden) + 2 * hidden * latent


def _guarded(loop: Callable[..., Any]) -> Callable[..., Any]:
    from triton.errors import TritonError

    def guarded(*inputs: Any) -> Any:
        try:
            return loop(*inputs)
        except TritonError as error:
            raise Unfit(str(error).partition("\n")[0]) from error

    return guarded
