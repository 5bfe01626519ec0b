"""What a process that trains sets up around torch: threads, memory, the compile cache."""

from __future__ import annotations

import ctypes
import faulthandler
import os
from pathlib import Path


def sleep_while_waiting() -> None:
    """Let OpenMP threads sleep at a barrier instead of spinning.

    The learner shares its cores with the environments and the policy. A spinning thread keeps
    the very thread that it waits for from running: on two busy cores an update took over 100 s
    instead of 8 s. OpenMP reads this once, when torch loads it: call this before.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def prepare() -> None:
    """Set up what a process that runs updates needs, before it makes its first tensor."""
    isolate_compile_cache()
    keep_freed_pages()
    show_crashes()


def keep_freed_pages() -> None:
    """Tell glibc to keep the memory that tensors free instead of returning it to the kernel.

    An update allocates and frees the same large buffers again and again, and fresh pages cost
    several times as much to fill as warm ones. Without glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # numbers from malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 << 20)
    mallopt(arena_max, 1)


def show_crashes() -> None:
    """Print where every thread was when the process dies in C (SIGSEGV, SIGABRT, ...)."""
    if not faulthandler.is_enabled():
        faulthandler.enable()


def isolate_compile_cache() -> None:
    """Keep compiled kernels where only this user can write: they are loaded and run."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = base / "dreamer-async"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
