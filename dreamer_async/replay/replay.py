"""The replay: windows of experience, sampled from a ring that one writer fills.

Each environment has its own ring of `capacity` slots. The writer moves its cursors
(`cursors.py`) before it overwrites a slot and after the new step is complete; a reader looks at
them before it copies windows and once more afterwards, and copies anew what was overwritten
meanwhile. docs/replay.md has the protocol in full.

Legend: B rows of a batch, L window length with its context step, T = L - 1, N rows of an add,
E environments, C slots per environment, D deter, S stoch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dreamer_async.replay.cursors import Cursors
from dreamer_async.replay.files import ReplayFiles
from dreamer_async.replay.layout import (
    Array,
    Indices,
    RingSpec,
    SampleBuffers,
    check_buffers,
    check_latents,
    check_piece,
    check_rows,
    ring_bytes,
    spans,
)
from dreamer_async.replay.online_queue import OnlineQueue
from dreamer_async.replay.ring import FileSpec, RingFile, stored_file_spec
from dreamer_async.replay.state import COUNTERS, parse_state

SLICED = 512
"""Steps of at least so many bytes are copied as slices of a window, smaller ones by index."""

_Piece = tuple[tuple[int, slice], tuple[int, slice]]
"""(row, steps) of a batch and (environment, slots) of the ring."""


class _Draw(NamedTuple):
    """Windows that were chosen and have to be copied."""

    env: Indices
    """[R] environments."""
    start: Indices
    """[R] first steps."""
    online: int
    """How many of them, at the front, come from the online queue."""


class Replay:
    """The replay of one run.

    One thread adds, any thread samples and writes latents back. Everything that has to be seen
    together is guarded by one lock, which is never held while step data is copied.
    """

    def __init__(self, spec: RingSpec, files: ReplayFiles, *, seed: int, online: bool) -> None:
        """Take over open files; use `create` or `open`."""
        self.spec = spec
        self.bytes = sum(ring_bytes(spec))
        self._files = files
        self._lock: Any = threading.Lock()
        self._rng = np.random.default_rng(seed)
        self._online = online and not files.readonly
        self._queue = OnlineQueue(spec.length)
        self._counters = dict.fromkeys(COUNTERS, 0)
        self._sample_age = 0.0
        self._closed = False
        self._cursors = Cursors(files.ring.arrays["cursors"], spec.capacity, spec.length)
        self._columns = {name: files.ring.arrays[f"field/{name}"] for name in spec.fields}
        self._rows = {name: _rows(column) for name, column in self._columns.items()}
        self._attach_latents()

    def _attach_latents(self) -> None:
        latents = self._files.latents
        self._latent = dict(latents.arrays) if isinstance(latents, RingFile) else {}
        self._latent_rows = {name: _rows(column) for name, column in self._latent.items()}

    @classmethod
    def create(
        cls,
        path: Path,
        latents_path: Path,
        spec: RingSpec,
        *,
        seed: int,
        online: bool = True,
        claim: bool = True,
    ) -> Replay:
        """Allocate both files; without `claim`, until `close` unless `claim` is called before.

        Raises ReplaySpaceError, with nothing left behind, if they do not fit the disk.
        """
        files = ReplayFiles.create(path, latents_path, spec)
        return cls._over(files, spec, seed=seed, online=online, claim=claim)

    @classmethod
    def open(
        cls,
        path: Path,
        latents_path: Path,
        spec: RingSpec,
        *,
        seed: int,
        online: bool = True,
        readonly: bool = False,
        claim: bool = True,
    ) -> Replay:
        """Map a ring that an earlier process left behind, and become its writer.

        Latents are a cache: a missing or foreign latent file is replaced by an empty one. Without
        `claim` nothing on the disk is changed before `claim` is called; with `readonly` nothing is
        changed at all, and both files have to fit. Raises RingMismatch with the reason if the ring
        is not the one that `spec` describes.
        """
        files = ReplayFiles.open(path, latents_path, spec, readonly=readonly)
        return cls._over(files, spec, seed=seed, online=online, claim=claim and not readonly)

    @classmethod
    def _over(
        cls, files: ReplayFiles, spec: RingSpec, *, seed: int, online: bool, claim: bool
    ) -> Replay:
        """Make a replay over open files, which are closed again if that fails."""
        try:
            replay = cls(spec, files, seed=seed, online=online)
            if claim:
                replay.claim()
        except BaseException:
            files.close()
            raise
        return replay

    def claim(self) -> None:
        """Become the ring's writer: raise its generation, replace latents that do not fit it."""
        assert not self._closed
        self._files.claim()
        self._attach_latents()

    @property
    def generation(self) -> int:
        """How many writers have claimed the ring so far, this one included."""
        return self._files.generation

    @staticmethod
    def stored_spec(path: Path) -> FileSpec:
        """Read num_envs, capacity and arrays from the header of an existing ring."""
        return stored_file_spec(path)

    def stored(self) -> Iterator[tuple[str, list[Array]]]:
        """Every column with the steps that each environment has: [steps, *shape], in any order.

        The latents of steps are among them; they are views of the files, so close them first.
        """
        many = self._cursors.stored.tolist()
        for name, column in (*self._columns.items(), *self._latent.items()):
            yield name, [column[env, :steps] for env, steps in enumerate(many)]

    # -- the writer --------------------------------------------------------------------------

    def add(
        self,
        env_id: NDArray[np.int32],
        fields: Mapping[str, Array],
        deter: NDArray[np.float16],
        stoch: NDArray[np.uint8],
    ) -> None:
        """Append one step to each of N different environments.

        `fields` is {name: [N, *shape]}, `deter` [N, D], `stoch` [N, S]; the latents are those
        that the policy reached at this step. Only one thread may add.
        """
        assert not self._files.readonly and not self._closed
        env = np.asarray(env_id, np.int64)
        check_rows(self.spec, env, fields, deter, stoch)
        with self._lock:
            step = self._cursors.reserve(env)
        index = env * self.spec.capacity + step % self.spec.capacity
        # A slice is written in half the time of an index, and single environments add often.
        place = slice(index[0], index[0] + 1) if len(index) == 1 else index
        for name, rows in self._rows.items():
            self._put(rows, place, fields[name])
        for name, value in (("deter", deter), ("stoch", stoch), ("valid", 1)):
            self._put(self._latent_rows[name], place, value)
        with self._lock:
            self._publish(env, step)

    def amend(self, env_id: NDArray[np.int32], action: Array) -> None:
        """Replace the actions of the newest steps of N environments, [N, *], before the next.

        Whoever samples meanwhile sees either: the last action of a window is never used, as what
        it led to is not in it, and the newest step is the last one of every window that has it.
        """
        assert not self._files.readonly and not self._closed
        env = np.asarray(env_id, np.int64)
        newest = self._cursors.head[env] - 1
        assert (newest >= 0).all(), "there is no step to amend"
        self._put(
            self._rows["action"], env * self.spec.capacity + newest % self.spec.capacity, action
        )

    def fill(self, pieces: Iterable[tuple[int, Mapping[str, Array]]]) -> None:
        """Put recorded steps into an empty replay: (environment, {name: [N, *shape]}), in order.

        None of them counts before all are there, so that a killed process leaves an empty replay
        behind. They have no latents. Every environment has to get some steps, and no more than
        its capacity.
        """
        assert not self._files.readonly and not self._closed and not self.steps
        filled = np.zeros(self.spec.num_envs, np.int64)
        for env, fields in pieces:
            first, last = filled[env], filled[env] + check_piece(self.spec, fields)
            assert last <= self.spec.capacity, (env, last, self.spec.capacity)
            for name, column in self._columns.items():
                column[env, first:last] = fields[name]
            filled[env] = last
        assert filled.all(), filled
        with self._lock:
            self._files.ring.write_array("cursors", np.stack([filled, filled]))

    def write_latents(
        self,
        env: NDArray[np.int32],
        start: NDArray[np.int64],
        generation: int,
        deter: NDArray[np.float16],
        stoch: NDArray[np.uint8],
    ) -> int:
        """Replace the latents of steps start + 1 .. start + T of B sampled windows.

        `deter` is [B, T, D], `stoch` [B, T, S], `generation` that of the sample. Steps that were
        overwritten meanwhile are left alone. Returns the steps written. Holds the lock from the
        check to the last byte, so that no slot changes hands in between.
        """
        assert not self._files.readonly and not self._closed
        check_latents(self.spec, deter, stoch, len(env), self.spec.length - 1)
        rows = zip(env.tolist(), start.tolist(), deter, stoch, strict=True)
        with self._lock:
            if generation != self.generation:
                return 0
            return sum(self._refresh(e, s + 1, h, z) for e, s, h, z in rows)

    def _put(self, rows: Array, index: Indices | slice, value: Array | int) -> None:
        """Write some entries of one column."""
        rows[index] = value

    def _publish(self, env: Indices, step: Indices) -> None:
        """Make the new steps visible, and queue the windows that they complete."""
        self._cursors.publish(env, step)
        if self._online:
            for e, n in zip(env.tolist(), step.tolist(), strict=True):
                self._queue.add(e, n)

    def _refresh(self, env: int, first: int, deter: Array, stoch: Array) -> int:
        """Write the latents of steps first .. first + T - 1 that are still in the ring."""
        low = max(first, self._cursors.oldest(env))
        high = min(first + len(deter), int(self._cursors.head[env]))
        for slots, steps in spans(low, high - low, self.spec.capacity):
            part = slice(low - first + steps.start, low - first + steps.stop)
            # A killed process leaves these steps without latents, never with half of them.
            self._put(self._latent["valid"][env], slots, 0)
            self._put(self._latent["deter"][env], slots, deter[part])
            self._put(self._latent["stoch"][env], slots, stoch[part])
            self._put(self._latent["valid"][env], slots, 1)
        return max(0, high - low)

    # -- the reader --------------------------------------------------------------------------

    def sample(self, out: SampleBuffers, *, online: bool = True, newest: bool = False) -> None:
        """Fill every row of `out` with a window.

        Each row takes the oldest entry of the online queue (with `online`), else any complete
        window with the same probability; with `newest` all rows are the newest windows that do not
        overlap, up to `newest_windows` of them. Episode borders inside a window are fine; `is_last`
        is set where the next step is first (abandoned episodes), except at the final index, and
        `is_first` at index 0. Where the latents are lost, the context reads as zero and index 1
        is first, so that the model starts from its initial state. Raises RuntimeError if there
        is no complete window, or are too few.
        """
        assert not self._closed
        check_buffers(self.spec, out)
        rows = np.arange(len(out.env))
        lost = np.zeros(len(rows), bool)
        while rows.size:
            with self._lock:
                queued = online and self._online
                draw = self._draw(rows.size, online=queued, newest=newest)
            self._copy(out, rows, draw)
            with self._lock:
                lost[rows] = self._read_context(out, rows, draw)
                torn = self._settle(draw)
            rows = rows[torn]
        out.generation = self.generation
        age = self._cursors.head[out.env] - out.start - self.spec.length
        self._sample_age = float(age.mean()) * self.spec.num_envs
        self._counters["contexts_lost"] += int(lost.sum())
        out.annotate(lost)

    def _draw(self, count: int, *, online: bool, newest: bool) -> _Draw:
        """Choose windows: the newest, or the online queue first and the rest uniform over all."""
        if newest:
            return _Draw(*self._cursors.newest(count), online=0)
        queued, dropped = self._queue.take(count, self._cursors.oldest) if online else ([], 0)
        self._counters["online_dropped"] += dropped
        env, start = self._cursors.uniform(count - len(queued), self._rng)
        if queued:
            first = np.array(queued, np.int64)
            env, start = np.append(first[:, 0], env), np.append(first[:, 1], start)
        return _Draw(env, start, len(queued))

    def _copy(self, out: SampleBuffers, rows: Indices, draw: _Draw) -> None:
        """Copy windows: large steps as one or two slices per window, small ones by index.

        A slice costs a microsecond before its first byte, an index a few nanoseconds.
        """
        places = zip(rows.tolist(), draw.env.tolist(), draw.start.tolist(), strict=True)
        pieces = [
            ((row, steps), (env, slots))
            for row, env, start in places
            for slots, steps in spans(start, self.spec.length, self.spec.capacity)
        ]
        steps = draw.start[:, None] + np.arange(self.spec.length)
        index = draw.env[:, None] * self.spec.capacity + steps % self.spec.capacity  # [R, L]
        for name, column in self._columns.items():
            if self.spec.fields[name].nbytes >= SLICED:
                self._take(out.fields[name], column, pieces)
            else:
                out.fields[name][rows] = self._rows[name][index]

    def _take(self, target: Array, column: Array, pieces: list[_Piece]) -> None:
        """Copy contiguous pieces of one column."""
        for here, there in pieces:
            target[here] = column[there]

    def _read_context(self, out: SampleBuffers, rows: Indices, draw: _Draw) -> NDArray[np.bool_]:
        """Copy the latents of each window's first step; return [R] where there are none."""
        index = draw.env * self.spec.capacity + draw.start % self.spec.capacity
        lost = self._latent_rows["valid"][index] == 0
        for name, target in (("deter", out.deter), ("stoch", out.stoch)):
            target[rows] = self._latent_rows[name][index]
            target[rows[lost]] = 0
        out.env[rows], out.start[rows] = draw.env, draw.start
        return lost

    def _settle(self, draw: _Draw) -> NDArray[np.bool_]:
        """Return [R] which windows were overwritten while they were copied, and count."""
        torn = self._cursors.overwritten(draw.env, draw.start)
        dropped = int(torn[: draw.online].sum())
        kept = ~torn
        self._counters["sampled"] += int(kept.sum())
        self._counters["torn"] += int(torn.sum())
        self._counters["online_served"] += draw.online - dropped
        self._counters["online_dropped"] += dropped
        return torn

    # -- what the run wants to know ----------------------------------------------------------

    @property
    def windows(self) -> int:
        """Complete windows that can be sampled now."""
        with self._lock:
            return int(self._cursors.windows()[1].sum())

    @property
    def newest_windows(self) -> int:
        """Windows that do not overlap, as many of each environment."""
        with self._lock:
            return self._cursors.windows_apart()

    @property
    def steps(self) -> int:
        """Steps ever added, over all environments and all processes that wrote this ring."""
        with self._lock:
            return self._cursors.steps

    def stats(self) -> dict[str, float]:
        """Gauges by name.

        fill is 0 to 1; sample_age is the mean age of the last batch, in steps of all
        environments between the end of a window and now; torn counts windows drawn anew.
        """
        with self._lock:
            cursors = self._cursors
            slots = self.spec.num_envs * self.spec.capacity
            return {
                "fill": float(cursors.stored.sum()) / slots,
                "steps": float(cursors.steps),
                "windows": float(cursors.windows()[1].sum()),
                "online_queue": float(len(self._queue)),
                "sample_age": self._sample_age,
                **{name: float(count) for name, count in self._counters.items()},
            }

    # -- checkpoints -------------------------------------------------------------------------

    @property
    def identity(self) -> str:
        """What tells this ring from all others; it stays the same wherever the file is moved."""
        return self._files.ring.spec.identity

    def state(self) -> dict[str, Any]:
        """Describe everything that the next samples depend on besides the files, as JSON."""
        with self._lock:
            return {
                "ring": self.identity,
                "generation": self.generation,
                "length": self.spec.length,
                "heads": self._cursors.head.tolist(),
                "rng": self._rng.bit_generator.state,
                "queue": [list(entry) for entry in self._queue],
                "counters": dict(self._counters),
            }

    def load_state(self, state: Mapping[str, Any]) -> bool:
        """Restore `state()` and tell whether it belongs to this ring.

        Queue entries that were overwritten since are dropped and counted. Windows that were
        completed since are queued again: the learner that goes on has not seen them. Of another
        ring only the generator and the counters are taken. Raises ValueError if the state is
        damaged; nothing is changed then.
        """
        same_ring = isinstance(state, Mapping) and state.get("ring") == self.identity
        state = parse_state(state, self.spec.num_envs if same_ring else None)
        fits = same_ring and state["length"] == self.spec.length
        with self._lock:
            self._rng.bit_generator.state = state["rng"]
            self._counters.update(state["counters"])
            dropped = len(state["queue"])
            self._queue.clear()
            if self._online and fits:
                heads = state["heads"], self._cursors.head.tolist()
                dropped = self._queue.restore(state["queue"], *heads, self._cursors.oldest)
            self._counters["online_dropped"] += dropped
        return same_ring

    def flush(self) -> None:
        """Write the ring to the disk and wait; latents are a cache and are not written."""
        self._files.ring.flush()

    def close(self) -> None:
        """Unmap the files; may be called twice. Nothing may be in flight."""
        self._closed = True
        for views in (self._columns, self._rows, self._latent, self._latent_rows):
            views.clear()
        self._cursors.close()
        self._files.close()

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _rows(column: Array) -> Array:
    """View a column [E, C, *shape] as [E * C, *shape]."""
    return column.reshape(-1, *column.shape[2:])
