"""A run on several devices continues on as many, unless another number is asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamer_async import cli
from dreamer_async.cli.ranks import CLOCKS_SECONDS, LAUNCH, made_before, remember_launch
from dreamer_async.config import resolve, to_dict
from dreamer_async.parallel import launch
from dreamer_async.parallel.world import launched_seconds
from dreamer_async.store.json_file import write_json_atomic
from dreamer_async.store.run_dir import RunDir
from dreamer_async.sweep.work import trainer

Resume = Callable[..., tuple[int, list[int]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """One of two ranks, each of which has kept a replay."""
    monkeypatch.chdir(tmp_path)
    run = RunDir.create(Path("runs"), "seek", config=to_dict(resolve("toy", "seek", size="tiny")))
    for rank in range(2):
        run.rank(rank).path.mkdir(parents=True)
    write_json_atomic(run.path / "ranks" / "launch.json", {"launch": "of torchrun"})
    return run


@pytest.fixture
def resume(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> Resume:
    """Exit code, and on how many devices the trainer is started."""
    started: list[int] = []

    def launched(_: RunDir, devices: int, **options: Any) -> int:
        started.append(devices)
        return 0

    monkeypatch.setattr(launch, "launch", launched)

    def call(*words: str) -> tuple[int, list[int]]:
        return cli.main(["resume", "last", "--plain", "--device", "cpu", *words]), started

    return call


def test_as_many_as_before(resume: Resume, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume() == (0, [2])
    assert "on 2 devices, as before" in capsys.readouterr().out


def test_another_number_deletes_no_replay_unless_that_is_asked_for(
    resume: Resume, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    rings = [run.rank(n).replay_paths()[0] for n in range(2)]
    for ring in rings:
        ring.write_bytes(bytes(64))
    for words in (["--devices", "4"], ["--devices", "1"]):
        assert resume(*words)[0] == 2
        said = capsys.readouterr().err
        assert "has 2 replays" in said and "add --drop-replay" in said
        assert all(ring.exists() for ring in rings)
    assert resume("--devices", "4", "--drop-replay") == (0, [4])
    assert not any(ring.exists() for ring in rings)


def test_a_sweep_continues_a_run_on_as_many_devices_as_it_has_replays(run: RunDir) -> None:
    run.events_path.touch()
    for devices in (1, 4):
        assert "--devices=2" in trainer(run, devices=devices)
    run.free_replay()
    assert "--devices=4" in trainer(run, devices=4)


def test_restarts_are_of_such_runs_only(resume: Resume, run: RunDir) -> None:
    assert resume("--max-restarts", "3") == (0, [2])
    run.free_replay()
    assert resume("--max-restarts", "3")[0] == 2


def test_a_launch_finds_the_run_that_it_has_made_and_none_of_an_earlier_launch(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun's --rdzv-id may be the same for all launches of a job."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "breakout")
    names = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (names | {"TORCHELASTIC_RESTART_COUNT": "1"}).items():
        monkeypatch.setenv(name, value)
    remember_launch(run)
    found = made_before(Path("runs"))
    assert found is not None and found.path == run.path
    before = time.time() - launched_seconds() - 2 * CLOCKS_SECONDS
    os.utime(run.path / LAUNCH, (before, before))
    assert made_before(Path("runs")) is None
