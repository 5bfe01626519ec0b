"""Which backend computes: chosen once for a device, and handed to whoever learns or acts."""

from __future__ import annotations

import torch

from dreamer_async.agent.backend import Backend
from dreamer_async.fast.cuda.backend import CUDA, WITHOUT_NATIVE
from dreamer_async.fast.native.backend import native as native_functions
from dreamer_async.fast.native.backend import native_in_bfloat16
from dreamer_async.fast.native.load import load

NATIVE = native_functions(WITHOUT_NATIVE)
NATIVE_BFLOAT16 = native_in_bfloat16(WITHOUT_NATIVE)


def choose(device: torch.device, *, native: bool) -> tuple[Backend, str]:
    """The fastest backend for a device, and why native functions are missing where they are wanted.

    Building them takes seconds, once per machine, unless they came prebuilt.
    """
    if device.type == "cuda":
        return CUDA, ""
    if not native:
        return WITHOUT_NATIVE, ""
    found = load()
    return (WITHOUT_NATIVE if found.library is None else NATIVE), found.problem
