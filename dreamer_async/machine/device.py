"""Which device, precision and number of threads a run uses."""

from __future__ import annotations

import os
import re

import torch

from dreamer_async.config import Config
from dreamer_async.machine import nvidia
from dreamer_async.machine.process import processor_flags

WIDE = 512
"""`model.deter` from which on several CPU threads of PyTorch are faster than one."""
MOST_THREADS = 8
NAME = re.compile(r"cpu|cuda(?::(\d+))?")
"""Devices that have no other name; torch itself takes cuda:256 for cuda:0."""
BFLOAT16 = {"avx512_bf16", "amx_bf16"}
"""What /proc/cpuinfo calls hardware that multiplies bfloat16."""
PAIRS = {"avx512_bf16", "avx512bw", "avx512dq", "avx512vl"}
"""What it says of processors whose native functions can multiply bfloat16."""
TILES = {"amx_tile", "amx_bf16"}
"""What it says of those that do so fastest, Intel's Xeons since 2023."""


def choose_device(name: str) -> torch.device:
    """Resolve `auto` to the first GPU if there is one; a CUDA device always has its number.

    Raises ValueError for a name that is none and for a device that is absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"device {name}: there are only auto, cpu, cuda and cuda:N")
    if name == "cpu":
        return torch.device("cpu")
    number, count = int(match[1] or 0), torch.cuda.device_count()
    if count == 0 or not torch.cuda.is_available():
        why = nvidia.unused() or "this machine has no usable CUDA device"
        raise ValueError(f"device {name}: {why}; try --device cpu")
    if number >= count:
        there = "is only cuda:0" if count == 1 else f"are only cuda:0 to cuda:{count - 1}"
        raise ValueError(f"device {name}: there {there}")
    return torch.device("cuda", number)


def choose_precision(name: str, device: torch.device, *, native: bool) -> str:
    """Resolve `auto`: bfloat16 on GPUs that have it, on CPUs only where it is faster.

    The paper trains in bfloat16. On CPUs the native functions compute in float32, with a fraction
    of the products that PyTorch's convolutions take; without them, bfloat16 pays where the hardware
    multiplies it. Where bfloat16-dense cannot be had it is float32: a run goes on and an
    agent acts on any machine.
    """
    if name == "bfloat16-dense":
        return "float32" if lacks_bfloat16(device, native=native) else name
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if has_bfloat16(device) else "float32"
    return "mixed" if BFLOAT16 & processor_flags() and not native else "float32"


def lacks_bfloat16(device: torch.device, *, native: bool) -> str:
    """Why precision bfloat16-dense cannot be had; empty where it can."""
    if device.type != "cpu":
        return "precision bfloat16-dense is for CPUs: float32 instead"
    if not processor_flags() >= PAIRS:
        return "this processor does not multiply bfloat16 (AMD's do since Zen 4): float32 instead"
    return "" if native else "precision bfloat16-dense takes native functions: float32 instead"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a GPU multiplies bfloat16 itself; older ones emulate it, slower than float32.

    `torch.cuda.is_bf16_supported(including_emulation=False)` for any device, not the current one,
    and without opening a context on it, which `plan` and `bench` leave to the processes they start.
    """
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def emulates(device: torch.device, precision: str) -> str:
    """Say that this GPU only emulates the precision; empty where it does not, and on CPUs."""
    if device.type != "cuda" or precision == "float32" or has_bfloat16(device):
        return ""
    name = torch.cuda.get_device_name(device)
    return f"{name} has no bfloat16, so that precision {precision} is slower than float32"


def set_arithmetic(device: torch.device, precision: str, *, repeatable: bool = False) -> None:
    """Make this process's convolutions on GPUs what `precision` says, and fast.

    PyTorch's default for float32 ones is TF32, which keeps 10 bits. cuDNN tries its algorithms out
    at the first call of each shape, or takes one that gives the same sums every time if the
    results have to be `repeatable`.
    """
    if device.type != "cuda":
        return
    torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.backends.cudnn.benchmark = not repeatable
    torch.backends.cudnn.deterministic = repeatable


def use_device(device: torch.device) -> None:
    """Let the calling thread, to which a current device belongs, use this one where none is named.

    That is where streams, events and recordings are made.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)


def use_own_stream(device: torch.device, *, urgent: bool = False) -> None:
    """Give the calling thread a CUDA stream of its own; `urgent` work overtakes other streams'.

    On the shared default stream the policy would wait for the update before it.
    """
    if device.type != "cuda":
        return
    use_device(device)
    torch.cuda.set_stream(torch.cuda.Stream(device, priority=-1 if urgent else 0))


def wait_for(device: torch.device) -> None:
    """Wait until the device has done everything that it was given, on all streams."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cpu_threads(config: Config) -> int:
    """CPU threads of the learner, as asked or, for 0, as far as they were seen to pay.

    Without native functions a second one costs networks narrower than size1m's more than it does
    (measured); more than 8 were never tried.
    """
    narrow = config.model.deter < WIDE and not config.train.wants_native
    most = 1 if narrow else MOST_THREADS
    return config.train.threads or min(most, len(os.sched_getaffinity(0)))


def use_cpu_threads(count: int) -> None:
    """Let what the calling thread computes from now on use this many CPU threads.

    PyTorch counts for each thread apart, but when a thread first computes it takes over the count
    that was set last in any thread. That moment has to be over before the thread's own count is
    set: without it the policy's thread took the learner's second core away.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)
