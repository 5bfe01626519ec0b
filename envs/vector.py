"""The one interface to every environment: requests go out and rows come back by environment id.

An environment has at most one request in flight. `start` asks all of them for a reset, `recv`
returns `batch_size` rows, and `send` asks for one more row from each environment it names. The
row after an is_last row is the reset row (is_first, reward 0) and its action is ignored.

Legend: N rows of one batch, E environments, A action dimensions.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, NoReturn, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs.spec import ActionSpec, EnvSpec, StepBatch


class EnvError(RuntimeError):
    """An environment died or delivered garbage; the message names it and shows its traceback."""


class VectorEnv(Protocol):
    """Many environments of one task; one thread receives, any thread may send."""

    spec: EnvSpec
    """What the environments look like."""
    num_envs: int
    """Number of environments E; ids are 0 to E - 1."""
    batch_size: int
    """Rows per `recv`; fewer than `num_envs` is the asynchronous mode."""

    @property
    def in_flight(self) -> int:
        """Rows that were asked for and not yet received."""
        ...

    def start(self) -> None:
        """Ask every environment for a reset. RuntimeError while rows are in flight."""
        ...

    def recv(self) -> StepBatch:
        """Wait for the next `batch_size` rows, sorted by env_id when that is all of them.

        RuntimeError when fewer rows are in flight, as nothing could end the wait; EnvError when
        an environment failed.
        """
        ...

    def send(self, action: NDArray[Any], env_id: NDArray[np.int32]) -> None:
        """Ask for one more row of each environment named.

        `action` is int32 [N] or float32 [N, A] (clipped to [-1, 1]), `env_id` int32 [N].
        ValueError, before any environment sees it, if a batch is malformed.
        """
        ...

    def answer(self) -> None:
        """Hand over actions that wait until the rows they answer are stored; `recv` does it, too.

        In the thread that receives. Does nothing where `send` hands them over.
        """

    def notices(self) -> list[str]:
        """What happened since the last call that people should know; no error."""
        return []

    def workers(self) -> list[int]:
        """Ids of the processes in which environments run, if these are others than ours."""
        return []

    def render(self, env_id: int) -> NDArray[np.uint8] | None:
        """Draw one environment, from which no row is in flight, as it is now: [H, W, 3].

        None where `Options.drawn` was not set, or where it cannot draw itself.
        """
        return None

    def snapshot(self) -> dict[str, NDArray[Any]] | None:
        """Copy the full state, requests in flight included; None if that is impossible."""
        return None

    def restore(self, snapshot: dict[str, NDArray[Any]]) -> None:
        """Continue bit for bit from `snapshot`, in place of `start`; ValueError if it differs."""
        raise ValueError(f"{self.spec.suite} {self.spec.task} cannot be restored, only restarted")

    def close(self) -> None:
        """Free the environments without ever hanging; further calls do nothing."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Absent(VectorEnv):
    """What stands for environments that nobody opened: a run that learns from recorded steps."""

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        self.spec, self.num_envs, self.batch_size = spec, num_envs, num_envs

    @property
    def in_flight(self) -> int:
        return 0

    def start(self) -> NoReturn:
        raise RuntimeError("there are no environments here")

    def recv(self) -> NoReturn:
        raise RuntimeError("there are no environments here")

    def send(self, action: NDArray[Any], env_id: NDArray[np.int32]) -> NoReturn:
        raise RuntimeError("there are no environments here")

    def close(self) -> None:
        """Do nothing."""


