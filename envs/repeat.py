"""Action repeat: each action is sent several times, and what comes of it is one row.

Rewards add up over the repeats; everything else is the last row's. An episode that ends, or begins,
on the way ends the repeats: the row goes out as it is. Environments below are asked for one row
at a time: rows that are complete wait here, so that fewer than a batch may be in flight there.

This is not envpool's `frame_skip`, which for DeepMind Control counts physics steps inside a control
step and gives the reward of the last one alone.

Legend: E environments, A action dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs.spec import EnvSpec, StepBatch
from dreamer_async.envs.suite import Options
from dreamer_async.envs.vector import Requests, VectorEnv, check_rows

_BELOW = "below/"


def repeated(spec: EnvSpec, repeat: int) -> EnvSpec:
    """What a task looks like with an action repeat; ValueError if it has one of its own."""
    if repeat == 1:
        return spec
    if spec.frames_per_step > 1:
        raise ValueError(
            f"{spec.suite} {spec.task} repeats each action over {spec.frames_per_step} frames "
            f"by itself, as its protocol says; a repeat of {repeat} is for tasks that do not"
        )
    return replace(spec, frames_per_step=repeat)


class RepeatEnv(VectorEnv):
    """Environments of any kind with an action repeat; see VectorEnv."""

    def __init__(self, make: Callable[[Options], VectorEnv], options: Options) -> None:
        """`make` opens the environments below, for a view without repeat."""
        self._repeat = options.view.repeat
        self.num_envs, self.batch_size = options.num_envs, options.batch_size
        threads = options.threads or min(options.batch_size, len(os.sched_getaffinity(0)))
        once = replace(options.view, repeat=1)
        below = make(replace(options, batch_size=1, threads=threads, view=once))
        try:
            self.spec = repeated(below.spec, self._repeat)
        except ValueError:
            below.close()
            raise
        self._below = below
        action = self.spec.action
        self._requests = Requests(action, self.num_envs, self.batch_size)
        self._action = np.zeros((self.num_envs, *action.shape), action.dtype)
        self._taken = np.zeros(self.num_envs, np.int32)
        self._reward = np.zeros(self.num_envs, np.float32)

    @property
    def in_flight(self) -> int:
        return self._requests.in_flight

    def start(self) -> None:
        self._requests.take_all()
        self._taken[:], self._reward[:] = 0, 0
        self._below.start()

    def send(self, action: NDArray[Any], env_id: NDArray[np.int32]) -> None:
        self._requests.take(action, env_id)
        self._action[env_id] = action
        self._taken[env_id], self._reward[env_id] = 0, 0
        self._below.send(action, env_id)

    def recv(self) -> StepBatch:
        with self._requests.receiving:
            done: list[StepBatch] = []
            while len(done) < self.batch_size:
                row = self._below.recv()
                if self._add(row):
                    done.append(row._replace(reward=self._reward[row.env_id]))
                else:
                    self._below.send(self._action[row.env_id], row.env_id)
            if self.batch_size == self.num_envs:
                done.sort(key=lambda row: int(row.env_id[0]))
            rows = _join(done)
            self._requests.put(rows.env_id)
            return check_rows(self.spec, rows)

    def _add(self, row: StepBatch) -> bool:
        """Count one row of an environment; True if its action has been repeated enough."""
        (env_id,) = row.env_id
        if row.is_first[0]:  # asked for, or the episode was cut
            self._reward[env_id] = 0
            return True
        self._taken[env_id] += 1
        self._reward[env_id] += row.reward[0]
        return bool(row.is_last[0]) or self._taken[env_id] == self._repeat

    def render(self, env_id: int) -> NDArray[np.uint8] | None:
        """As in VectorEnv; also None between two repeats, whose row is still owed here."""
        return None if env_id in self._requests.pending else self._below.render(env_id)

    def notices(self) -> list[str]:
        return self._below.notices()

    def workers(self) -> list[int]:
        return self._below.workers()

    def snapshot(self) -> dict[str, NDArray[Any]] | None:
        """Between two `recv`, nothing has been repeated yet of what is in flight."""
        below = self._below.snapshot()
        if below is None:
            return None
        own = {"action": self._action.copy(), "pending": self._pending()}
        return own | {_BELOW + key: value for key, value in below.items()}

    def _pending(self) -> NDArray[np.bool_]:
        """[E] which environments owe a row."""
        pending = np.zeros(self.num_envs, np.bool_)
        pending[list(self._requests.pending)] = True
        return pending

    def restore(self, snapshot: dict[str, NDArray[Any]]) -> None:
        for key, like in {"action": self._action, "pending": self._pending()}.items():
            have = snapshot.get(key)
            if have is None or (have.shape, have.dtype) != (like.shape, like.dtype):
                raise ValueError(f"snapshot of a repeat: {key} does not fit {self.num_envs} rows")
        below = {
            key.removeprefix(_BELOW): value
            for key, value in snapshot.items()
            if key.startswith(_BELOW)
        }
        self._below.restore(below)
        self._action[...] = snapshot["action"]
        self._taken[:], self._reward[:] = 0, 0
        self._requests.book(set(np.flatnonzero(snapshot["pending"]).tolist()))

    def close(self) -> None:
        self._requests.close()
        self._below.close()


def _join(rows: list[StepBatch]) -> StepBatch:
    """Put rows of one environment each into one batch."""
    first = rows[0]
    return StepBatch(
        env_id=np.concatenate([row.env_id for row in rows]),
        obs={key: np.concatenate([row.obs[key] for row in rows]) for key in first.obs},
        reward=np.concatenate([row.reward for row in rows]),
        is_first=np.concatenate([row.is_first for row in rows]),
        is_last=np.concatenate([row.is_last for row in rows]),
        is_terminal=np.concatenate([row.is_terminal for row in rows]),
        log={key: np.concatenate([row.log[key] for row in rows]) for key in first.log},
    )
