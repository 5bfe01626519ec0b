"""Weights with a model card, as a folder to pass on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tiny_run import make_run, newest

import dreamer_async
from dreamer_async.cli import main
from dreamer_async.config import ConfigError
from dreamer_async.run import pipeline
from dreamer_async.share import weights
from dreamer_async.share.weights import FILES
from dreamer_async.store.checkpoint import CheckpointError
from dreamer_async.store.json_file import read_json
from dreamer_async.store.run_dir import RunDir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A toy run that was trained for a moment."""
    run = make_run(tmp_path_factory.mktemp("runs"), "train.steps=60")
    assert pipeline.main(run, plain=False, resume=False) == 0
    return run


def test_the_folder_acts_as_the_run_does(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "weights"
    words = ["export", str(run.path), "--safetensors", str(out), "-n", "3", "--seed", "7"]
    assert main(words) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    here, there = (dreamer_async.load(path, "cpu", seed=1) for path in (run.path, out))
    assert there.env_steps == here.env_steps and there.config == here.config
    obs = {key: np.ones((4, *s.shape), s.dtype) for key, s in here.spec.obs.items()}
    for _ in range(3):
        ours, theirs = here.act(obs, [False] * 4), there.act(obs, [False] * 4)
        np.testing.assert_array_equal(ours, theirs)
    assert (out / "state.safetensors").stat().st_size < newest(run).manifest["bytes"] / 2


def test_the_card_says_task_protocol_scores_and_seeds(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "weights"
    assert main(["export", str(run.path), "--safetensors", str(out), "-n", "3", "--seed", "7"]) == 0
    card, scores = (out / "README.md").read_text(), read_json(out / "scores.json")
    assert card.startswith("---\nlibrary_name: dreamer-async\n")
    played = scores["evaluation"]
    assert len(played["scores"]) == 3 and played["seed"] == 7
    assert f"{played['mean']:.2f} ± {played['std']:.2f}" in card and "3 episodes, seed 7" in card
    for part in (
        "toy/catch",
        "frames per agent step | 1",
        "train.steps=60",
        "seed of the training",
    ):
        assert part in card
    assert dreamer_async.__version__ in card


def test_a_folder_that_was_tampered_with_is_refused(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "weights"
    assert main(["export", str(run.path), "--safetensors", str(out), "-n", "0"]) == 0
    assert "evaluation" not in (out / "README.md").read_text()
    state = out / "state.safetensors"
    data = bytearray(state.read_bytes())
    data[-1] ^= 1
    state.write_bytes(data)
    with pytest.raises(CheckpointError, match="does not match its hash"):
        dreamer_async.load(out)


@pytest.mark.parametrize("place", [".", "./", "link", "empty/", "new/"])
def test_an_empty_folder_is_filled_however_it_is_named(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """It stays the folder that it was: a shell in it must not be left in one that is gone."""
    here = tmp_path / "here"
    (here / "empty").mkdir(parents=True)
    if place in (".", "./"):
        (here / "empty").rmdir()
    if place == "link":
        (here / "link").symlink_to("empty")
    monkeypatch.chdir(here)
    before = (here / place).stat().st_ino if (here / place).exists() else None
    assert main(["export", str(run.path), "--safetensors", place, "-n", "0"]) == 0
    assert sorted(os.listdir(place)) == sorted(FILES)
    assert before in (None, (here / place).stat().st_ino)
    agent = dreamer_async.load((here / place).resolve(), "cpu")
    assert agent.env_steps == newest(run).manifest["env_steps"]
    assert (here / "link").is_symlink() == (place == "link")


def test_a_folder_that_cannot_be_filled_is_left_empty(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def card(*_: object) -> str:
        (tmp_path / "other").touch()
        return "card"

    monkeypatch.setattr(weights, "card", card)
    with pytest.raises(ConfigError, match="not empty any more"):
        weights.export(run, tmp_path, episodes=0)
    assert os.listdir(tmp_path) == ["other"]
    monkeypatch.undo()
    (tmp_path / "other").unlink()
    monkeypatch.setattr(weights, "FILES", (*FILES, "missing"))
    with pytest.raises(FileNotFoundError):
        weights.export(run, tmp_path, episodes=0)
    assert os.listdir(tmp_path) == []


def test_mistakes_are_one_line_and_leave_nothing(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "broken").symlink_to("nothing")
    for words, part in (
        ([], "say what to export"),
        (["--safetensors", str(tmp_path / "full")], "not an empty directory"),
        (["--safetensors", str(tmp_path / "no" / "weights")], "is not a directory"),
        (["--safetensors", str(tmp_path / "no" / "..")], "is not a directory"),
        (["--safetensors", str(tmp_path / "full" / "..")], "not an empty directory"),
        (["--safetensors", str(tmp_path / "broken")], "not an empty directory"),
    ):
        assert main(["export", str(run.path), *words]) == 2
        error = capsys.readouterr().err
        assert part in error and error.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["broken", "full"]
