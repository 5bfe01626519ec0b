"""A run on several devices continues on as many, unless another number is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamer_async import cli
from dreamer_async.config import resolve, to_dict
from dreamer_async.parallel import launch
from dreamer_async.store.json_file import write_json_atomic
from dreamer_async.store.run_dir import RunDir

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


def test_another_number_is_taken_without_a_word(
    resume: Resume, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resume("--devices", "4") == (0, [4])
    assert "as before" not in capsys.readouterr().out


def test_restarts_are_of_such_runs_only(resume: Resume, run: RunDir) -> None:
    assert resume("--max-restarts", "3") == (0, [2])
    run.free_replay()
    assert resume("--max-restarts", "3")[0] == 2
