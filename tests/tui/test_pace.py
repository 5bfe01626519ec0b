"""How often the dashboard paints: within its share of a busy machine, at once on an idle one."""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path

import pytest

from dreamer_async.tui.pace import LONGEST_SECONDS, SHARE, Pace, idle_seconds

TICK = 0.5


class Machine:
    """A clock, what was used so far, and how many processors are idle."""

    def __init__(self, free: float) -> None:
        self.now, self.used, self.idle, self.free = 100.0, 7.0, 1000.0, free
        self.pace = Pace(lambda: self.now, lambda: self.used, lambda: self.idle)

    def paints(self, seconds: float, cost: float, beside: float = 0.0) -> list[float]:
        """When it paints, if a paint costs `cost` and everything else `beside` a second."""
        times = []
        for _ in range(int(seconds / TICK)):
            self.now += TICK
            self.used += beside * TICK
            self.idle += self.free * TICK
            if self.pace.due():
                times.append(self.now)
                self.pace.painted()
                self.used += cost
        return times


@pytest.mark.parametrize("cost", [0.0, 0.005, 0.02, 0.04])
def test_a_busy_machine_gives_its_share_and_no_more(cost: float) -> None:
    machine = Machine(free=0.35)
    painted = machine.paints(600, cost)
    used = cost * len(painted) / 600
    assert used <= SHARE * 1.01
    assert len(painted) >= min(600 / TICK, 600 * SHARE / cost if cost else 1e9) * 0.6


def test_what_reading_costs_counts() -> None:
    """Half of the share goes into reading, so that half as many paints are left."""
    alone = len(Machine(free=0.35).paints(600, 0.02))
    beside = len(Machine(free=0.35).paints(600, 0.02, beside=SHARE / 2))
    assert 0.4 * alone < beside < 0.6 * alone


def test_a_dear_paint_still_comes() -> None:
    times = Machine(free=0.35).paints(60, 1.0)
    gaps = {after - before for before, after in pairwise(times)}
    assert gaps == {LONGEST_SECONDS}


def test_a_free_processor_means_every_time() -> None:
    assert len(Machine(free=0.9).paints(60, 1.0)) == 60 / TICK


def test_a_machine_that_becomes_idle_is_seen() -> None:
    machine = Machine(free=0.35)
    machine.paints(10, 1.0)
    machine.free = 2.0
    assert machine.paints(2 * TICK, 1.0) == [machine.now - TICK, machine.now]


def test_the_kernel_counts_idle_time() -> None:
    before, began = idle_seconds(), time.monotonic()
    time.sleep(0.05)
    gained, passed = idle_seconds() - before, time.monotonic() - began
    assert 0 <= gained <= (os.cpu_count() or 1) * (passed + 0.1)
    assert before > 0


@pytest.mark.parametrize("said", [None, b"", b"cpu 1 2", b"cpu a b c d e f"])
def test_a_kernel_that_says_nothing_counts_as_busy(
    monkeypatch: pytest.MonkeyPatch, said: bytes | None
) -> None:
    def read(path: Path) -> bytes:
        if said is None:
            raise PermissionError(path)
        return said

    monkeypatch.setattr(Path, "read_bytes", read)
    assert idle_seconds() == 0.0
