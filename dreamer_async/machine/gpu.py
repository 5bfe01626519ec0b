"""What the GPU does: its memory, and how busy it is if the driver's library can be asked."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch


def gpu_gauges(device: torch.device) -> dict[str, float]:
    """Gauges of a run's CUDA device; of a CPU none, and nothing is asked of any GPU then.

    Asking opens a context, which takes memory, and an exclusive GPU refuses it. How busy the device
    is takes the package nvidia-ml-py (extra `gpu`).
    """
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    values = {
        "gpu/memory_gb": torch.cuda.memory_allocated(device) / 1e9,
        "gpu/used_gb": (total - free) / 1e9,
        "gpu/total_gb": total / 1e9,
    }
    with suppress(*_unanswered()):
        values["gpu/percent"] = float(torch.cuda.utilization(device))
    return values


def _unanswered() -> tuple[type[Exception], ...]:
    """What asking raises where the package or the driver does not answer."""
    module: Any = None
    with suppress(ImportError):
        import pynvml as module  # type: ignore[import-not-found]
    return (ImportError, RuntimeError, *([module.NVMLError] if module else []))
