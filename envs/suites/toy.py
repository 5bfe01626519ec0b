"""Environments of the toy tasks (`toy_tasks`), all in this process.

Legend: E environments.
"""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from dreamer_async.envs import names
from dreamer_async.envs.spec import EnvSpec, StepBatch
from dreamer_async.envs.suite import Options, Suite
from dreamer_async.envs.suites.toy_tasks import TOYS, Array, Ids, Streams
from dreamer_async.envs.vector import Requests, VectorEnv, check_rows
from dreamer_async.envs.view import PLAIN, View


class ToyEnv(VectorEnv):
    """Environments of one toy task; rows are computed in `recv`, in the order of the requests."""

    def __init__(self, task: str, options: Options) -> None:
        self.spec = spec(task, options.view)
        self.num_envs, self.batch_size = options.num_envs, options.batch_size
        self._toy = TOYS[task](self.num_envs)
        self._streams = Streams(options.seed, self.num_envs)
        self._first = np.ones(self.num_envs, np.bool_)
        action = self.spec.action
        self._action = np.zeros((self.num_envs, *action.shape), action.dtype)
        self._requests = Requests(action, self.num_envs, self.batch_size)
        self._queue: deque[int] = deque()
        self._lock = threading.Lock()  # around everything a snapshot reads

    @property
    def in_flight(self) -> int:
        return self._requests.in_flight

    def start(self) -> None:
        with self._lock:
            ids = self._requests.take_all()
            self._first[:] = True
            self._queue.extend(ids.tolist())

    def send(self, action: Array, env_id: Ids) -> None:
        with self._lock:
            self._requests.take(action, env_id)
            self._action[env_id] = action
            self._queue.extend(env_id.tolist())

    def recv(self) -> StepBatch:
        with self._requests.receiving, self._lock:
            queued = [self._queue.popleft() for _ in range(self.batch_size)]
            ids = np.array(queued, np.int32)
            if self.batch_size == self.num_envs:
                ids.sort()
            self._requests.put(ids)
            return check_rows(self.spec, self._rows(ids))

    def _rows(self, ids: Ids) -> StepBatch:
        """Reset or step environments and look at them."""
        first = self._first[ids]
        reward = np.zeros(len(ids), np.float32)
        last, terminal = np.zeros((2, len(ids)), np.bool_)
        if first.any():
            self._toy.reset(ids[first], self._streams)
        if not first.all():
            moved = ids[~first]
            outcome = self._toy.step(moved, self._action[moved])
            reward[~first], last[~first], terminal[~first] = outcome
        self._first[ids] = last
        return StepBatch(ids, self._toy.observe(ids), reward, first, last, terminal)

    def snapshot(self) -> dict[str, Array]:
        with self._lock:
            queue = np.full(self.num_envs, -1, np.int32)
            queue[: len(self._queue)] = self._queue
            return {"queue": queue} | {key: value.copy() for key, value in self._state().items()}

    def restore(self, snapshot: dict[str, Array]) -> None:
        with self._lock:
            state = self._state()
            _check_like({"queue": np.zeros(self.num_envs, np.int32)} | state, snapshot)
            queue = snapshot["queue"][snapshot["queue"] >= 0].astype(np.int32)
            if len(np.unique(queue)) < len(queue) or (queue >= self.num_envs).any():
                raise ValueError(f"queue {queue.tolist()} of the toy snapshot is not possible")
            for key, value in state.items():
                value[...] = snapshot[key]
            self._queue = deque(queue.tolist())
            self._requests.book(set(queue.tolist()))

    def _state(self) -> dict[str, Array]:
        """The arrays that make up the state, themselves and not copies."""
        own = {"stream": self._streams.state, "first": self._first, "action": self._action}
        return own | {f"task/{key}": value for key, value in self._toy.state.items()}

    def close(self) -> None:
        self._requests.close()


def _check_like(expected: dict[str, Array], given: dict[str, Array]) -> None:
    """Raise ValueError naming the first entry of a snapshot that does not fit."""
    for key in sorted(expected.keys() | given.keys()):
        if key not in expected or key not in given:
            raise ValueError(f"toy snapshot: {key} is {'missing' if key in expected else 'extra'}")
        want, have = expected[key], given[key]
        if (want.shape, want.dtype) != (have.shape, have.dtype):
            raise ValueError(
                f"toy snapshot: {key} is {have.dtype} {list(have.shape)}, "
                f"not {want.dtype} {list(want.shape)}"
            )


def spec(task: str, view: View = PLAIN) -> EnvSpec:
    """Describe a toy task; ValueError for a view of it, as there is one only."""
    if view != PLAIN:
        raise ValueError(f"toy {task} takes no arguments and is seen in one way only")
    return EnvSpec("toy", task, TOYS[task].obs, TOYS[task].action)


_SPELLINGS = {names.squash(task): task for task in TOYS}

SUITE = Suite(
    name="toy",
    default_task="seek",
    tasks=tuple(TOYS),
    resolve=lambda task: names.find("toy task", task, _SPELLINGS),
    spec=spec,
    make=ToyEnv,
    about="small tasks with a known optimum, for seeing something learn",
)
