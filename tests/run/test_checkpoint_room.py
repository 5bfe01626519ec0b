"""Runs that could save nothing are refused before anything is made; how much checkpoints take."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_run import TINY, make_run, newest

from dreamer_async.cli import main
from dreamer_async.config import resolve
from dreamer_async.run import checkpoint_room
from dreamer_async.run.checkpoint_room import checkpoint_bytes
from dreamer_async.run.pipeline import main as run_trainer
from dreamer_async.store import checkpoint

WORDS = ["toy", "--task", "catch", "--size", "tiny", *(x for s in TINY for x in ("-s", s))]


def free(monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    """Let every disk have so many bytes free, as far as checkpoints are concerned."""
    usage = SimpleNamespace(free=count)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def size() -> int:
    return checkpoint_bytes(resolve("toy", "catch", size="tiny", overrides=TINY))


def test_a_checkpoint_takes_what_was_said(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.steps=200")
    assert run_trainer(run, plain=True, resume=False) == 0
    [path] = [newest(run).path]
    written = sum(file.stat().st_size for file in path.iterdir())
    assert size() <= written < size() + 400_000, "beside it the policy's memory and a manifest"


def test_a_run_that_could_save_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free(monkeypatch, size() - 1)
    root = tmp_path / "runs"
    assert main(["train", *WORDS, "--runs-dir", str(root), "--plain"]) == 74
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "nothing could be saved" in said[0]
    assert not root.exists()


def test_where_checkpoints_hardly_fit_there_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = 4  # three are kept while one is written
    for fit, warned in ((keep - 1, True), (keep, False)):
        free(monkeypatch, fit * 10**6)
        warning = checkpoint_room.check_room(tmp_path, 10**6, keep)
        assert ("too little for the 4" in warning) == warned
    with pytest.raises(checkpoint_room.CheckpointSpaceError, match="beside the replay"):
        checkpoint_room.check_room(tmp_path, 10**6, keep, replay=3.5e6)


def test_a_run_without_room_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, "train.steps=200")
    assert run_trainer(run, plain=True, resume=False) == 0
    before = sorted(run.path.rglob("*"))
    free(monkeypatch, 1000)
    words = ["resume", run.name, "--steps", "300", "--runs-dir", str(run.path.parent), "--plain"]
    capsys.readouterr()
    assert main(words) == 74
    assert "nothing could be saved" in capsys.readouterr().err
    assert sorted(run.path.rglob("*")) == before


def test_nothing_is_counted_where_there_is_plenty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    monkeypatch.setattr(checkpoint_room, "checkpoint_bytes", lambda config: pytest.fail("counted"))
    free(monkeypatch, 2 * checkpoint_room.PLENTY)
    assert checkpoint_room.room_to_resume(resolve("toy", "catch"), run.checkpoints) == ""


def test_holes_take_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, "train.steps=200")
    assert run_trainer(run, plain=True, resume=False) == 0
    config = resolve("toy", "catch", size="tiny", overrides=TINY)
    free(monkeypatch, 20 * size())
    os.truncate(newest(run).path / checkpoint.STATE, 3_000_000_000_000)
    assert checkpoint_room.room_to_resume(config, run.checkpoints) == ""
    free(monkeypatch, size() / 2)
    with pytest.raises(checkpoint_room.CheckpointSpaceError):
        checkpoint_room.room_to_resume(config, run.checkpoints)
