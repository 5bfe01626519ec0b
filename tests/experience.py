"""A small replay, steps that say where they belong, and windows that are checked by it.

And episodes of the toy task `catch`, in the forms in which others save them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dreamer_async import envs
from dreamer_async.replay.layout import RingSpec, SampleBuffers
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.ring import Field

FIELDS = {
    "frame": Field((4, 4, 1), "uint8"),
    "vector": Field((3,), "float32"),
    "action": Field((), "int32"),
    "reward": Field((), "float32"),
    "is_first": Field((), "bool"),
    "is_last": Field((), "bool"),
    "is_terminal": Field((), "bool"),
}


def make_spec(**changes: Any) -> RingSpec:
    values = {
        "fields": FIELDS,
        "deter": 4,
        "stoch": 3,
        "num_envs": 3,
        "capacity": 20,
        "length": 5,
    }
    return RingSpec(**(values | changes))


class Experience:
    """Feeds a replay with steps that say which environment and step they are."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.count = np.zeros(replay.spec.num_envs, np.int64)

    def add(self, *env_ids: int, first: bool = False, last: bool = False) -> None:
        env = np.array(env_ids, np.int32)
        self.replay.add(env, *step_data(env, self.count[env], first, last))
        self.count[env] += 1

    def fill(self, steps: int) -> None:
        for _ in range(steps):
            self.add(*range(self.replay.spec.num_envs))


def step_data(
    env: np.ndarray, step: np.ndarray, first: bool, last: bool
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rows = len(env)
    code = env * 1000 + step
    fields = {
        "frame": np.broadcast_to(code.astype(np.uint8)[:, None, None, None], (rows, 4, 4, 1)),
        "vector": np.stack([env, step, code], 1).astype(np.float32),
        "action": code.astype(np.int32),
        "reward": code.astype(np.float32) / 2,
        "is_first": np.full(rows, first),
        "is_last": np.full(rows, last),
        "is_terminal": np.zeros(rows, bool),
    }
    deter = np.repeat(step.astype(np.float16)[:, None], 4, 1)
    return fields, deter, np.repeat(step.astype(np.uint8)[:, None], 3, 1)


def assert_rows_are_windows(out: SampleBuffers) -> None:
    """Every column agrees with the environment and start that the row claims."""
    steps = out.start[:, None] + np.arange(out.fields["action"].shape[1])
    code = out.env[:, None] * 1000 + steps
    np.testing.assert_array_equal(out.fields["action"], code)
    np.testing.assert_array_equal(out.fields["reward"], code.astype(np.float32) / 2)
    np.testing.assert_array_equal(out.fields["vector"][..., 2], code)
    np.testing.assert_array_equal(out.fields["frame"][:, :, 3, 3, 0], code.astype(np.uint8))


def sample(replay: Replay, rows: int = 8, *, online: bool = False) -> SampleBuffers:
    out = SampleBuffers.allocate(replay.spec, rows)
    replay.sample(out, online=online)
    return out


def starts(out: SampleBuffers) -> list[tuple[int, int]]:
    return list(zip(out.env.tolist(), out.start.tolist(), strict=True))


Episode = dict[str, Any]


def recorded_episodes(count: int = 12, task: str = "catch", suite: str = "toy") -> list[Episode]:
    """Random episodes, as the official code has them: action t was chosen after observation t."""
    rng = np.random.default_rng(0)
    ended: list[Episode] = []
    with envs.make(suite, task, num_envs=1, seed=0) as pool:
        pool.start()
        rows: list[Episode] = []
        while len(ended) < count:
            step = pool.recv()
            action = pool.spec.action.sample(1, rng)
            rows.append(
                {
                    **step.obs,
                    "action": action,
                    "reward": step.reward,
                    "is_first": step.is_first,
                    "is_last": step.is_last,
                    "is_terminal": step.is_terminal,
                }
            )
            if step.is_last[0]:
                ended.append(
                    {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
                )
                rows = []
            pool.send(action, step.env_id)
    return ended


def write_episodes(folder: Path, recorded: list[Episode]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, episode in enumerate(recorded):
        np.savez_compressed(folder / f"{number:04d}.npz", **episode)
    return folder


def as_port(episode: Episode, classes: int) -> Episode:
    """As ports of Dreamer save it: one-hot actions that led to the observation, a discount."""
    action = np.zeros((len(episode["action"]), classes), np.float32)
    chosen = episode["action"][:-1].astype(np.int64)
    action[np.arange(1, len(action)), chosen] = 1
    rest = ("action", "is_first", "is_last", "is_terminal")
    changed: Episode = {name: value for name, value in episode.items() if name not in rest}
    discount = 1 - episode["is_terminal"].astype(np.float32)
    return changed | {"action": action, "discount": discount, "logprob": np.zeros(len(action))}
