"""The online queue: fresh windows, each sampled once before any is drawn at random."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence

Entry = tuple[int, int]
"""(environment, first step of a window)."""
Oldest = Callable[[int], int]
"""Gives the oldest step of an environment that no writer may overwrite."""


class OnlineQueue:
    """Windows of `length` steps that wait for their turn, oldest first.

    Nobody is told when an entry is overwritten in the ring: it is found, dropped and counted when
    its turn comes. The caller sees to it that one thread is in here at a time.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def add(self, env: int, step: int) -> None:
        """Queue the window that ends with `step` if it is the turn of one.

        The official rule: n mod length = 0 with n the steps before this one, so the first window
        starts at step 1 and none overlaps another.
        """
        if step > 0 and step % self._length == 0:
            self._entries.append((env, step + 1 - self._length))

    def take(self, count: int, oldest: Oldest) -> tuple[list[Entry], int]:
        """Take up to `count` entries that are still in the ring; also say how many were not."""
        taken: list[Entry] = []
        dropped = 0
        while self._entries and len(taken) < count:
            env, start = self._entries.popleft()
            if start >= oldest(env):
                taken.append((env, start))
            else:
                dropped += 1
        return taken, dropped

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()

    def restore(
        self,
        entries: Sequence[Entry],
        before: Sequence[int],
        now: Sequence[int],
        oldest: Oldest,
    ) -> int:
        """Hold what an earlier queue held, then what was completed since; returns the dropped.

        `before` and `now` are the steps of each environment then and today.
        """
        self._entries.clear()
        late: list[tuple[int, int]] = []
        dropped = 0
        for env, (then, today) in enumerate(zip(before, now, strict=True)):
            ends = range(-(-max(then, 1) // self._length) * self._length, today, self._length)
            # Only those that are still in the ring: a ring may have seen far more than it holds.
            gone = bisect_left(ends, oldest(env) + self._length - 1)
            dropped += gone
            late += [(end + 1 - self._length, env) for end in ends[gone:]]
        for env, start in [*entries, *((env, start) for start, env in sorted(late))]:
            if oldest(env) <= start <= now[env] - self._length:
                self._entries.append((env, start))
            else:
                dropped += 1
        return dropped
