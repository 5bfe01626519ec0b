"""Which device, precision and number of threads a run uses."""

from __future__ import annotations

import os

import torch

from dreamer_async.config import Config
from dreamer_async.process import processor_flags

WIDE = 512
"""`model.deter` from which on several CPU threads of PyTorch are faster than one."""
MOST_THREADS = 8
BFLOAT16 = {"avx512_bf16", "amx_bf16"}
"""What /proc/cpuinfo calls hardware that multiplies bfloat16."""


def choose_device(name: str) -> torch.device:
    """Resolve `auto` to the first GPU if there is one; a CUDA device always has its number.

    Raises ValueError for a name that is none and for a device that is absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name}: there are only auto, cpu, cuda and cuda:N")
    return device if device.type == "cpu" else _numbered(device)


def _numbered(device: torch.device) -> torch.device:
    """A CUDA device with its number, without which torch cannot make it a thread's device."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise ValueError(
            f"device {device}: this machine has no usable CUDA device; try --device cpu"
        )
    number = device.index or 0
    if number >= count:
        raise ValueError(f"device {device}: there are only cuda:0 to cuda:{count - 1}")
    return torch.device("cuda", number)


def choose_precision(name: str, device: torch.device, *, native: bool) -> str:
    """Resolve `auto`: bfloat16 on GPUs as the paper trains, on CPUs only where it is faster.

    The native functions compute in float32, with a fraction of the products that PyTorch's
    convolutions take; without them, bfloat16 pays where the hardware multiplies it.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16"
    return "mixed" if BFLOAT16 & processor_flags() and not native else "float32"


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


def use_own_stream(device: torch.device, *, urgent: bool = False) -> None:
    """Give the calling thread a CUDA stream of its own; `urgent` work overtakes other streams'.

    On the shared default stream the policy would wait for the update before it.
    """
    if device.type != "cuda":
        return
    torch.cuda.set_device(device)  # the current device belongs to the thread, too
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
    narrow = config.model.deter < WIDE and not config.train.native
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
