"""Drive any VectorEnv with actions that depend only on the environment and its own step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs import ActionSpec, StepBatch, VectorEnv

Stream = list[tuple[bytes, ...]]
Act = Callable[[StepBatch], NDArray[Any]]


def scripted_actions(spec: ActionSpec, env_id: NDArray[Any], step: NDArray[Any]) -> NDArray[Any]:
    """Pseudo-random actions, the same for the same environment and step."""

    def noise(salt: int) -> NDArray[Any]:
        mixed = (env_id + 1) * 7919 + (step + salt) * 104729 + (env_id ^ step) * 31
        return mixed % 1009 / 1009

    if spec.kind == "discrete":
        return (noise(0) * spec.size).astype(np.int32)
    if spec.kind == "several":
        parts = (scripted_actions(part, env_id, step + k) for k, (_, part) in enumerate(spec.parts))
        return np.concatenate([part.reshape(len(env_id), -1) for part in parts], 1).astype("f4")
    return np.stack([noise(k) * 2 - 1 for k in range(spec.size)], 1).astype(np.float32)


def streams(env: VectorEnv, steps: int, *, start: bool = True) -> dict[int, Stream]:
    """Collect at least `steps` rows of each environment as bytes, checking every promise."""
    out: dict[int, Stream] = defaultdict(list)
    counts = np.zeros(env.num_envs, np.int64)
    first_due = np.full(env.num_envs, start)
    if start:
        env.start()
    while counts.min() < steps:
        rows = env.recv()
        check_rows(env, rows, first_due if start else None)
        first_due[rows.env_id] = rows.is_last
        for i, env_id in enumerate(rows.env_id.tolist()):
            columns = (*rows.obs.values(), *rows[2:6], *rows.log.values())
            out[env_id].append(tuple(column[i].tobytes() for column in columns))
        env.send(scripted_actions(env.spec.action, rows.env_id, counts[rows.env_id]), rows.env_id)
        counts[rows.env_id] += 1
    return {env_id: stream[:steps] for env_id, stream in sorted(out.items())}


def check_rows(env: VectorEnv, rows: StepBatch, first_due: NDArray[Any] | None) -> None:
    """Assert what every batch of rows must look like."""
    count = env.batch_size
    assert rows.env_id.dtype == np.int32 and rows.env_id.shape == (count,)
    assert len(set(rows.env_id.tolist())) == count
    if count == env.num_envs:
        assert rows.env_id.tolist() == list(range(count))
    assert rows.obs.keys() == env.spec.obs.keys()
    for name, spec in env.spec.obs.items():
        value = rows.obs[name]
        assert (value.shape, value.dtype) == ((count, *spec.shape), spec.dtype)
        assert value.flags.c_contiguous
    assert rows.reward.dtype == np.float32 and rows.reward.shape == (count,)
    for flag in (rows.is_first, rows.is_last, rows.is_terminal):
        assert flag.dtype == np.bool_ and flag.shape == (count,)
    assert not rows.reward[rows.is_first].any()
    assert not (rows.is_terminal & ~rows.is_last).any()
    assert tuple(rows.log) == env.spec.log
    assert all(values.shape == (count,) for values in rows.log.values())
    if first_due is not None:
        assert rows.is_first.tolist() == first_due[rows.env_id].tolist()


def returns(env: VectorEnv, act: Act, episodes: int) -> NDArray[np.float64]:
    """Returns of the next `episodes` finished episodes under a policy."""
    total = np.zeros(env.num_envs)
    done: list[float] = []
    env.start()
    while len(done) < episodes:
        rows = env.recv()
        total[rows.env_id] += rows.reward
        done += total[rows.env_id[rows.is_last]].tolist()
        total[rows.env_id[rows.is_last]] = 0
        env.send(act(rows), rows.env_id)
    return np.array(done[:episodes])
