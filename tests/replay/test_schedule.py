"""Every interleaving of adding, sampling and refreshing latents that a scheduler can think of.

The replay's own methods run in three threads of which one moves at a time, from one access to
shared memory to the next; hypothesis chooses who. The protocol has to hold for all of these
schedules, and for each of six plausible mistakes some schedule has to show it.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dreamer_async.replay.cursors import Cursors
from dreamer_async.replay.layout import RingSpec, SampleBuffers
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.ring import Field

LENGTH = 3
SPEC = RingSpec(
    {
        "early": Field((), "int32"),
        "is_first": Field((), "bool"),
        "is_last": Field((), "bool"),
        "late": Field((), "int32"),
    },
    deter=1,
    stoch=1,
    num_envs=1,
    capacity=3 * LENGTH,
    length=LENGTH,
)
REFRESHED = 100
"""What the learner adds to the number of a step in the latents that it writes back."""

Schedule = list[tuple[int, int]]
"""(thread, accesses it makes) one after the other."""
SCHEDULES = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 14)), min_size=10, max_size=40)


class Baton:
    """Lets one thread run at a time, from one pause to the next."""

    def __init__(self, schedule: Schedule) -> None:
        self._moves = itertools.chain.from_iterable([t] * n for t, n in schedule)
        self._turns: dict[threading.Thread, threading.Semaphore] = {}
        self._back = threading.Semaphore(0)
        self._errors: list[BaseException] = []
        self.waiting: set[threading.Thread] = set()
        """Threads that cannot move until the lock is free."""

    def run(self, *jobs: Callable[[], None]) -> None:
        """Run all jobs to their ends by the schedule; raise the first error."""
        threads = [threading.Thread(target=self._work, args=(job,)) for job in jobs]
        for thread in threads:
            self._turns[thread] = threading.Semaphore(0)
            thread.start()
        while self._turns:
            ready = [t for t in threads if t in self._turns and t not in self.waiting]
            wanted = threads[next(self._moves, 0)]
            self._turns[wanted if wanted in ready else ready[0]].release()
            self._back.acquire()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def pause(self) -> None:
        """Let others move; does nothing outside of `run`."""
        turn = self._turns.get(threading.current_thread())
        if turn is not None:
            self._back.release()
            turn.acquire()

    def _work(self, job: Callable[[], None]) -> None:
        me = threading.current_thread()
        self._turns[me].acquire()
        try:
            job()
        except BaseException as error:
            self._errors.append(error)
        finally:
            del self._turns[me]
            self._back.release()


class BatonLock:
    """A lock whose owner can pause; the scheduler knows who waits for it."""

    def __init__(self, baton: Baton) -> None:
        self._baton = baton
        self._owner: threading.Thread | None = None
        self.ignored_by: threading.Thread | None = None

    def __enter__(self) -> None:
        me = threading.current_thread()
        if self.ignored_by is me:
            return
        self._baton.pause()
        while self._owner is not None:
            self._baton.waiting.add(me)
            self._baton.pause()
        self._owner = me

    def __exit__(self, *error: object) -> None:
        if self._owner is threading.current_thread():
            self._owner = None
            self._baton.waiting.clear()


class Pausing(dict[str, Any]):
    """A mapping that pauses before each access to one of its arrays."""

    def __init__(self, arrays: Mapping[str, Any], baton: Baton) -> None:
        super().__init__(arrays)
        self._baton = baton

    def __getitem__(self, name: str) -> Any:
        self._baton.pause()
        return super().__getitem__(name)


class Stepped(Replay):
    """The replay as it is, pausing before every access to shared memory."""

    baton: Baton | None = None
    kind: type[Cursors] = Cursors

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        counters = self._files.ring.arrays["cursors"]
        self._cursors = self.kind(counters, SPEC.capacity, SPEC.length)

    def conduct(self, baton: Baton) -> None:
        self.baton = baton
        self._lock = BatonLock(baton)
        self._latent_rows = Pausing(self._latent_rows, baton)

    def _put(self, *args: Any, **kwargs: Any) -> None:
        self._pause()
        super()._put(*args, **kwargs)

    def _take(self, *args: Any, **kwargs: Any) -> None:
        self._pause()
        super()._take(*args, **kwargs)

    def _pause(self) -> None:
        if self.baton is not None:
            self.baton.pause()


# -- plausible mistakes ----------------------------------------------------------------------


class Unannounced(Cursors):
    """Nobody hears that a slot will be overwritten."""

    def reserve(self, env: np.ndarray) -> np.ndarray:
        return self.head[env]


class Hasty(Cursors):
    """Both cursors are raised at once."""

    def reserve(self, env: np.ndarray) -> np.ndarray:
        step = super().reserve(env)
        super().publish(env, step)
        return step

    def publish(self, env: np.ndarray, step: np.ndarray) -> None:
        pass


class WithoutReserve(Stepped):
    """There is one cursor only, raised when a step is complete."""

    kind = Unannounced

    def _publish(self, env: np.ndarray, step: np.ndarray) -> None:
        self._cursors.reserved[env] = step + 1
        super()._publish(env, step)


class ChecksHeadOnly(Stepped):
    """A copied window is checked against the steps that are complete."""

    def _settle(self, draw: Any) -> np.ndarray:
        cursors = self._cursors
        reserved, cursors.reserved = cursors.reserved, cursors.head
        try:
            return super()._settle(draw)
        finally:
            cursors.reserved = reserved


class ReservesAfterData(Stepped):
    """Data first, then `reserved`, then `head`."""

    kind = Unannounced

    def _publish(self, env: np.ndarray, step: np.ndarray) -> None:
        self._cursors.reserved[env] = step + 1
        self._lock.__exit__()
        self._lock.__enter__()
        super()._publish(env, step)


class PublishesBeforeData(Stepped):
    """Both cursors are raised before the data is there."""

    kind = Hasty


class WritesLatentsWithoutLock(Stepped):
    """`write_latents` checks which steps are left, then writes, and nobody waits for it."""

    def write_latents(self, *args: Any, **kwargs: Any) -> int:
        self._lock.ignored_by = threading.current_thread()
        try:
            return super().write_latents(*args, **kwargs)
        finally:
            self._lock.ignored_by = None


class ReadsContextWithoutLock(Stepped):
    """The context is copied like the other data."""

    def _read_context(self, *args: Any, **kwargs: Any) -> np.ndarray:
        self._lock.__exit__()
        lost = super()._read_context(*args, **kwargs)
        self._lock.__enter__()
        return lost


MISTAKES = [
    WithoutReserve,
    ChecksHeadOnly,
    ReservesAfterData,
    PublishesBeforeData,
    WritesLatentsWithoutLock,
    ReadsContextWithoutLock,
]


# -- the three threads -----------------------------------------------------------------------


def add(replay: Replay, steps: int) -> None:
    """Append steps that say their own number in every column."""
    for _ in range(steps):
        number = replay.steps
        code = np.full(1, number, np.int32)
        flag = np.zeros(1, bool)
        replay.add(
            np.zeros(1, np.int32),
            {"early": code, "is_first": flag, "is_last": flag, "late": code},
            np.full((1, 1), number, np.float16),
            np.full((1, 1), number, np.uint8),
        )


def read(replay: Replay) -> SampleBuffers:
    """Sample one window and check that all of it is what its place says."""
    out = SampleBuffers.allocate(SPEC, 1)
    replay.sample(out, online=False)
    steps = (out.start[0] + np.arange(LENGTH)).tolist()
    assert out.fields["early"][0].tolist() == steps
    assert out.fields["late"][0].tolist() == steps
    check_latent(steps[0], out.deter[0, 0], out.stoch[0, 0])
    return out


def check_latent(step: int, deter: Any, stoch: Any) -> None:
    assert (int(deter), int(stoch)) in {(step, step), (step + REFRESHED, step + REFRESHED)}


def learn(replay: Replay) -> None:
    """Sample one window and write its latents back."""
    out = read(replay)
    fresh = out.start[:, None] + 1 + np.arange(LENGTH - 1) + REFRESHED
    replay.write_latents(
        out.env,
        out.start,
        out.generation,
        fresh[..., None].astype(np.float16),
        fresh[..., None].astype(np.uint8),
    )


def repeat(job: Callable[[Replay], object], replay: Replay, times: int) -> None:
    for _ in range(times):
        job(replay)


def audit(replay: Replay) -> None:
    """Check every step that is left in the ring."""
    assert replay._cursors.reserved[0] == replay._cursors.head[0]
    for step in range(replay._cursors.oldest(0), replay.steps):
        slot = 0, step % SPEC.capacity
        assert replay._columns["early"][slot] == replay._columns["late"][slot] == step
        check_latent(step, replay._latent["deter"][slot][0], replay._latent["stoch"][slot][0])


def conduct(kind: type[Stepped], folder: Path, schedule: Schedule, prefill: int) -> None:
    """Run the three threads by one schedule."""
    name = next(_names)
    paths = folder / f"{name}.ring", folder / f"{name}.latents"
    with kind.create(*paths, SPEC, seed=prefill) as replay:
        assert isinstance(replay, Stepped)
        for path in paths:
            path.unlink()
        add(replay, prefill)
        baton = Baton(schedule)
        replay.conduct(baton)
        baton.run(
            lambda: add(replay, 4),
            lambda: repeat(read, replay, 4),
            lambda: repeat(learn, replay, 3),
        )
        audit(replay)


_names = itertools.count()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def search(kind: type[Stepped], folder: Path, examples: int) -> None:
    """Try many schedules; raises if one of them breaks a promise."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    @given(schedule=SCHEDULES, prefill=st.integers(SPEC.capacity, 2 * SPEC.capacity))
    def all_schedules(schedule: Schedule, prefill: int) -> None:
        conduct(kind, folder, schedule, prefill)

    all_schedules()


def test_the_protocol_holds_for_all_schedules(folder: Path) -> None:
    search(Stepped, folder, 100)


@pytest.mark.slow
def test_the_protocol_holds_for_many_more_schedules(folder: Path) -> None:
    search(Stepped, folder, 5_000)


@pytest.mark.parametrize("kind", MISTAKES, ids=lambda kind: kind.__name__)
def test_some_schedule_shows_each_mistake(folder: Path, kind: type[Stepped]) -> None:
    with pytest.raises(AssertionError):
        search(kind, folder, 2000)
