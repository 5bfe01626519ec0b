"""What the GPU does: its memory, and how busy it is if the driver's library can be asked."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch


def gpu_gauges() -> dict[str, float]:
    """Gauges of the current CUDA device; nothing without one.

    How busy it is takes the package nvidia-ml-py (extra `gpu`).
    """
    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    values = {
        "gpu/memory_gb": torch.cuda.memory_allocated() / 1e9,
        "gpu/used_gb": (total - free) / 1e9,
        "gpu/total_gb": total / 1e9,
    }
    with suppress(*_unanswered()):
        values["gpu/percent"] = float(torch.cuda.utilization())
    return values


def _unanswered() -> tuple[type[Exception], ...]:
    """What asking raises where the package or the driver does not answer."""
    module: Any = None
    with suppress(ImportError):
        import pynvml as module  # type: ignore[import-not-found]
    return (ImportError, RuntimeError, *([module.NVMLError] if module else []))
