"""The train-ratio limiter: the one rule that ties environment steps to updates.

Train ratio = replayed steps per agent step, counted after the prefill. An update replays
`cost` = batch x length steps (the context step is not counted). As in the official code the
first update comes at once when the prefill is complete, so after n further steps

    updates = 1 + floor(n * ratio / cost)
    debt    = (inserted - prefill) * ratio + cost - sampled

where an update is due while debt >= cost, and inserting waits while debt > bound. Where it must
not wait, as a robot does not, debt beyond the bound is forgiven: the ratio falls instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class TrainRatio:
    """Back-pressure between the collector and the learner.

    The counters change synchronously; only the waiting methods are asynchronous, and
    cancelling them changes nothing. Raises ValueError for settings that would deadlock.
    """

    def __init__(
        self, ratio: float, cost: int, bound: float | None = None, *, waits: bool = True
    ) -> None:
        """`waits`: whether inserting may be held up, by debt or by a pause."""
        if ratio <= 0:
            raise ValueError(f"train ratio must be positive, not {ratio}")
        self.ratio = ratio
        self.cost = cost
        self.bound = 2.0 * cost if bound is None else bound
        if self.bound < cost:
            raise ValueError(
                f"debt bound {self.bound} is below one update of {cost} steps: "
                "neither side could move"
            )
        self.waits = waits
        self.inserted = 0
        self.own: int | None = None
        """Steps of this rank, where there are several; in this process."""
        self.sampled = 0
        self.paused = False
        """While set, neither side may go on; change it and `notify`."""
        self.compiling = False
        """Whether the first update has to be compiled yet; change it and `notify`."""
        self._origin = 0
        self._credit: float | None = None  # debt = inserted * ratio - sampled + credit
        self._changed = asyncio.Condition()

    @property
    def started(self) -> bool:
        """Whether the prefill is complete."""
        return self._credit is not None

    @property
    def phase(self) -> str:
        """What the run is doing, in the words of the event stream."""
        if self.paused:
            return "paused"
        if self.compiling:
            return "compiling"
        return "training" if self.started else "prefill"

    @property
    def steps_since_start(self) -> int:
        """Agent steps inserted since counting began in this process."""
        return self.inserted - self._origin if self.started else 0

    @property
    def debt(self) -> float:
        """Replayed steps that are due; 0 before the prefill is complete."""
        if self._credit is None:
            return 0.0
        return self.inserted * self.ratio - self.sampled + self._credit

    @property
    def due(self) -> bool:
        """Whether an update may sample now."""
        return self.started and self.debt >= self.cost

    def start(self, debt: float | None = None) -> None:
        """Begin to count: the prefill is complete, or a resumed run brings its old debt."""
        wanted = self.cost if debt is None else debt
        self._origin = self.inserted
        self._credit = wanted + self.sampled - self.inserted * self.ratio

    def insert(self, steps: int) -> None:
        """Count agent steps that were added to the replay."""
        self.inserted += steps
        if self._credit is not None and not self.waits:
            self._credit -= max(0.0, self.debt - self.bound)

    def sample(self) -> None:
        """Count one update's worth of replayed steps."""
        assert self.due, f"debt {self.debt} does not cover an update of {self.cost} steps"
        self.sampled += self.cost

    async def notify(self) -> None:
        """Wake whoever waits; call after the counters changed."""
        async with self._changed:
            self._changed.notify_all()

    async def room(self) -> None:
        """Wait until the collector may insert."""
        if self.waits:
            await self._until(lambda: not self.paused and self.debt <= self.bound)

    async def until_due(self) -> None:
        """Wait until an update may sample."""
        await self._until(lambda: not self.paused and self.due)

    async def running(self) -> None:
        """Wait while paused."""
        await self._until(lambda: not self.paused)

    async def compiled(self) -> None:
        """Wait until the update is compiled, if it has to be."""
        await self._until(lambda: not self.compiling)

    async def reached(self, steps: int) -> None:
        """Wait until this many agent steps were inserted."""
        await self._until(lambda: self.inserted >= steps)

    async def _until(self, ready: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(ready)
