"""Where networks compute, and how: chosen together, so that every part of a run agrees."""

from __future__ import annotations

from typing import NamedTuple

import torch

from dreamer_async.agent.backend import PYTORCH, Backend
from dreamer_async.config import TrainConfig
from dreamer_async.fast.choose import NATIVE, NATIVE_BFLOAT16, choose
from dreamer_async.fast.native.library import permits_bfloat16
from dreamer_async.fast.native.load import load
from dreamer_async.machine.device import (
    choose_device,
    choose_precision,
    emulates,
    lacks_bfloat16,
    set_arithmetic,
)


class Place(NamedTuple):
    """A device, and who computes on it."""

    device: torch.device
    precision: str
    """One of the names in `agent.nets.PRECISIONS`."""
    backend: Backend
    """Who computes there."""
    problem: str = ""
    """Why native functions are missing where they would be used; else empty."""
    emulated: str = ""
    """That the device only emulates the precision; mostly empty."""
    library: str = ""
    """Which library of native functions computes (`fast.native.load`); empty where none does."""
    replaced: str = ""
    """Why the precision is not the one that was asked for; mostly empty."""


def take_place(train: TrainConfig) -> Place:
    """Choose for `train`, and set how GPUs multiply in this process accordingly.

    Building native functions takes seconds, once per machine, unless they came prebuilt. Raises
    ValueError for a device that is absent.
    """
    device = choose_device(train.device)
    fast = train.backend == "auto"
    backend, problem = choose(device, native=train.native) if fast else (PYTORCH, "")
    native = train.wants_native and not problem
    precision = choose_precision(train.precision, device, native=native)
    low = train.precision == "bfloat16-dense"
    replaced = lacks_bfloat16(device, native=native) if low else ""
    if precision == "bfloat16-dense" and not permits_bfloat16():
        precision = "float32"
        replaced = "the native functions were built without bfloat16: float32 instead"
    if precision == "bfloat16-dense":
        backend = NATIVE_BFLOAT16
    set_arithmetic(device, precision, repeatable=train.sync)
    library = load().name if backend in (NATIVE, NATIVE_BFLOAT16) else ""
    emulated = emulates(device, precision)
    return Place(device, precision, backend, problem, emulated, library, replaced)
