"""What is said of an environment, and that a run says it once."""

from __future__ import annotations

import numpy as np

from dreamer_async.envs.findings import (
    INSPECTED_EPISODES,
    INSPECTED_ROWS,
    Inspection,
    Tally,
    findings,
)
from dreamer_async.envs.spec import ActionSpec, EnvSpec, ObsSpec, StepBatch

SPEC = EnvSpec("gym", "x", {"v": ObsSpec((2,), "float32")}, ActionSpec("discrete", 2))


def row(time: int, length: int) -> StepBatch:
    """One row of one environment whose episodes have `length` steps; the second number is 7."""
    place = time % (length + 1)
    first, last = np.array([place == 0]), np.array([place == length])
    obs: dict[str, np.ndarray] = {"v": np.array([[time, 7 + time]], np.float32)}
    reward = np.array([0 if first[0] else time % 3], np.float32)
    return StepBatch(np.zeros(1, np.int32), dict(obs), reward, first, last, last)


def test_many_classes_are_said() -> None:
    def said(classes: int) -> list[str]:
        spec = EnvSpec("gym", "x", {"v": ObsSpec((2,), "int32", classes)}, SPEC.action)
        tally = Tally(1)
        tally.add(row(0, 5))
        return [text for text in findings(spec, tally) if "classes" in text]

    assert "v has 5,000 classes, each one input" in said(5000)[0] and said(100) == []


def test_a_run_says_once_what_its_first_episodes_showed() -> None:
    inspection = Inspection(SPEC, 1)
    said = [inspection.add(row(time, 1)) for time in range(40)]
    assert said[2 * INSPECTED_EPISODES - 1], "with the last row of the fifth episode"
    assert sum(map(bool, said)) == 1 and inspection.finish() == []


def test_a_short_run_says_it_at_its_end_and_a_long_episode_in_the_midst() -> None:
    inspection = Inspection(SPEC, 1)
    assert not any(inspection.add(row(time, 100)) for time in range(50))
    assert "no episode ended in 49 steps" in inspection.finish()[0]
    assert inspection.finish() == []
    inspection = Inspection(SPEC, 1)
    said = [bool(inspection.add(row(time, 10**6))) for time in range(INSPECTED_ROWS + 5)]
    assert said.index(True) == INSPECTED_ROWS - 1 and sum(said) == 1
    assert Inspection(SPEC, 1).finish() == [], "nothing was seen"


def test_reset_rows_are_counted_and_many_are_said() -> None:
    def after(length: int) -> tuple[float, list[str]]:
        tally = Tally(1)
        for time in range(12 * (length + 1)):
            tally.add(row(time, length))
        return tally.resets / tally.rows, findings(SPEC, tally)

    share, found = after(1)
    assert share == 0.5 and any("50% of all agent steps are reset rows" in text for text in found)
    share, found = after(9)
    assert share == 0.1 and not any("reset rows" in text for text in found)
