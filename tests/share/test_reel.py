"""Films of an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import make_run, newest

from dreamer_async import envs
from dreamer_async.agent.states import RSSMState
from dreamer_async.agent.trainer import Trainer
from dreamer_async.cli import main
from dreamer_async.config import from_dict
from dreamer_async.run import pipeline
from dreamer_async.run.evaluate import evaluate
from dreamer_async.share.reel import coloured, critic, evaluate_filmed
from dreamer_async.store.checkpoint_layout import AGENT, TRAINER, under
from dreamer_async.store.run_dir import RunDir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A toy run with images that was trained for a moment."""
    run = make_run(tmp_path_factory.mktemp("runs"), "train.steps=60", task="catch_pixels")
    assert pipeline.main(run, plain=False, resume=False) == 0
    return run


def test_a_film_shows_the_episodes_of_the_first_environment(run: RunDir, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    gif = tmp_path / "x.gif"
    plain = evaluate(run.path, 3, 5, device="cpu")
    result, said = evaluate_filmed(run.path, 3, 5, device="cpu", files=(None, gif), fps=10)
    assert result == plain, "filming changes no score"
    lengths = result.lengths
    assert "1 of 3 episodes, 8 steps" in said and set(lengths) == {7}
    with image.open(gif) as film:
        assert film.n_frames == 8 and film.size == (384, 384)


def test_the_overlay_is_below_the_picture(run: RunDir, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    gif = tmp_path / "x.gif"
    evaluate_filmed(run.path, 1, 5, device="cpu", files=(None, gif), fps=10, overlay=True)
    with image.open(gif) as film:
        assert film.size == (384, 400)
        line = np.asarray(film.convert("RGB"))[384:]
        assert (line > 150).any(), "something is written"


def test_the_value_is_that_of_the_critic(run: RunDir) -> None:
    found, generator = newest(run), torch.Generator().manual_seed(0)
    for name, weight in found.tensors.items():  # the critic of so short a run says 0 to everything
        if name.startswith(f"{AGENT}val."):
            weight.copy_(torch.randn(weight.shape, generator=generator))
    config = from_dict(found.manifest["config"])
    trainer = Trainer(envs.spec_of(config.env), config)
    trainer.load_state_dict(under(found.tensors, TRAINER))
    agent = trainer.agent
    model = config.model
    with torch.no_grad():
        deter = torch.randn(1, model.deter, generator=generator)
        state = RSSMState(deter, torch.rand(1, model.stoch, model.classes, generator=generator))
        expected = float(agent.val.mean(agent.val(state.feat)))
    assert expected != 0 and critic(found)(state) == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_filmed_is_one_line_and_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run: RunDir
) -> None:
    pytest.importorskip("PIL")
    vectors = make_run(tmp_path, "train.steps=60")
    assert pipeline.main(vectors, plain=False, resume=False) == 0
    gif = tmp_path / "x.gif"
    for words, part in (
        (["eval", str(vectors.path), "-n", "1", "--gif", str(gif)], "draws no picture of itself"),
        (["eval", str(run.path), "--gif", str(tmp_path / "x.mov")], "ends in .gif"),
        (["eval", str(run.path), "--gif", str(tmp_path / "no" / "x.gif")], "existing directory"),
        (["eval", str(run.path), "--overlay"], "--overlay needs"),
        (["dream", str(run.path), "--gif", str(tmp_path / "x.png")], "ends in .gif"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert part in error and error.count("\n") == 1
    assert not [path for path in tmp_path.iterdir() if path != vectors.path]


def test_colours_of_any_number_of_channels() -> None:
    gray = np.full((2, 2, 1), 7, np.uint8)
    assert coloured(gray).tolist() == np.full((2, 2, 3), 7).tolist()
    assert coloured(np.arange(16, dtype=np.uint8).reshape(2, 2, 4))[0, 0].tolist() == [0, 1, 2]
