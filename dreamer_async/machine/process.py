"""What a process that trains sets up around torch: threads, memory, the compile cache."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import sys
import threading
from functools import cache
from pathlib import Path

from dreamer_async.machine.compile_cache import isolate_compile_cache

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Where torch reads settings of its GPU allocator: any of the older names hides the first."""
WAY = 10
"""Niceness that is added to threads that give way: a tenth of a processor where others want it."""


def before_torch() -> None:
    """Set what torch reads while it is loaded or first used, in every process of ours."""
    sleep_while_waiting()
    let_segments_grow()


def let_segments_grow() -> None:
    """Let torch's GPU allocator grow its segments, unless the user has settings of their own.

    With segments of fixed sizes, what the warm-up and the recording of an update leave behind is
    of no use to the other: size200m with images held 29.6 GB instead of 16.5 (on a simulated card).
    """
    if not any(name in os.environ for name in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"


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


def answer_quickly() -> None:
    """Let a thread of ours that has something to do take Python over from another one at once.

    Python's own 5 ms would be waited for up to four times before a session has its action.
    """
    sys.setswitchinterval(5e-4)


def keep_for_good() -> None:
    """Let Python never look again for garbage among all that is there now.

    That takes 0.13 s of everybody's time, for which a session would wait for its action: modules,
    torch's most of all, are 180,000 objects.
    """
    gc.collect()
    gc.freeze()


def give_way() -> None:
    """Let the calling thread, and those that it starts, run when no other thread wants to.

    Only Linux has a priority for each thread.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + WAY)


@cache
def processor_flags() -> frozenset[str]:
    """The instruction sets that the processor has, by their names in /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(found, "").split())


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
