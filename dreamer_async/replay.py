"""The replay: windows of experience, sampled from a ring that one writer fills.

Each environment has its own ring of `capacity` slots; step n of environment e lives in slot
n % capacity of row e. Two cursors per environment order everything: `reserved` is raised before
a slot is overwritten, `head` after the new step is complete. A window is valid if its first step
is still >= reserved - capacity after it was copied. docs/replay.md has the protocol in full.

Legend: B rows of a batch, L window length with its context step, T = L - 1, N rows of an add,
E environments, C slots per environment, D deter, S stoch.
"""

from __future__ import annotations

import os
import threading
import uuid
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dreamer_async.replay_layout import (
    COUNTERS,
    FLAGS,
    Array,
    RingSpec,
    SampleBuffers,
    check_capacity,
    parse_state,
    ring_bytes,
)
from dreamer_async.ring import (
    Record,
    RingFile,
    RingMismatch,
    Schema,
    check_space,
    stored_schema,
)

MAX_STEPS = 1 << 48
"""Steps of an environment that no run reaches; a larger cursor is damaged."""
Indices = NDArray[np.int64]
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

    def __init__(
        self,
        spec: RingSpec,
        ring: RingFile,
        latents: RingFile | Path,
        *,
        seed: int,
        online: bool,
        readonly: bool = False,
    ) -> None:
        """Take over open files (of the latents, where `claim` puts new ones).

        Use `create` or `open`.
        """
        self.spec = spec
        self.readonly = readonly
        self.generation = ring.record.generation
        self.bytes = sum(ring_bytes(spec))
        self._ring = ring
        self._created: tuple[Path, ...] = ()
        """Files that `close` removes again, because nobody has claimed them."""
        self._lock: Any = threading.Lock()
        self._rng = np.random.default_rng(seed)
        self._online = online and not readonly
        self._queue: deque[tuple[int, int]] = deque()
        self._counters = dict.fromkeys(COUNTERS, 0)
        self._sample_age = 0.0
        self._closed = False
        self._reserved, self._head = ring.arrays["cursors"]
        self._columns = {name: ring.arrays[f"field/{name}"] for name in spec.fields}
        self._rows = {name: _rows(column) for name, column in self._columns.items()}
        self._attach(latents)

    def _attach(self, latents: RingFile | Path) -> None:
        self._latents = latents
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
        check_capacity(spec)
        if not path.exists():
            # Latents that have lost their ring are worth nothing and take room.
            latents_path.unlink(missing_ok=True)
        if os.stat(path.parent).st_dev == os.stat(latents_path.parent).st_dev:
            check_space(path, sum(ring_bytes(spec)))
        ring_id, latents_id = uuid.uuid4().hex, uuid.uuid4().hex
        ring = RingFile.create(path, spec.ring_schema(ring_id), Record(1, partner=latents_id))
        try:
            latents = _fresh_latents(latents_path, spec, ring_id, latents_id)
        except BaseException:
            ring.close()
            path.unlink()
            raise
        replay = cls(spec, ring, latents, seed=seed, online=online)
        replay._created = () if claim else (path, latents_path)
        return replay

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
        check_capacity(spec)
        ring = RingFile.open(path, spec.ring_schema(), readonly=readonly)
        try:
            _check_cursors(ring)
            latents = _open_latents(latents_path, spec, ring, readonly=readonly)
        except BaseException:
            ring.close()
            raise
        replay = cls(spec, ring, latents, seed=seed, online=online, readonly=readonly)
        try:
            if claim and not readonly:
                replay.claim()
        except BaseException:
            replay.close()
            raise
        return replay

    def claim(self) -> None:
        """Become the ring's writer: raise its generation, replace latents that do not fit it."""
        assert not self.readonly and not self._closed
        if self._created:
            self._created = ()
            return
        latents = self._latents
        if isinstance(latents, Path):
            latents.unlink(missing_ok=True)
            ring_id, identity = self._ring.schema.identity, uuid.uuid4().hex
            latents = _fresh_latents(latents, self.spec, ring_id, identity)
            self._attach(latents)
        self.generation += 1
        self._ring.write_record(Record(self.generation, partner=latents.schema.identity))

    @staticmethod
    def stored_spec(path: Path) -> Schema:
        """Read num_envs, capacity and arrays from the header of an existing ring."""
        return stored_schema(path)

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
        env = self._check_add(env_id, fields, deter, stoch)
        with self._lock:
            step = self._reserve(env)
        index = env * self.spec.capacity + step % self.spec.capacity
        for name, rows in self._rows.items():
            self._put(rows, index, fields[name])
        latents = {"deter": deter, "stoch": stoch, "valid": 1}
        for name, value in latents.items():
            self._put(self._latent_rows[name], index, value)
        with self._lock:
            self._publish(env, step)

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
        assert not self.readonly and not self._closed
        shape = (len(env), self.spec.length - 1)
        assert deter.shape == (*shape, self.spec.deter), (deter.shape, shape, self.spec.deter)
        assert stoch.shape == (*shape, self.spec.stoch), (stoch.shape, shape, self.spec.stoch)
        assert deter.dtype == np.float16 and stoch.dtype == np.uint8, (deter.dtype, stoch.dtype)
        rows = zip(env.tolist(), start.tolist(), deter, stoch, strict=True)
        with self._lock:
            if generation != self.generation:
                return 0
            return sum(self._refresh(e, s + 1, h, z) for e, s, h, z in rows)

    def _reserve(self, env: Indices) -> Indices:
        """Announce that the next slot of each environment will be overwritten."""
        step = self._head[env]
        self._reserved[env] = step + 1
        return step

    def _put(self, rows: Array, index: Indices | slice, value: Array | int) -> None:
        """Write some entries of one column."""
        rows[index] = value

    def _publish(self, env: Indices, step: Indices) -> None:
        """Make the new steps visible, and queue the windows that they complete."""
        self._head[env] = step + 1
        if self._online:
            for e, n in zip(env.tolist(), step.tolist(), strict=True):
                self._enqueue(e, n)

    def _enqueue(self, env: int, step: int) -> None:
        """Queue the window that ends with `step` if it is the turn of one.

        The official rule: n mod length = 0 with n the steps before this one, so the first window
        starts at step 1 and none overlaps another.
        """
        if step > 0 and step % self.spec.length == 0:
            self._queue.append((env, step + 1 - self.spec.length))

    def _refresh(self, env: int, first: int, deter: Array, stoch: Array) -> int:
        """Write the latents of steps first .. first + T - 1 that are still in the ring."""
        low = max(first, self._oldest(env))
        high = min(first + len(deter), int(self._head[env]))
        for slots, steps in self._spans(low, high - low):
            part = slice(low - first + steps.start, low - first + steps.stop)
            # A killed process leaves these steps without latents, never with half of them.
            self._put(self._latent["valid"][env], slots, 0)
            self._put(self._latent["deter"][env], slots, deter[part])
            self._put(self._latent["stoch"][env], slots, stoch[part])
            self._put(self._latent["valid"][env], slots, 1)
        return max(0, high - low)

    # -- the reader --------------------------------------------------------------------------

    def sample(self, out: SampleBuffers, *, online: bool = True) -> None:
        """Fill every row of `out` with a window.

        Each row takes the oldest entry of the online queue (with `online`), else any complete
        window with the same probability. Episode borders inside a window are fine; `is_last` is
        set where the next step is first (abandoned episodes), except at the final index, and
        `is_first` at index 0. Where the latents are lost, the context reads as zero and index 1
        is first, so that the model starts from its initial state. Raises RuntimeError if there
        is no complete window.
        """
        assert not self._closed
        self._check_buffers(out)
        rows = np.arange(len(out.env))
        lost = np.zeros(len(rows), bool)
        while rows.size:
            with self._lock:
                draw = self._draw(rows.size, online and self._online)
            self._copy(out, rows, draw)
            with self._lock:
                lost[rows] = self._read_context(out, rows, draw)
                torn = self._settle(draw)
            rows = rows[torn]
        out.generation = self.generation
        age = self._head[out.env] - out.start - self.spec.length
        self._sample_age = float(age.mean()) * self.spec.num_envs
        self._counters["contexts_lost"] += int(lost.sum())
        _annotate(out, lost)

    def _draw(self, count: int, online: bool) -> _Draw:
        """Choose windows: the online queue first, the rest uniform over all complete windows."""
        queued = self._dequeue(count) if online else []
        env, start = self._uniform(count - len(queued))
        if queued:
            first = np.array(queued, np.int64)
            env, start = np.append(first[:, 0], env), np.append(first[:, 1], start)
        return _Draw(env, start, len(queued))

    def _dequeue(self, count: int) -> list[tuple[int, int]]:
        """Take up to `count` entries that are still in the ring; drop and count the others."""
        taken: list[tuple[int, int]] = []
        while self._queue and len(taken) < count:
            env, start = self._queue.popleft()
            if start >= self._oldest(env):
                taken.append((env, start))
            else:
                self._counters["online_dropped"] += 1
        return taken

    def _uniform(self, count: int) -> tuple[Indices, Indices]:
        """Draw (environment, first step) uniformly over all complete windows."""
        if count == 0:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        oldest, windows = self._windows()
        ends = np.cumsum(windows)
        if ends[-1] < 1:
            raise RuntimeError(f"no environment has {self.spec.length} steps to sample yet")
        pick = self._rng.integers(ends[-1], size=count)
        env = np.searchsorted(ends, pick, side="right")
        return env, oldest[env] + pick - (ends[env] - windows[env])

    def _windows(self) -> tuple[Indices, Indices]:
        """Give the oldest step and the number of complete windows of each environment."""
        oldest = np.maximum(self._reserved - self.spec.capacity, 0)
        return oldest, np.maximum(self._head - self.spec.length + 1 - oldest, 0)

    def _oldest(self, env: int) -> int:
        """Give the oldest step of an environment that no add may overwrite."""
        return max(0, int(self._reserved[env]) - self.spec.capacity)

    def _copy(self, out: SampleBuffers, rows: Indices, draw: _Draw) -> None:
        """Copy windows, each as one or two contiguous slices per column."""
        places = zip(rows.tolist(), draw.env.tolist(), draw.start.tolist(), strict=True)
        pieces = [
            ((row, steps), (env, slots))
            for row, env, start in places
            for slots, steps in self._spans(start, self.spec.length)
        ]
        for name, column in self._columns.items():
            self._take(out.fields[name], column, pieces)

    def _take(self, target: Array, column: Array, pieces: list[_Piece]) -> None:
        """Copy contiguous pieces of one column."""
        for here, there in pieces:
            target[here] = column[there]

    def _spans(self, first: int, count: int) -> Iterator[tuple[slice, slice]]:
        """Cut `count` steps from `first` on into pieces that are contiguous in the ring.

        Yields (slots of the ring, positions among the steps).
        """
        capacity, done = self.spec.capacity, 0
        while done < count:
            slot = (first + done) % capacity
            size = min(count - done, capacity - slot)
            yield slice(slot, slot + size), slice(done, done + size)
            done += size

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
        torn = draw.start < self._reserved[draw.env] - self.spec.capacity
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
            return int(self._windows()[1].sum())

    @property
    def steps(self) -> int:
        """Steps ever added, over all environments and all processes that wrote this ring."""
        with self._lock:
            return int(self._head.sum())

    def stats(self) -> dict[str, float]:
        """Gauges by name.

        fill is 0 to 1; sample_age is the mean age of the last batch, in steps of all
        environments between the end of a window and now; torn counts windows drawn anew.
        """
        with self._lock:
            stored = np.minimum(self._head, self.spec.capacity).sum()
            return {
                "fill": float(stored) / (self.spec.num_envs * self.spec.capacity),
                "steps": float(self._head.sum()),
                "windows": float(self._windows()[1].sum()),
                "online_queue": float(len(self._queue)),
                "sample_age": self._sample_age,
                **{name: float(count) for name, count in self._counters.items()},
            }

    # -- checkpoints -------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Describe everything that the next samples depend on besides the files, as JSON."""
        with self._lock:
            return {
                "ring": self._ring.schema.identity,
                "generation": self.generation,
                "length": self.spec.length,
                "heads": self._head.tolist(),
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
        identity = self._ring.schema.identity
        same_ring = isinstance(state, Mapping) and state.get("ring") == identity
        state = parse_state(state, self.spec.num_envs if same_ring else None)
        fits = same_ring and state["length"] == self.spec.length
        with self._lock:
            self._rng.bit_generator.state = state["rng"]
            self._counters.update(state["counters"])
            self._queue.clear()
            if self._online and fits:
                self._requeue(state["queue"], state["heads"])
            else:
                self._counters["online_dropped"] += len(state["queue"])
        return same_ring

    def _requeue(self, queue: list[list[int]], heads: list[int]) -> None:
        """Queue what an earlier queue held, then what was completed since its `heads`."""
        length = self.spec.length
        late: list[tuple[int, int]] = []
        for env, (before, now) in enumerate(zip(heads, self._head.tolist(), strict=True)):
            ends = range(-(-max(before, 1) // length) * length, now, length)
            # Only those that are still in the ring: a ring may have seen far more than it holds.
            gone = bisect_left(ends, self._oldest(env) + length - 1)
            self._counters["online_dropped"] += gone
            late += [(end + 1 - length, env) for end in ends[gone:]]
        entries = [(env, start) for env, start in queue]
        for env, start in entries + [(env, start) for start, env in sorted(late)]:
            if self._oldest(env) <= start <= self._head[env] - length:
                self._queue.append((env, start))
            else:
                self._counters["online_dropped"] += 1

    def flush(self) -> None:
        """Write the ring to the disk and wait; latents are a cache and are not written."""
        self._ring.flush()

    def close(self) -> None:
        """Unmap the files; may be called twice. Nothing may be in flight."""
        self._closed = True
        for views in (self._columns, self._rows, self._latent, self._latent_rows):
            views.clear()
        self._reserved = self._head = np.empty(0, np.int64)
        self._ring.close()
        if isinstance(self._latents, RingFile):
            self._latents.close()
        for path in self._created:
            path.unlink(missing_ok=True)
        self._created = ()

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- programmers' mistakes ---------------------------------------------------------------

    def _check_add(
        self, env_id: Array, fields: Mapping[str, Array], deter: Array, stoch: Array
    ) -> Indices:
        assert not self.readonly and not self._closed
        env = np.asarray(env_id, np.int64)
        rows = len(env)
        assert rows == len(set(env.tolist())), f"repeated environments: {env}"
        assert rows == 0 or (env.min() >= 0 and env.max() < self.spec.num_envs), env
        assert fields.keys() == self.spec.fields.keys(), (list(fields), list(self.spec.fields))
        for name, column in self._rows.items():
            _check_array(name, fields[name], (rows, *column.shape[1:]), column.dtype)
        _check_array("deter", deter, (rows, self.spec.deter), np.dtype(np.float16))
        _check_array("stoch", stoch, (rows, self.spec.stoch), np.dtype(np.uint8))
        return env

    def _check_buffers(self, out: SampleBuffers) -> None:
        rows = len(out.env)
        assert out.fields.keys() == self._columns.keys(), (list(out.fields), list(self._columns))
        for name, column in self._columns.items():
            shape = (rows, self.spec.length, *column.shape[2:])
            _check_array(name, out.fields[name], shape, column.dtype)
        _check_array("deter", out.deter, (rows, self.spec.deter), np.dtype(np.float16))
        _check_array("stoch", out.stoch, (rows, self.spec.stoch), np.dtype(np.uint8))


def _check_array(name: str, value: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    assert value.shape == shape, f"{name} is {value.shape}, not {shape}"
    assert value.dtype == dtype, f"{name} is {value.dtype}, not {dtype}"


def _annotate(out: SampleBuffers, lost: NDArray[np.bool_]) -> None:
    """Mark abandoned episodes, the forced first step, and resets for lost contexts [B]."""
    first, last = (out.fields[name] for name in FLAGS)
    np.logical_or(last[:, :-1], first[:, 1:], out=last[:, :-1])
    first[:, 0] = True
    first[lost, 1] = True


def _rows(column: Array) -> Array:
    """View a column [E, C, *shape] as [E * C, *shape]."""
    return column.reshape(-1, *column.shape[2:])


def _check_cursors(ring: RingFile) -> None:
    """Refuse cursors that no writer leaves behind, even if it is killed."""
    reserved, head = ring.arrays["cursors"]
    ahead = reserved - head
    if (head < 0).any() or (head > MAX_STEPS).any() or (ahead < 0).any() or (ahead > 1).any():
        raise RingMismatch(
            f"the cursors of {ring.path} are damaged: {head.tolist()} steps are complete and "
            f"{reserved.tolist()} begun"
        )


def _fresh_latents(path: Path, spec: RingSpec, ring_id: str, identity: str) -> RingFile:
    """Make an empty latent file that belongs to the ring `ring_id`."""
    return RingFile.create(path, spec.latents_schema(identity), Record(partner=ring_id))


def _open_latents(path: Path, spec: RingSpec, ring: RingFile, *, readonly: bool) -> RingFile | Path:
    """Open the ring's latent file; its path for a writer if it is missing or belongs elsewhere."""
    ring_id, wanted = ring.schema.identity, ring.record.partner
    try:
        latents = RingFile.open(path, spec.latents_schema(), readonly=readonly)
        if latents.record.partner == ring_id and latents.schema.identity == wanted:
            return latents
        latents.close()
        raise RingMismatch(f"{path} holds the latents of another replay")
    except (FileNotFoundError, RingMismatch):
        if readonly:
            raise
        return path
