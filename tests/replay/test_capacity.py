"""How much replay is planned on which machine."""

from __future__ import annotations

import os

import pytest

from dreamer_async.replay.capacity import (
    available_memory,
    capacity_per_env,
    default_capacity,
    memory_limit,
    paging_warning,
)

GIB = 1 << 30
MEMINFO = "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n"


class Files:
    """System files of an imagined machine."""

    def __init__(self, **files: str) -> None:
        self.files = {"/proc/meminfo": MEMINFO} | files

    def __call__(self, path: str) -> str:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]


def machine(files: dict[str, str]) -> Files:
    return Files(**files)


@pytest.mark.parametrize(
    ("planned", "per_step", "disk", "memory", "expected"),
    [
        (50_000_000, 1000, 1 << 60, 1 << 60, 5_000_000),
        (400_000, 1000, 1 << 60, 1 << 60, 400_000),
        (50_000_000, 1000, 2_000_000_000, 1 << 60, 1_000_000),
        (50_000_000, 1000, 1 << 60, 600_000_000, 300_000),
        (50_000_000, 13_356, 0, 1 << 60, 1),
    ],
)
def test_the_smallest_bound_decides(
    planned: int, per_step: int, disk: int, memory: int, expected: int
) -> None:
    assert default_capacity(planned, per_step, disk, memory) == expected


def test_another_cap() -> None:
    assert default_capacity(10_000, 1, 1 << 60, 1 << 60, cap=100) == 100


@pytest.mark.parametrize(
    ("steps", "envs", "length", "windows", "expected"),
    [
        (1000, 16, 5, 1, 63),
        (1, 16, 65, 1, 130),
        (1, 16, 65, 1024, 130),
        (1, 1, 65, 1024, 1089),
        (1_000_000, 3, 65, 1024, 333_334),
    ],
)
def test_steps_are_shared_and_rounded_up(
    steps: int, envs: int, length: int, windows: int, expected: int
) -> None:
    per_env = capacity_per_env(steps, envs, length, windows)
    assert per_env == expected
    assert envs * (per_env - length + 1) >= windows


def test_memory_without_control_groups() -> None:
    assert memory_limit(machine({})) == 16 * GIB
    assert available_memory(machine({})) == 8 * GIB


def test_a_parent_group_of_version_2_limits_too() -> None:
    files = machine(
        {
            "/proc/self/cgroup": "0::/system.slice/job.scope\n",
            "/sys/fs/cgroup/system.slice/job.scope/memory.max": "max\n",
            "/sys/fs/cgroup/system.slice/memory.max": f"{3 * GIB}\n",
        }
    )
    assert memory_limit(files) == available_memory(files) == 3 * GIB


def test_inside_a_container_the_root_group_counts() -> None:
    files = machine(
        {"/proc/self/cgroup": "0::/docker/abc\n", "/sys/fs/cgroup/memory.max": f"{2 * GIB}"}
    )
    assert memory_limit(files) == 2 * GIB


def test_version_1() -> None:
    files = machine(
        {
            "/proc/self/cgroup": "9:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n",
            "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712\n",
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{5 * GIB}\n",
            "/sys/fs/cgroup/cpu/a/memory.limit_in_bytes": "1\n",
        }
    )
    assert memory_limit(files) == 5 * GIB


def limits(most: str) -> dict[str, str]:
    line = f"Max address space         {most:21}unlimited            bytes"
    return {"/proc/self/limits": f"Limit  Soft\n{line}\n", "/proc/self/statm": "1000 500 1 1 0 1 0"}


def test_a_limit_of_the_address_space_counts_without_what_is_mapped() -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    assert memory_limit(machine(limits("1000000000"))) == 1_000_000_000 - 1000 * page
    assert memory_limit(machine(limits("5"))) == 0
    assert memory_limit(machine(limits("unlimited"))) == memory_limit(machine({}))


def test_this_machine_has_memory() -> None:
    assert 0 < available_memory() <= memory_limit()


def test_meminfo_without_the_line() -> None:
    with pytest.raises(ValueError, match="MemTotal"):
        memory_limit(machine({"/proc/meminfo": "nothing\n"}))


def test_paging_is_announced_above_four_fifths() -> None:
    assert paging_warning(8 * GIB, 10 * GIB) is None
    assert "larger than 80%" in (paging_warning(8 * GIB + 1, 10 * GIB) or "")
