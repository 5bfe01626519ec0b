"""How often the dashboard paints: within its share of a busy machine, at once on an idle one."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tui.pace import LONGEST_SECONDS, SHARE, Pace, processors_busy

TICK = 0.5


class Machine:
    """A clock, what was used so far, and whether every processor has work."""

    def __init__(self, busy: bool) -> None:
        self.now, self.used, self.busy = 100.0, 7.0, busy
        self.pace = Pace(lambda: self.now, lambda: self.used, lambda: self.busy)

    def paints(self, seconds: float, cost: float, beside: float = 0.0) -> list[float]:
        """When it paints, if a paint costs `cost` and everything else `beside` a second."""
        times = []
        for _ in range(int(seconds / TICK)):
            self.now += TICK
            self.used += beside * TICK
            if self.pace.due():
                times.append(self.now)
                self.pace.painted()
                self.used += cost
        return times


@pytest.mark.parametrize("cost", [0.0, 0.005, 0.02, 0.04])
def test_a_busy_machine_gives_its_share_and_no_more(cost: float) -> None:
    machine = Machine(busy=True)
    painted = machine.paints(600, cost)
    used = cost * len(painted) / 600
    assert used <= SHARE * 1.01
    assert len(painted) >= min(600 / TICK, 600 * SHARE / cost if cost else 1e9) * 0.6


def test_what_reading_costs_counts() -> None:
    """Half of the share goes into reading, so that half as many paints are left."""
    alone = len(Machine(busy=True).paints(600, 0.02))
    beside = len(Machine(busy=True).paints(600, 0.02, beside=SHARE / 2))
    assert 0.4 * alone < beside < 0.6 * alone


def test_a_dear_paint_still_comes() -> None:
    times = Machine(busy=True).paints(60, 1.0)
    gaps = {after - before for before, after in pairwise(times)}
    assert gaps == {LONGEST_SECONDS}


def test_a_free_processor_means_every_time() -> None:
    assert len(Machine(busy=False).paints(60, 1.0)) == 60 / TICK


def test_a_machine_that_becomes_idle_is_seen() -> None:
    machine = Machine(busy=True)
    machine.paints(10, 1.0)
    machine.busy = False
    assert machine.paints(2 * TICK, 1.0) == [machine.now - TICK, machine.now]


@pytest.mark.parametrize(("load", "busy"), [(1.0, False), (1.4, False), (1.8, True), (9.0, True)])
def test_busy_is_three_quarters_of_all_processors(
    monkeypatch: pytest.MonkeyPatch, load: float, busy: bool
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    assert processors_busy() == busy
