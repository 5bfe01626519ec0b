"""What is said of an environment, and that a run says it once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dreamer_async.envs.findings import (
    INSPECTED_EPISODES,
    INSPECTED_ROWS,
    Inspection,
    Tally,
    findings,
)
from dreamer_async.envs.spec import ActionSpec, EnvSpec, ObsSpec, StepBatch, Taken

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


def test_what_the_spaces_alone_say_comes_with_the_first_rows_and_once() -> None:
    taken = {"v": Taken("v", "an image", remark="v may be symbols")}
    spec = replace(SPEC, taken=taken, remarks=("built elsewhere",))
    inspection = Inspection(spec, 1)
    said = [inspection.add(row(time, 10**6)) for time in range(50)]
    assert said[0] == ["built elsewhere", "v may be symbols"] and not any(said[1:])
    assert not any("symbols" in text for text in inspection.finish())


@pytest.mark.parametrize(
    ("high", "taken", "found"),
    [
        (10, Taken("v", "an image"), True),
        (200, Taken("v", "an image"), False),
        (10, Taken("v", "an image", chosen=True), False),
        (10, Taken("v", "an image", remark="said already"), False),
    ],
)
def test_bytes_that_are_few_numbers_may_be_symbols(high: int, taken: Taken, found: bool) -> None:
    """Whatever their space says: most say 0 to 255."""
    obs = {"v": ObsSpec((16, 16, 1), "uint8")}
    spec = EnvSpec("gym", "x", obs, SPEC.action, taken={"v": taken})
    tally, rows = Tally(1), row(0, 5)
    tally.add(
        rows._replace(obs={"v": np.linspace(0, high, 256).reshape(1, 16, 16, 1).astype("u1")})
    )
    said = [text for text in findings(spec, tally) if "--as v=category:11" in text]
    assert bool(said) == found
