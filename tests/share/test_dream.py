"""The picture of real, reconstructed and dreamed images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import make_run

from dreamer_async import envs
from dreamer_async.agent.open_loop import OpenLoop
from dreamer_async.cli import main
from dreamer_async.run import pipeline
from dreamer_async.share.dream import GAP, NothingToSee, compose, draw, dreams, labelled, load
from dreamer_async.store.checkpoint import CheckpointError
from dreamer_async.store.summary import load_config


def test_images_stand_in_three_lines_with_time_to_the_right() -> None:
    real = torch.zeros(2, 3, 4, 4, 1)
    real[:, 1] = 1.0
    picture = compose({"image": OpenLoop(real, real * 0.5, real * 0.0)})
    assert picture.shape == (2 * 3 * (4 + GAP) + 2 * GAP, 3 * (4 + GAP), 3)
    step = 4 + GAP
    assert picture[0, step, 0] == 255 and picture[0, 0, 0] == 0
    assert picture[step, step, 0] == 128
    assert picture[2 * step, step, 0] == 0


def test_colour_images_keep_their_channels() -> None:
    real = torch.zeros(1, 1, 2, 2, 3)
    real[..., 2] = 1.0
    assert compose({"image": OpenLoop(real, real, real)})[0, 0].tolist() == [0, 0, 255]


def test_a_run_is_drawn_and_its_replay_stays_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    run = make_run(tmp_path, "train.steps=60", task="catch_pixels")
    assert pipeline.main(run, plain=False, resume=False) == 0
    before = run.replay_path.read_bytes()
    out = tmp_path / "dream.png"
    words = ["dream", str(run.path), "--out", str(out), "--rows", "2", "--context", "3"]
    assert main(words) == 0
    assert "wrote" in capsys.readouterr().out
    picture = np.asarray(image.open(out))
    assert picture.shape[2] == 3 and picture.max() == 255
    assert run.replay_path.read_bytes() == before
    many = "12"
    assert int(many) > load_config(run).train.batch_size
    assert main([*words[:4], "--rows", many, "--context", "3"]) == 0
    assert len(np.asarray(image.open(out))) > 5 * len(picture), "as many as were asked for"
    capsys.readouterr()
    assert main([*words[:-1], "99"]) == 2
    assert "context" in capsys.readouterr().err
    assert main([*words, "--fps", "9"]) == 2
    assert "--fps has no effect" in capsys.readouterr().err
    assert main(["dream", str(run.path), "--numbers", "--rows", "2"]) == 2
    assert "--rows has no effect without a picture" in capsys.readouterr().err


def test_a_run_is_drawn_after_its_environment_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint says what it saw, and what it saw is in its replay."""
    run = make_run(tmp_path, "train.steps=60", task="catch_pixels")
    assert pipeline.main(run, plain=False, resume=False) == 0

    def gone(*_: object) -> None:
        raise ValueError("there is no such environment any more")

    monkeypatch.setattr(envs, "spec_of", gone)
    monkeypatch.chdir(tmp_path)
    words = ["dream", run.name, "--runs-dir", str(tmp_path)]
    assert main([*words, "--numbers"]) == 0 and main(words) == 0
    assert (tmp_path / "dream.png").exists()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.steps=60")
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        draw(run, tmp_path / "x.png")
    assert pipeline.main(run, plain=False, resume=False) == 0
    with pytest.raises(NothingToSee, match="no images"):
        draw(run, tmp_path / "x.png")


def test_the_film_of_a_dream_shows_every_step(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    run = make_run(tmp_path, "train.steps=60", task="catch_pixels")
    assert pipeline.main(run, plain=False, resume=False) == 0
    gif = tmp_path / "dream.gif"
    words = ["dream", str(run.path), "--gif", str(gif), "--rows", "2", "--context", "3"]
    assert main(words) == 0
    assert not (tmp_path / "dream.png").exists()
    with image.open(gif) as film:
        assert film.n_frames >= 8, "a batch has 8 steps; the last is held"
        width, _ = film.size
        first = np.asarray(film.convert("RGB"))
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("RGB"))
    assert width == 3 * 128 + 2 * 6
    assert (first != last).any()


def test_names_and_steps_stand_beside_the_images(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    run = make_run(tmp_path, "train.steps=60", task="catch_pixels")
    assert pipeline.main(run, plain=False, resume=False) == 0
    result = dreams(run, load(run), rows=2, context=3, seed=0)
    assert result.reward.prediction.shape == result.cont.real.shape == (2, 8)
    assert ((result.cont.real == 0) | (result.cont.real == 1)).all()
    assert ((result.cont.prediction >= 0) & (result.cont.prediction <= 1)).all()
    bare, named = compose(result.images), labelled(result)
    assert named.shape[0] > 2 * bare.shape[0] - 50 and named.shape[1] > 2 * bare.shape[1]
    assert (named[:, :40] > 150).any(), "names on the left"
    assert (named[:16] > 100).any(), "steps above"
