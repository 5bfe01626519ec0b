"""`bench.check` loses nothing to a step that fails or hangs; its steps are words that work."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dreamer_async import bench
from dreamer_async.bench import check, policy
from dreamer_async.bench.check import Step, steps
from dreamer_async.bench.on_device import PROFILED, Span, summary
from dreamer_async.cli import main
from dreamer_async.config import resolve
from dreamer_async.envs import spec
from tests.tiny_run import TINY

ABOUT = {"torch": "2.13.0", "devices": 1}
SPEAKS = "print('here', flush=True)"
ROW = {"part": "learner", "what": "update", "median_s": 0.01, "detail": {"kernels": 2000.0}}


@pytest.fixture
def speaking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a step that begins with a word begins with that, however busy the machine."""
    original = check.start

    def start(step: Step, folder: Path) -> Any:
        running = original(step, folder)
        end = time.monotonic() + 60
        while SPEAKS in step.words[-1] and not os.fstat(running.output.fileno()).st_size:
            assert running.child.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        running.began = time.monotonic()
        return running

    monkeypatch.setattr(check, "start", start)


def test_one_step_costs_the_others_nothing(
    speaking: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.dumps({"results": [ROW]})
    chosen = [
        Step("fails", ("-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"), 60),
        Step("hangs", ("-c", f"import time; {SPEAKS}; time.sleep(600)"), 0.2),
        Step("works", ("-c", f"print('a warning'); print({found!r})"), 60),
        Step("env", ("-c", "import os; print(os.environ['CHECKED'])"), 60, {"CHECKED": "yes"}),
    ]
    target = tmp_path / "found.json"
    assert check.check(chosen, target, tmp_path, minutes=10.0, about=ABOUT) == 1
    written = json.loads(target.read_text())
    assert [step["ended"] for step in written["steps"]] == [
        *("exit code 3", "took more than 0.2 s", "ok", "ok"),
    ]
    fails, hangs, works, env = written["steps"]
    assert "why" in fails["output"] and "here" in hangs["output"] and "yes" in env["output"]
    assert works["bench"]["results"] == [ROW]
    assert written["machine"] == ABOUT
    table = capsys.readouterr().out
    assert all(word in table for word in ("| why", "| here", "10 ms", "kernels 2e+03"))
    assert "of 10 minutes" in table


def test_there_may_be_no_time_left(tmp_path: Path) -> None:
    step = Step("late", ("-c", "raise SystemExit(0)"), 60)
    target = tmp_path / "found.json"
    assert check.check([step], target, tmp_path, minutes=-1.0, about=ABOUT) == 1
    assert json.loads(target.read_text())["steps"][0]["ended"] == "no time left"
    assert check.check([step], target, tmp_path, minutes=10.0, about=ABOUT) == 0


def test_the_machine_is_described() -> None:
    about = check.machine()
    assert about["torch"] == torch.__version__ and about["devices"] == torch.cuda.device_count()


def test_everything_ends_when_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "LEAST_S", 0.1)
    slow = "-c", "import time; time.sleep(600)"
    chosen = [Step("one", slow, 60, first=True), Step("other", slow, 60)]
    began = time.monotonic()
    assert check.check(chosen, tmp_path / "found.json", tmp_path, minutes=0.02, about=ABOUT) == 1
    assert time.monotonic() - began < 60
    ends = [step["ended"] for step in json.loads((tmp_path / "found.json").read_text())["steps"]]
    assert ends[0].startswith("took more than") and ends[1] == "no time left"


def test_what_is_first_is_done_side_by_side(tmp_path: Path) -> None:
    """Each of two waits for the other, which no order could satisfy."""
    words = (
        "import pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.05)"
    )
    one, other = ("-c", words, "a", "b"), ("-c", words, "b", "a")
    chosen = [Step("one", one, 60, first=True), Step("other", other, 60, first=True)]
    assert check.check(chosen, tmp_path / "found.json", tmp_path, minutes=10.0, about=ABOUT) == 0


def test_compiling_comes_first_with_time_for_an_empty_cache() -> None:
    """It took 208 s on two processors, and what follows finds the cache of the same user full."""
    chosen = steps(1.0, "cuda")
    first = [step for step in chosen if step.first]
    assert chosen[: len(first)] == first and len(first) == 4
    for step in first:
        assert step.limit_s >= 2 * 208 and "learner" in step.words
        later = {word for word in step.words if word not in ("--seconds", "0")}
        assert any(later <= set(other.words) for other in chosen[len(first) :]), step.name


def test_all_steps_compile_into_one_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    ask = "import os; print(os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    asking = [Step(f"step {i}", ("-c", ask), 60) for i in range(2)]
    monkeypatch.setattr(check, "steps", lambda *_: asking)
    monkeypatch.setattr(check, "machine", lambda: ABOUT)
    assert check.main(["--out", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())["steps"]
    said = {step["output"].strip() for step in found}
    assert said == {str(tmp_path / "dreamer-async/inductor")}


def test_a_second_gpu_is_measured_where_there_is_one() -> None:
    def on_second(devices: int) -> list[Step]:
        return [s for s in steps(1.0, "cuda", devices) if "train.device=cuda:1" in s.words]

    assert on_second(2) and not on_second(1)


def test_kernels_of_triton_are_compared_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check, "known_settings", lambda: ["train.fused_filtering"])
    on = [step for step in steps(1.0, "cuda") if "train.fused_filtering=true" in step.words]
    plain = {step.name: step.words for step in steps(1.0, "cuda")}
    assert len(on) == len(check.FUSED["train.fused_filtering"]) > 1
    assert all(set(plain[s.name.partition(", ")[0]]) < set(s.words) for s in on)
    monkeypatch.setattr(check, "known_settings", list)
    assert not [s for s in steps(1.0, "cuda") if any("fused" in word for word in s.words)]


def test_learning_goes_on_where_the_last_call_stopped(
    speaking: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call would train, the second resumes; both are ended in good time."""
    called: list[Step] = []

    def begin(step: Step, folder: Path) -> Any:
        called.append(step)
        words = "import signal, sys, time\n"
        words += "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        words += f"{SPEAKS}; time.sleep(600)"
        return original(Step(step.name, ("-c", words), step.limit_s), folder)

    original = check.start
    monkeypatch.setattr(check, "start", begin)
    runs = tmp_path / "runs"
    assert check.learn_pong(runs, tmp_path, 0.2)["ended"] == "ok"
    (runs / "a run").mkdir(parents=True)
    assert check.learn_pong(runs, tmp_path, 0.2)["ended"] == "ok"
    assert [step.words[2] for step in called] == ["train", "resume"]


BENCHES = [step for step in steps(1.0, "cpu") if "bench" in step.words]


@pytest.mark.parametrize("step", BENCHES, ids=[step.name for step in BENCHES])
def test_the_words_are_understood(
    step: Step, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    said = "task", "size", "device", "precision", "cores", "processor", "threads", "torch"
    found = {"results": [], **dict.fromkeys(said, ""), "load": 0.0, "cores": 1}

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
