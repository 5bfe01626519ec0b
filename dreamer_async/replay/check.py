"""Whether the steps of a replay that was found on the disk can be trained on.

A ring has no checksums of its data. What would end an update with a traceback (a class that does
not exist, a flag that is neither) is looked for once, when a ring is opened; images and vectors may
hold anything, and numbers in them that are not finite are met by the learner.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs.spec import ActionSpec, EnvSpec
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.ring import RingMismatch

CHUNK = 1 << 16
"""Steps that are looked at together."""

Bounds = tuple[float, float]
"""Least and largest number that may stand in a column."""
FINITE: Bounds = (-float(np.finfo(np.float32).max), float(np.finfo(np.float32).max))


def check_steps(replay: Replay, spec: EnvSpec, classes: int) -> None:
    """Raise RingMismatch for the first number that cannot be one of this environment.

    `classes` is how many a categorical latent has.
    """
    rules = dict(_rules(spec)) | {"stoch": ((0, classes - 1),)}
    for name, column in replay.stored():
        for env, steps in enumerate(column):
            for start in range(0, len(steps), CHUNK):
                _check(name, steps[start : start + CHUNK], rules.get(name, ()), env, start)


def _rules(spec: EnvSpec) -> Iterator[tuple[str, tuple[Bounds, ...]]]:
    """Bounds of each column that has some: one for all its numbers, or one for each."""
    yield "reward", (FINITE,)
    yield "action", tuple(_of_action(spec.action))
    for flag in ("is_first", "is_last", "is_terminal"):
        yield flag, ((0, 1),)
    for name, obs in spec.obs.items():
        if obs.classes:
            yield name, ((0, obs.classes - 1),)


def _of_action(spec: ActionSpec) -> Iterator[Bounds]:
    if spec.kind == "several":
        for _, part in spec.parts:
            yield from _of_action(part)
    elif spec.kind == "discrete":
        yield 0, spec.size - 1
    else:
        yield from [FINITE] * spec.size


def _check(
    name: str, steps: NDArray[np.generic], bounds: tuple[Bounds, ...], env: int, start: int
) -> None:
    """Check steps [N, *shape] of one column; anything that is not between its bounds is wrong."""
    if not bounds:
        return
    numbers = steps.view(np.uint8) if steps.dtype == np.bool_ else steps
    rows = numbers.reshape(len(numbers), -1)  # [N, numbers of a step]
    low, high = np.array(bounds, np.float64).T  # [1] or [numbers of a step] each
    wrong = ~((rows >= low) & (rows <= high))  # what is not a number is in no order
    if wrong.any():
        step, place = np.argwhere(wrong)[0].tolist()
        least, most = bounds[min(place, len(bounds) - 1)]
        raise RingMismatch(
            f"the replay is damaged: {name} of step {start + step} of environment {env} is "
            f"{rows[step, place]}, which has to be from {least:g} to {most:g}"
        )
