"""Training eagerly while a process beside compiles, and the change-over."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import TINY, make_run, read

import envs
from dreamer_async import events, pipeline, warming
from dreamer_async.agent import Trainer
from dreamer_async.config import Config, resolve
from dreamer_async.learner import Learner, Report
from dreamer_async.replay_setup import open_replay
from dreamer_async.run_dir import RunDir, list_runs


def behave(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the process beside run this instead of the compiler."""
    monkeypatch.setattr(warming, "COMMAND", (sys.executable, "-c", code))


def config() -> Config:
    return resolve("toy", "catch", size="tiny", overrides=TINY)


def train(tmp_path: Path, *overrides: str) -> list[events.Event]:
    run = make_run(tmp_path, "train.compile=true", *overrides)
    assert pipeline.main(run, plain=False, resume=False) == 0
    return read(run)


def stop(tmp_path: Path) -> None:
    """Ask every run of the test to end."""
    for run in list_runs(tmp_path):
        run.request("stop")


def messages(seen: list[events.Event]) -> list[str]:
    return [e.message for e in seen if isinstance(e, events.Warned)]


def test_updates_start_eagerly_and_change_over_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process beside ends after some updates, and the run after some more."""
    updated, compiled_at = tmp_path / "updated", list[int]()
    wait = f"while not os.path.exists({str(updated)!r}): time.sleep(0.01)"
    behave(monkeypatch, f"import os, time\n{wait}")
    warm_up, step = Learner.warm_up, Learner.step

    def watched(learner: Learner) -> str:
        compiled_at.append(learner.updates)
        return warm_up(learner)

    def counted(learner: Learner) -> Report:
        report = step(learner)
        if report.update == 3:
            updated.touch()
        if compiled_at and report.update == compiled_at[0] + 3:
            stop(tmp_path)
        return report

    monkeypatch.setattr(Learner, "warm_up", watched)
    monkeypatch.setattr(Learner, "step", counted)
    monkeypatch.setattr(Trainer, "compile", lambda trainer: None)
    seen = train(tmp_path, "train.steps=10_000_000")
    assert len(compiled_at) == 1 and compiled_at[0] >= 3
    assert isinstance(seen[-1], events.RunFinished) and seen[-1].updates > compiled_at[0]
    assert any("compiled from now on" in message for message in messages(seen))
    assert not any(isinstance(e, events.PhaseChanged) and e.phase == "compiling" for e in seen)


def test_a_compiler_that_fails_leaves_updates_eager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behave(monkeypatch, "raise SystemExit('no compiler today')")
    monkeypatch.setattr(Trainer, "compile", lambda trainer: pytest.fail("compiled"))
    warm, step, failed = warming.warm, Learner.step, list[int]()

    async def watched(config: Config) -> str:
        problem = await warm(config)
        failed.append(1)
        return problem

    def counted(learner: Learner) -> Report:
        report = step(learner)
        if failed:
            failed.append(report.update)
            stop(tmp_path)
        return report

    monkeypatch.setattr(warming, "warm", watched)
    monkeypatch.setattr(Learner, "step", counted)
    seen = train(tmp_path, "train.steps=10_000_000")
    assert [m for m in messages(seen) if "stay eager" in m and "no compiler today" in m]
    assert len(failed) > 1, "it goes on"


@pytest.mark.parametrize("setting", ["train.sync=true", "train.eager_start=false"])
def test_otherwise_the_first_update_is_compiled(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behave(monkeypatch, "raise SystemExit('never asked')")
    compiled: list[bool] = []
    monkeypatch.setattr(Trainer, "compile", lambda trainer: compiled.append(True))
    seen = train(tmp_path, setting, "train.steps=60")
    phases = [e.phase for e in seen if isinstance(e, events.PhaseChanged)]
    assert compiled == [True] and phases[0] == "compiling" and not messages(seen)


def test_a_stop_ends_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    code = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    behave(monkeypatch, code)

    async def stop_early() -> None:
        task = asyncio.create_task(warming.warm(config()))
        while not (pid.exists() and pid.read_text()):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stop_early())
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_it_compiles_for_the_shapes_of_the_training(tmp_path: Path) -> None:
    ours, spec = config(), envs.spec("toy", "catch")
    replay = open_replay(ours, spec, RunDir.create(tmp_path, "toy"), resume=False)
    learner = Learner(spec, ours, replay, torch.device("cpu"), "float32")
    seen: list[list[tuple[torch.Size, torch.dtype]]] = []
    trainer = learner.trainer
    trainer.compile = lambda backend="": None
    trainer.update = lambda batch, noise: seen.append(  # type: ignore[assignment]
        [(t.shape, t.dtype) for t in (*batch.tensors(), *noise)]
    )
    warming.compile_once(trainer, ours)
    learner.warm_up()
    assert len(seen) == 2 and seen[0] == seen[1]


@pytest.mark.slow
def test_the_trainer_finds_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    assert asyncio.run(warming.warm(config())) == ""
    torch._dynamo.utils.counters.clear()
    warming.compile_once(Trainer(envs.spec("toy", "catch"), config()), config())
    counters = torch._dynamo.utils.counters["inductor"]
    assert counters["fxgraph_cache_hit"] >= 4 and not counters["fxgraph_cache_miss"]
