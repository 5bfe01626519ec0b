"""What the device itself can do: one large copy and one large matrix product.

An update cannot be faster than its arithmetic at this rate; what is missing is overhead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dreamer_async.bench.timing import Timing, timed, timing
from dreamer_async.config import Config
from dreamer_async.machine.device import (
    choose_device,
    choose_precision,
    cpu_threads,
    use_cpu_threads,
    use_device,
    wait_for,
)

SIDE = {"cuda": 8192, "cpu": 2048}
"""Rows and columns of the multiplied matrices."""
NBYTES = {"cuda": 1 << 30, "cpu": 1 << 28}
"""Copied bytes: more than caches hold."""


def ceilings(config: Config, seconds: float) -> list[Timing]:
    """Time a copy (bytes read plus written) and products in the precision that would train."""
    use_cpu_threads(cpu_threads(config))
    device = choose_device(config.train.device)
    use_device(device)
    chosen = choose_precision(config.train.precision, device, native=config.train.wants_native)
    source = torch.ones(NBYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    rows = [_copy(source, target, seconds / 3)]
    for precision in dict.fromkeys(("float32", chosen)):
        rows.append(_product(precision, device, seconds / 3))
    return rows


def _copy(source: Tensor, target: Tensor, seconds: float) -> Timing:
    times = timed(lambda: target.copy_(source), seconds, lambda: wait_for(source.device))
    rate = 2 * source.numel() / min(times) / 1e9
    return timing("ceilings", f"copy {source.numel() / 1e6:.0f} MB", "s", times, gb_per_s=rate)


def _product(precision: str, device: torch.device, seconds: float) -> Timing:
    side = SIDE[device.type]
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times = timed(lambda: a @ b, seconds, lambda: wait_for(device))
    rate = 2 * side**3 / min(times) / 1e12
    what = f"product of {side}x{side}, {precision}"
    return timing("ceilings", what, "s", times, tflop_per_s=rate)
