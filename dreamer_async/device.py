"""Which device, precision and number of threads a run uses."""

from __future__ import annotations

import os

import torch


def choose_device(name: str) -> torch.device:
    """Resolve `auto` to the GPU if there is one; raises ValueError for a device that is absent."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name}: this machine has no usable CUDA device; try --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name}: there are {torch.cuda.device_count()} CUDA devices")
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Resolve `auto`: bfloat16 on GPUs as the paper trains, float32 on CPUs."""
    if name != "auto":
        return name
    return "bfloat16" if device.type == "cuda" else "float32"


def cpu_threads(wanted: int) -> int:
    """Resolve 0 to the cores that this process may use."""
    return wanted or len(os.sched_getaffinity(0))
