"""Run an environment with random actions, say what an agent will see, and what is wrong with it.

Legend: N rows of one batch.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs import registry
from envs.spec import ActionSpec, EnvSpec, ObsSpec, StepBatch
from envs.vector import VectorEnv

LARGE_VECTOR = 4096
"""A float vector longer than this is probably an image in disguise."""
LARGE_VALUE = 1e4
"""Values beyond this are squashed until hardly anything of them is left."""
FEW_EPISODES = 2
SILENCE = 10.0
"""Seconds without a row after which one is told that it still waits."""


@dataclass
class Range:
    """What was seen of one number or array."""

    low: float = float("inf")
    high: float = float("-inf")
    total: float = 0.0
    count: int = 0

    def add(self, values: NDArray[Any]) -> None:
        if values.size:
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))
            self.total += float(values.sum(dtype=np.float64))
            self.count += values.size

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0


@dataclass(frozen=True)
class Seen:
    """One observation key."""

    shape: tuple[int, ...]
    dtype: str
    encoder: str
    """CNN or MLP."""
    classes: int
    low: float
    high: float
    mean: float


@dataclass(frozen=True)
class Report:
    """What was seen of a task."""

    suite: str
    task: str
    obs: dict[str, Seen]
    action: str
    """In words."""
    frames_per_step: int
    steps: int
    steps_per_second: float
    lengths: list[int]
    """Steps of each finished episode."""
    returns: list[float]
    """Sum of rewards of each finished episode."""
    terminal: int
    """Finished episodes that the task ended, and not a time limit."""
    reward: Seen
    rewarded: float
    """Share of steps with a reward other than 0."""
    findings: list[str]
    """What is wrong or surprising, and how to mend it."""


@dataclass
class Tally:
    """Everything that is counted while the environments run."""

    num_envs: int
    obs: dict[str, Range] = field(default_factory=dict)
    reward: Range = field(default_factory=Range)
    rewarded: int = 0
    rows: int = 0
    """Resets included, in which nothing was done."""
    steps: int = 0
    lengths: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    terminal: int = 0

    def __post_init__(self) -> None:
        self._length = np.zeros(self.num_envs, np.int64)
        self._return = np.zeros(self.num_envs)

    def add(self, rows: StepBatch) -> None:
        """Count the rows of one batch."""
        self.rows += len(rows.env_id)
        for name, values in rows.obs.items():
            self.obs.setdefault(name, Range()).add(values)
        moved = ~rows.is_first
        self.reward.add(rows.reward[moved])
        self.rewarded += int(np.count_nonzero(rows.reward[moved]))
        self.steps += int(moved.sum())
        ids = rows.env_id
        self._length[ids] = np.where(rows.is_first, 0, self._length[ids] + 1)
        self._return[ids] = np.where(rows.is_first, 0, self._return[ids]) + rows.reward
        ended = ids[rows.is_last]
        self.lengths += self._length[ended].tolist()
        self.returns += self._return[ended].tolist()
        self.terminal += int(rows.is_terminal.sum())


def check(
    suite: str,
    task: str,
    episodes: int,
    seconds: float,
    seed: int = 0,
    say: Callable[[str], object] = lambda text: None,
) -> Report:
    """Play random episodes until there are enough or the time from the first reset on is over.

    `say` is told, from another thread, when no row has come for long.
    Raises ValueError for spaces that nobody can use and EnvError if the environment fails.
    """
    with registry.make(suite, task, num_envs=2, seed=seed) as env:
        tally = Tally(env.num_envs)
        play = _play(env, seed)
        with patience(tally, say):
            opening = [next(play)]
            tally.add(opening[0])
            began = time.monotonic()  # the first reset may take longer than many steps
            for rows in play:
                tally.add(rows)
                opening += [rows] if len(opening) < 20 else []
                if len(tally.lengths) >= episodes or time.monotonic() - began > seconds:
                    break
        elapsed = time.monotonic() - began
        died = env.notices()
    return _report(env.spec, tally, elapsed, died or _randomness(suite, task, seed, opening))


@contextmanager
def patience(tally: Tally, say: Callable[[str], object]) -> Iterator[None]:
    """Say now and then that no row comes, while none comes."""
    over = threading.Event()

    def watch() -> None:
        seen, silent = tally.rows, 0.0
        while not over.wait(SILENCE):
            silent = silent + SILENCE if tally.rows == seen else 0.0
            seen = tally.rows
            if silent:
                say(f"no row for {silent:.0f} seconds: a reset or a step takes long, or hangs")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _play(env: VectorEnv, seed: int) -> Iterator[StepBatch]:
    """Rows under random actions."""
    rng = np.random.default_rng(seed)
    env.start()
    while True:
        rows = env.recv()
        yield rows
        env.send(env.spec.action.sample(len(rows.env_id), rng), rows.env_id)


def _randomness(suite: str, task: str, seed: int, opening: list[StepBatch]) -> list[str]:
    """Play the first steps again with the same seed; one environment must not be the other."""
    findings = []
    with registry.make(suite, task, num_envs=2, seed=seed) as env:
        again = [rows for rows, _ in zip(_play(env, seed), opening, strict=False)]
    if [_bytes(rows) for rows in again] != [_bytes(rows) for rows in opening]:
        findings.append(
            "the same seed gives other episodes: draw every random number from the generator that "
            "reset(seed=...) makes; until then no run can be repeated"
        )
    if all((value[0] == value[1]).all() for value in opening[0].obs.values()):
        findings.append("episodes of different seeds start alike; fine if the task is meant so")
    return findings


def _bytes(rows: StepBatch) -> list[bytes]:
    return [column.tobytes() for column in (*rows.obs.values(), *rows[2:6])]


def _report(spec: EnvSpec, tally: Tally, elapsed: float, findings: list[str]) -> Report:
    obs = {name: _seen(entry, tally.obs[name]) for name, entry in spec.obs.items()}
    for name, seen in obs.items():
        findings += _wrong_with(name, seen) + _outside(name, seen, spec.bounds.get(name))
    findings += _wrong_with_episodes(tally)
    reward = tally.reward
    share = tally.rewarded / max(1, tally.steps)
    if not tally.rewarded:
        findings.append("random play never saw a reward: expect a long time without any progress")
    elif share == 1 and reward.low == reward.high:
        findings.append(f"every step was rewarded with {reward.low:g}: only lengths can matter")
    if tally.steps and max(abs(reward.low), abs(reward.high)) > LARGE_VALUE:
        findings.append(f"rewards reach {reward.low:g} to {reward.high:g}: scale them down")
    return Report(
        suite=spec.suite,
        task=spec.task,
        obs=obs,
        action=describe_action(spec.action),
        frames_per_step=spec.frames_per_step,
        steps=tally.steps,
        steps_per_second=tally.steps / max(1e-9, elapsed),
        lengths=tally.lengths,
        returns=tally.returns,
        terminal=tally.terminal,
        reward=Seen((), "float32", "", 0, *_ends(reward), reward.mean),
        rewarded=share,
        findings=findings,
    )


def _seen(entry: ObsSpec, values: Range) -> Seen:
    encoder = "CNN" if entry.is_image else "MLP"
    return Seen(entry.shape, entry.dtype, encoder, entry.classes, *_ends(values), values.mean)


def _ends(values: Range) -> tuple[float, float]:
    return (values.low, values.high) if values.count else (0.0, 0.0)


def _wrong_with(name: str, seen: Seen) -> list[str]:
    """What is wrong with an observation key, and how to mend it."""
    findings = []
    if seen.low == seen.high:
        findings.append(f"{name} was {seen.low:g} all the time: leave it out, or is it broken?")
    elif seen.dtype == "uint8" and seen.high <= 1:
        findings.append(
            f"the image {name} holds nothing but 0 and 1: multiply by 255 before converting it"
        )
    if seen.dtype == "float32" and max(abs(seen.low), abs(seen.high)) > LARGE_VALUE:
        findings.append(f"{name} reaches {seen.low:g} to {seen.high:g}: scale it to about 1")
    if seen.dtype == "float32" and seen.shape[0] > LARGE_VECTOR:
        findings.append(
            f"{name} is a vector of {seen.shape[0]} numbers for an MLP: if it is an image, "
            "declare it as a uint8 Box of [height, width, channels]"
        )
    return findings


def _outside(name: str, seen: Seen, bounds: tuple[float, float] | None) -> list[str]:
    """Say where an environment does not keep to the bounds of its own space."""
    if bounds is None:
        return []
    low, high = bounds
    slack = 1e-5 * max([1.0, *(abs(bound) for bound in bounds if math.isfinite(bound))])
    if low - slack <= seen.low and seen.high <= high + slack:
        return []
    return [
        f"{name} reaches {seen.low:g} to {seen.high:g}, but its space says {low:g} to {high:g}: "
        "mend the one or the other (nothing is clipped)"
    ]


def _wrong_with_episodes(tally: Tally) -> list[str]:
    """What is wrong with where episodes end, and how to mend it."""
    if not tally.lengths:
        return [
            f"no episode ended in {tally.steps} steps: if none ever does, no score is reported; "
            "give it a time limit (gymnasium.wrappers.TimeLimit)"
        ]
    if min(tally.lengths) < FEW_EPISODES:
        return [
            "an episode ended after one step: fine where there is one decision, "
            "else reset may leave the environment finished"
        ]
    if not tally.terminal and len(tally.lengths) >= FEW_EPISODES:
        return ["no episode was terminal: a time limit does not count as the end of the task"]
    return []


def describe_action(spec: ActionSpec) -> str:
    """An action in words."""
    if spec.kind == "several":
        return "; ".join(f"{name}: {describe_action(part)}" for name, part in spec.parts)
    if spec.kind == "discrete":
        return f"one of {spec.size}"
    return f"{spec.size} number{'s' * (spec.size > 1)} in [-1, 1]"