class Requests:
    """Which environments owe a row: the books that the sender and the receiver share.

    Sets of Python integers, as for so few of them numpy costs more than the work.
    """

    def __init__(self, spec: ActionSpec, num_envs: int, batch_size: int) -> None:
        self.pending: set[int] = set()
        """Ids of environments that owe a row."""
        self.closed = False
        self.receiving = Receiving(self)
        """Context manager around one recv."""
        self.receiver = threading.Lock()
        """Held by whoever receives."""
        self.batch_size = batch_size
        self._num_envs = num_envs
        self._known = frozenset(range(num_envs))
        self._check = ActionCheck(spec)
        self._books = threading.Lock()

    @property
    def in_flight(self) -> int:
        """Rows that were asked for and not yet received."""
        return len(self.pending)

    def take_all(self) -> NDArray[np.int32]:
        """Book a reset of every environment and return their ids."""
        with self._books:
            self.check_open()
            if self.pending:
                raise RuntimeError(f"start with {len(self.pending)} rows still in flight")
            self.pending = set(range(self._num_envs))
        return np.arange(self._num_envs, dtype=np.int32)

    def take(self, action: NDArray[Any], env_id: NDArray[np.int32]) -> None:
        """Validate a batch of actions and book one row of each environment; see VectorEnv.send."""
        ids = check_env_id(env_id, self._known)
        self._check(action, len(env_id))
        with self._books:
            self.check_open()
            if not self.pending.isdisjoint(ids):
                busy = sorted(self.pending & ids)
                raise ValueError(f"environments {busy} already have a request in flight")
            self.pending |= ids

    def book(self, ids: set[int]) -> None:
        """Replace the books by one request of each environment named."""
        with self._books:
            self.check_open()
            self.pending = set(ids)

    def put(self, env_id: NDArray[np.int32]) -> None:
        """Cross off rows that arrived; EnvError if nobody asked for one of them."""
        ids = set(env_id.tolist())
        with self._books:
            if len(ids) < len(env_id) or not ids <= self.pending:
                raise EnvError(
                    f"environments {env_id.tolist()} delivered rows, but only "
                    f"{sorted(self.pending)} were asked for one each"
                )
            self.pending -= ids

    @contextmanager
    def draining(self, seconds: float = -1) -> Iterator[bool]:
        """Take the place of the receiver after close; yield False if it was not left in time."""
        taken = self.receiver.acquire(timeout=seconds)
        try:
            yield taken
        finally:
            if taken:
                self.receiver.release()

    def close(self) -> bool:
        """Refuse whatever comes from now on; False if that was already so."""
        with self._books:
            was_open, self.closed = not self.closed, True
        return was_open

    def check_open(self) -> None:
        if self.closed:
            raise RuntimeError("the environments are closed")


