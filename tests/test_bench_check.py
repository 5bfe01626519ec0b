"""`bench.check` loses nothing to a step that fails or hangs; its steps are words that work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamer_async import bench
from dreamer_async.bench import check, policy
from dreamer_async.bench.check import Step, steps
from dreamer_async.bench.on_device import PROFILED, Span, summary
from dreamer_async.cli import main
from dreamer_async.config import resolve
from envs import spec
from tests.tiny_run import TINY

ROW = {"part": "learner", "what": "update", "median_s": 0.01, "detail": {"kernels": 2000.0}}


def test_one_step_costs_the_others_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.dumps({"results": [ROW]})
    chosen = [
        Step("fails", ("-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"), 60),
        Step("hangs", ("-c", "import time; print('here', flush=True); time.sleep(600)"), 3),
        Step("works", ("-c", f"print('a warning'); print({found!r})"), 60),
        Step("env", ("-c", "import os; print(os.environ['CHECKED'])"), 60, {"CHECKED": "yes"}),
    ]
    target = tmp_path / "found.json"
    assert check.check(chosen, target, tmp_path, minutes=1.0) == 1
    written = json.loads(target.read_text())
    assert [step["ended"] for step in written["steps"]] == [
        *("exit code 3", "took more than 3 s", "ok", "ok"),
    ]
    fails, hangs, works, env = written["steps"]
    assert "why" in fails["output"] and "here" in hangs["output"] and "yes" in env["output"]
    assert works["bench"]["results"] == [ROW]
    assert written["machine"]["torch"]
    table = capsys.readouterr().out
    assert all(word in table for word in ("| why", "| here", "10 ms", "kernels 2e+03"))


def test_there_may_be_no_time_left(tmp_path: Path) -> None:
    step = Step("late", ("-c", "raise SystemExit(0)"), 60)
    target = tmp_path / "found.json"
    assert check.check([step], target, tmp_path, minutes=-1.0) == 1
    assert json.loads(target.read_text())["steps"][0]["ended"] == "no time left"
    assert check.check([step], target, tmp_path, minutes=1.0) == 0


BENCHES = [step for step in steps(1.0, "cpu") if "bench" in step.words]


@pytest.mark.parametrize("step", BENCHES, ids=[step.name for step in BENCHES])
def test_the_words_are_understood(
    step: Step, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    said = "task", "size", "device", "precision", "cores", "processor", "threads", "torch"
    found = {"results": [], **dict.fromkeys(said, "")}

    def measure(config: Any, part: str, seconds: float, pairs: int) -> dict[str, Any]:
        asked.append((config.train.device, part))
        return found

    monkeypatch.setattr(bench, "measure", measure)
    words = list(step.words)
    assert main(words[2:]) == 0
    assert asked == [("cpu", words[3])]
    assert json.loads(capsys.readouterr().out) == found


def test_tests_that_are_named_exist() -> None:
    root = Path(check.__file__).parents[2]
    for step in steps(1.0, "cuda"):
        for word in step.words:
            assert not word.startswith("tests/") or (root / word).exists()
    assert any("gpu" in step.words for step in steps(1.0, "cuda"))


def test_a_gpu_is_busy_while_anything_runs() -> None:
    spans = [Span(4.0, 6.0), Span(0.0, 2.0), Span(1.0, 3.0), Span(1.5, 1.6)]
    found = summary(spans)
    assert found["share_busy"] == pytest.approx(5.0 / 6.0)
    assert found["kernels"] == len(spans) / PROFILED
    assert summary([]) == {}


def test_acting_beside_a_learner_is_timed() -> None:
    config = resolve("toy", "catch", size="tiny", overrides=(*TINY, "train.device=cpu"))
    place = policy.take_place(config.train)
    rows = policy.beside_learner(config, spec("toy", "catch"), place, [1, 2], 0.05)
    assert [row.what.split(",")[0] for row in rows] == [
        f"act for {n} environments" for n in (1, 2, 1, 2)
    ]
    assert all(row.median_s <= row.detail["p99_ms"] / 1e3 * (1 + 1e-6) for row in rows)
    assert np.isfinite([row.median_s for row in rows]).all()
