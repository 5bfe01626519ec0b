"""One limiter for all ranks: rank 0 counts what everybody collects, the others look at it.

Which update is due is decided by rank 0 alone, of exact counts. Whether a rank may insert is judged
by what it heard last, so that the debt may pass its bound by what is collected meanwhile.
"""

from __future__ import annotations

from typing import Any

from dreamer_async.run.limiter import TrainRatio


class LeadRatio(TrainRatio):
    """Rank 0's, over the steps of all; it begins once every rank has its share of the prefill."""

    def __init__(self, ratio: float, cost: int, others: int) -> None:
        super().__init__(ratio, cost)
        self.own: int = 0
        self.heard: dict[int, int] = dict.fromkeys(range(1, others + 1), 0)
        """Steps of each other rank, in its present process."""
        self._waits_for = {0, *self.heard}
        self._wanted: float | None = None
        self._open = False

    def insert(self, steps: int) -> None:
        """Count steps of this rank."""
        self.own += steps
        super().insert(steps)

    def start(self, debt: float | None = None) -> None:
        """This rank has its share of the prefill; `debt` as in one process."""
        self._wanted = debt if 0 in self._waits_for else self._wanted
        self._filled(0)

    def hear(self, rank: int, inserted: int, *, ready: bool) -> None:
        """Another rank says how many steps it has inserted so far, and whether it has its share."""
        self.inserted += inserted - self.heard[rank]
        self.heard[rank] = inserted
        if ready:
            self._filled(rank)

    def open(self, steps: int) -> None:
        """All ranks are back, with so many steps that rank 0 did not know of."""
        self.inserted += steps
        self._open = True
        self._begin()

    def counts(self) -> dict[str, Any]:
        """What the others mirror."""
        return {
            "inserted": self.inserted,
            "sampled": self.sampled,
            "credit": self._credit,
            "paused": self.paused,
        }

    def _filled(self, rank: int) -> None:
        self._waits_for.discard(rank)
        self._begin()

    def _begin(self) -> None:
        if self._open and not self._waits_for and not self.started:
            super().start(self._wanted)


class MirrorRatio(TrainRatio):
    """Another rank's: what rank 0 said last, and the steps of its own since."""

    def __init__(self, ratio: float, cost: int) -> None:
        super().__init__(ratio, cost)
        self.own: int = 0
        self.ready = False
        """Whether this rank has its share of the prefill."""

    def insert(self, steps: int) -> None:
        """Count steps of this rank."""
        self.own += steps
        self.inserted += steps

    def start(self, debt: float | None = None) -> None:
        """This rank has its share of the prefill; rank 0 begins to count when all have."""
        self.ready = True

    def mirror(self, counts: dict[str, Any], known: int) -> None:
        """Take over rank 0's counters, which hold `known` of the steps of this rank."""
        self.inserted = counts["inserted"] + self.own - known
        self.sampled, self._credit = counts["sampled"], counts["credit"]
        self.paused = counts["paused"]