class Receiving:
    """The place of the one receiver."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def __enter__(self) -> None:
        """Take the place; RuntimeError if it is taken or if the wait could not end."""
        requests = self._requests
        if not requests.receiver.acquire(blocking=False):
            raise RuntimeError("another thread is already receiving")
        try:
            requests.check_open()
            if len(requests.pending) < requests.batch_size:
                raise RuntimeError(
                    f"recv of {requests.batch_size} rows with only {requests.in_flight} in flight"
                )
        except RuntimeError:
            requests.receiver.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._requests.receiver.release()


_INT32 = np.dtype(np.int32)
_DTYPES = {name: np.dtype(name) for name in ("uint8", "int32", "float32")}


def check_env_id(env_id: NDArray[np.int32], known: frozenset[int]) -> set[int]:
    """Return the ids, or raise ValueError unless they are an int32 vector of distinct known ids."""
    if not isinstance(env_id, np.ndarray) or env_id.dtype != _INT32 or env_id.ndim != 1:
        raise ValueError(f"env_id must be an int32 vector, not {_kind(env_id)}")
    ids = set(env_id.tolist())
    if not ids:
        raise ValueError("env_id names no environment")
    if not ids <= known:
        raise ValueError(f"env_id {env_id.tolist()} is outside 0 to {len(known) - 1}")
    if len(ids) < len(env_id):
        raise ValueError(f"env_id {env_id.tolist()} names an environment twice")
    return ids


class ActionCheck:
    """Raise ValueError unless a batch of actions is what VectorEnv.send asks for."""

    def __init__(self, spec: ActionSpec) -> None:
        self._shape, self._dtype = spec.shape, _DTYPES[spec.dtype]
        self._classes = spec.size if spec.kind == "discrete" else 0
        self._parts = [
            (name, part.size, place.start)
            for (name, part), place in zip(spec.parts, spec.slices(), strict=True)
            if part.kind == "discrete"
        ]

    def __call__(self, action: NDArray[Any], rows: int) -> None:
        shape = (rows, *self._shape)
        if (
            not isinstance(action, np.ndarray)
            or action.dtype != self._dtype
            or action.shape != shape
        ):
            raise ValueError(f"action must be {self._dtype} {list(shape)}, not {_kind(action)}")
        if self._classes:
            classes = action.tolist()
            if min(classes) < 0 or max(classes) >= self._classes:
                raise ValueError(f"action {classes} is outside 0 to {self._classes - 1}")
        elif not all_finite(action):
            raise ValueError("action is not finite")
        for name, size, column in self._parts:
            _check_classes(name, action[:, column], size)


def _check_classes(name: str, column: NDArray[np.float32], size: int) -> None:
    if ((column < 0) | (column >= size) | (column != np.floor(column))).any():
        raise ValueError(f"action {name} {column.tolist()} is no class of 0 to {size - 1}")


def all_finite(value: NDArray[np.float32]) -> bool:
    """Whether no number is NaN or infinite, in one pass where the sum of squares is finite too."""
    return math.isfinite(np.vdot(value, value)) or bool(np.isfinite(value).all())


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__


@dataclass(frozen=True)
class Fault:
    """A column of a batch in which some numbers are not what they should be."""

    what: str
    """What was delivered, in words."""
    name: str
    """The column."""
    value: NDArray[Any]
    """[N, *]."""
    good: NDArray[np.bool_]
    """[N, *] which numbers are as they should be."""


def check_rows(
    spec: EnvSpec,
    rows: StepBatch,
    steps: NDArray[np.integer[Any]] | None = None,
    originals: Mapping[str, NDArray[Any]] = MappingProxyType({}),
) -> StepBatch:
    """Return `rows`, or raise EnvError if an environment delivered what nobody can learn from.

    `steps`, [N], are those of each row's episode, where somebody counts them; `originals` are
    observations as they were before they became float32.
    """
    for fault in _faults(spec, rows, originals):
        row, *place = (int(i) for i in np.argwhere(~fault.good)[0])
        number = fault.value[(row, *place)]
        when = "" if steps is None else f" in step {steps[row]} of its episode"
        raise EnvError(
            f"environment {rows.env_id[row]} of {spec.suite} {spec.task} delivered {fault.what}: "
            f"{fault.name}{place or ''} is {number:g}{when}"
        )
    return rows


def _faults(
    spec: EnvSpec, rows: StepBatch, originals: Mapping[str, NDArray[Any]]
) -> Iterator[Fault]:
    """Look for numbers that are not finite or no class; EnvError for a wrong shape or type."""
    if not all_finite(rows.reward):
        yield _not_finite("reward", rows.reward, originals.get("reward", rows.reward))
    for name, entry in spec.obs.items():
        value: NDArray[Any] = rows.obs[name]
        if value.shape[1:] != entry.shape or value.dtype != _DTYPES[entry.dtype]:
            expected = f"{entry.dtype} {[len(rows.env_id), *entry.shape]}"
            raise EnvError(
                f"{spec.suite} {spec.task} delivered {name} as {_kind(value)}, not {expected}"
            )
        if entry.dtype == "float32" and not all_finite(value):
            yield _not_finite(name, value, originals.get(name, value))
        elif entry.dtype == "int32":
            good = (value >= 0) & (value < entry.classes)
            if not good.all():
                yield Fault(f"{name} outside 0 to {entry.classes - 1}", name, value, good)


def _not_finite(name: str, value: NDArray[Any], original: NDArray[Any]) -> Fault:
    """Tell what never was a number from what only float32 cannot hold."""
    original = original.reshape(value.shape)
    if not (good := np.isfinite(original)).all():
        return Fault(f"{name} that is not finite", name, original, good)
    return Fault(f"{name} that does not fit float32", name, original, np.isfinite(value))


def env_seed(seed: int, env_id: int, attempt: int = 0) -> int:
    """Derive the seed of one environment, 31 bits; `attempt` counts its restarts.

    Unlike seed + env_id it shares no stream with a run of a neighbouring seed.
    """
    sequence = np.random.SeedSequence([seed, env_id, attempt])
    return int(sequence.generate_state(1)[0]) & 0x7FFFFFFF


def env_seeds(seed: int, num_envs: int) -> list[int]:
    """Seeds of environments 0 to `num_envs` - 1."""
    return [env_seed(seed, env_id) for env_id in range(num_envs)]
