"""How many steps of replay make sense on a machine: disk, memory and container limits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

OFFICIAL_CAPACITY = 5_000_000
"""Steps that the official configuration keeps at most."""
PAGING_SHARE = 0.8
"""Share of the available memory above which a replay is read from the disk all the time."""

_UNLIMITED = 1 << 62

Reader = Callable[[str], str]
"""Returns the text of a file, or raises OSError."""


def default_capacity(
    planned_steps: int,
    bytes_per_step: int,
    free_disk: int,
    memory_limit: int,
    cap: int = OFFICIAL_CAPACITY,
) -> int:
    """Choose the steps to keep over all environments.

    The smallest of `cap`, the planned steps, half of the free disk and half of the memory (both
    in bytes); never below 1.
    """
    half = min(free_disk, memory_limit) // 2
    return max(1, min(cap, planned_steps, half // bytes_per_step))


def capacity_per_env(steps: int, num_envs: int, length: int, windows: int = 1) -> int:
    """Share `steps` over the environments, rounded up.

    The result holds at least `windows` windows of `length` steps over all environments, and at
    least two lengths each, so that a window stays while a step is being added.
    """
    least = length + -(-windows // num_envs)
    return max(-(-steps // num_envs), least, 2 * length)


def steps_holding(windows: int, num_envs: int, length: int) -> int:
    """Steps over all environments with so many windows of `length` steps.

    Each environment needs length - 1 of them first; from then on every step completes a window.
    """
    return num_envs * (length - 1) + windows


def read_text(path: str) -> str:
    """Read a small system file."""
    return Path(path).read_text()


def memory_limit(read: Reader = read_text) -> int:
    """Bytes that this process may use: the memory, or a smaller limit on it.

    Those are the limits of its control groups, and of its address space (`ulimit -v`), which a
    mapped replay takes from as well.
    """
    return min(_meminfo(read, "MemTotal"), cgroup_limit(read), address_space(read))


def available_memory(read: Reader = read_text) -> int:
    """Bytes that can be had without swapping, bounded by the limits of the control groups."""
    return min(_meminfo(read, "MemAvailable"), cgroup_limit(read))


def paging_warning(replay_bytes: int, available: int) -> str | None:
    """Say in one line that a replay will not stay in memory, if that is so."""
    if replay_bytes <= PAGING_SHARE * available:
        return None
    return (
        f"the replay ({replay_bytes / 1e9:.1f} GB) is larger than {PAGING_SHARE:.0%} of the "
        f"available memory ({available / 1e9:.1f} GB); when it is full, sampling reads from the "
        f"disk (smaller: -s replay.capacity_gb=N)"
    )


def address_space(read: Reader = read_text) -> int:
    """Bytes that this process may still map."""
    try:
        lines, mapped = read("/proc/self/limits").splitlines(), read("/proc/self/statm").split()[0]
        limit = next(line.split()[3] for line in lines if line.startswith("Max address space"))
        return max(0, int(limit) - int(mapped) * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, LookupError, StopIteration):
        return _UNLIMITED  # no limit, or none that is told


def _meminfo(read: Reader, name: str) -> int:
    for line in read("/proc/meminfo").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/meminfo has no {name}")


def cgroup_limit(read: Reader = read_text) -> int:
    """Smallest limit in bytes between our control groups (version 1 or 2) and their roots."""
    limits = [_UNLIMITED]
    for path in _limit_files(read):
        try:
            limits.append(int(read(path)))
        except (OSError, ValueError):
            # Not there (another version, another mount), or "max": no limit.
            continue
    return min(limits)


def _limit_files(read: Reader) -> Iterator[str]:
    try:
        lines = read("/proc/self/cgroup").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            root, name = PurePosixPath("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            root, name = PurePosixPath("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        # Inside a container the group's own path is often not mounted; its root always is.
        inside = PurePosixPath(group.lstrip("/"))
        for place in (inside, *inside.parents):
            yield str(root / place / name)
