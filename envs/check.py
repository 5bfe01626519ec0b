"""Run an environment with random actions, say what an agent will see, and what is wrong with it.

Legend: N rows of one batch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from dreamer_async.envs import registry
from dreamer_async.envs.findings import Range, Tally, findings, remarks
from dreamer_async.envs.spec import EnvSpec, StepBatch, Taken
from dreamer_async.envs.vector import VectorEnv
from dreamer_async.envs.view import PLAIN, View

SILENCE = 10.0
"""Seconds without a row after which one is told that it still waits."""


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
    key: str = ""
    """Its name in the environment, as `--as` takes it; empty where nothing can be said of it."""
    taken: str = ""
    """What it was taken for."""
    others: str = ""
    """What else `--as` can make of it, with bars between."""


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
    resets: float
    """Share of rows that only show how an episode begins; they count as agent steps."""
    findings: list[str]
    """What is wrong or surprising, and how to mend it."""


def check(
    suite: str,
    task: str,
    episodes: int,
    seconds: float,
    seed: int = 0,
    say: Callable[[str], object] = lambda text: None,
    view: View = PLAIN,
) -> Report:
    """Play random episodes until there are enough or the time from the first reset on is over.

    `say` is told, from another thread, when no row has come for long.
    Raises ValueError for spaces that nobody can use and EnvError if the environment fails.
    """
    with registry.make(suite, task, num_envs=2, seed=seed, view=view) as env:
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
    return _report(env.spec, tally, elapsed, died or _randomness(suite, task, seed, opening, view))


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


def _randomness(
    suite: str, task: str, seed: int, opening: list[StepBatch], view: View
) -> list[str]:
    """Play the first steps again with the same seed; one environment must not be the other."""
    findings = []
    with registry.make(suite, task, num_envs=2, seed=seed, view=view) as env:
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


def _report(spec: EnvSpec, tally: Tally, elapsed: float, found: list[str]) -> Report:
    obs = {name: _seen(spec, name, tally.obs[name]) for name in spec.obs}
    return Report(
        suite=spec.suite,
        task=spec.task,
        obs=obs,
        action=describe_action(spec),
        frames_per_step=spec.frames_per_step,
        steps=tally.steps,
        steps_per_second=tally.steps / max(1e-9, elapsed),
        lengths=tally.lengths,
        returns=tally.returns,
        terminal=tally.terminal,
        reward=Seen((), "float32", "", 0, *_ends(tally.reward), tally.reward.mean),
        rewarded=tally.rewarded / max(1, tally.steps),
        resets=tally.resets / max(1, tally.rows),
        findings=found + remarks(spec) + findings(spec, tally),
    )


def _seen(spec: EnvSpec, name: str, values: Range) -> Seen:
    entry, taken = spec.obs[name], spec.taken.get(name, Taken("", ""))
    encoder = "CNN" if entry.is_image else "MLP"
    return Seen(
        *(entry.shape, entry.dtype, encoder, entry.classes, *_ends(values), values.mean),
        key=taken.key,
        taken=taken.words,
        others=taken.others,
    )


def _ends(values: Range) -> tuple[float, float]:
    return (values.low, values.high) if values.count else (0.0, 0.0)


def describe_action(spec: EnvSpec) -> str:
    """What an agent decides and what the environment gets for it, in words."""
    from dreamer_async.envs.native import actions  # which imports gymnasium

    return actions.describe(actions.write_actions(registry.native_spaces(spec)[1]))
