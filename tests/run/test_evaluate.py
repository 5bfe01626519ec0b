"""Loading a trained agent, acting with it, and scoring it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_run import TINY

import dreamer_async
from dreamer_async import cli
from dreamer_async.config import resolve, to_dict
from dreamer_async.run import pipeline
from dreamer_async.run.evaluate import LONGEST, Scores, evaluate, play
from dreamer_async.run.saved_agent import SavedAgent
from dreamer_async.store import checkpoint
from dreamer_async.store.run_dir import RunDir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A toy run that was trained for a moment."""
    root = tmp_path_factory.mktemp("runs")
    config = resolve("toy", "catch", size="tiny", overrides=(*TINY, "train.steps=60"))
    run = RunDir.create(root, "toy-catch", config=to_dict(config))
    assert pipeline.main(run, plain=False, resume=False) == 0
    return run


def observation(agent: SavedAgent, *batch: int) -> dict[str, np.ndarray]:
    return {n: np.zeros((*batch, *s.shape), s.dtype) for n, s in agent.spec.obs.items()}


def test_scores_are_complete_and_repeatable(run: RunDir) -> None:
    first = evaluate(run, episodes=11, seed=5, device="cpu")
    assert first == evaluate(run, episodes=11, seed=5, device="cpu")
    assert first["episodes"] == 11 and first["task"] == "toy/catch"
    assert first["frames_per_step"] == 1 and first["frames"] == first["env_steps"]
    assert isinstance(first["frames"], int) and first["frames"] >= 60
    scores = np.array(first["scores"])
    assert scores.shape == (11,) and set(scores) <= {-1.0, 1.0}
    assert first["mean"] == pytest.approx(scores.mean())
    assert first["scores"] != evaluate(run, episodes=11, seed=6, device="cpu")["scores"]


def test_the_best_checkpoint_can_be_played(run: RunDir, tmp_path: Path) -> None:
    only = evaluate(run, episodes=3, seed=5, device="cpu", best=True)
    assert only == evaluate(run, episodes=3, seed=5, device="cpu"), "there is but one"
    copy = tmp_path / run.name
    shutil.copytree(run.path, copy)
    found = checkpoint.read(next(checkpoint.candidates(copy / "checkpoints")))
    manifest = {**found.manifest, "score": 1.0, "env_steps": 1}
    checkpoint.save(copy / "checkpoints", 1, found.tensors, manifest, 2)
    assert evaluate(RunDir(copy), 1, 0, "cpu", best=True)["env_steps"] == 1
    assert evaluate(RunDir(copy), 1, 0, "cpu")["env_steps"] == found.manifest["env_steps"]


def test_three_lines_are_enough(run: RunDir) -> None:
    agent = dreamer_async.load(run.path)
    action, carry = agent.act(observation(agent))
    assert action.shape == () and 0 <= int(action) < agent.spec.action.size
    action, carry = agent.act(observation(agent), carry)
    assert action.shape == ()


def test_batched_rows_act_alone_and_can_start_anew(run: RunDir) -> None:
    """Rows do not mix, and is_first wipes the carry: row 1 restarted equals a fresh row."""
    ours, fresh = (dreamer_async.load(run.path, "cpu", seed=3) for _ in range(2))
    _, carry = ours.act(observation(ours, 2))
    _, restarted = ours.act(observation(ours, 2), carry, is_first=[False, True])
    assert not np.array_equal(restarted.deter[0].numpy(), restarted.deter[1].numpy())
    _, new = fresh.act(observation(fresh, 2))
    np.testing.assert_allclose(restarted.deter[1].numpy(), new.deter[1].numpy(), atol=1e-6)


def test_observations_that_do_not_fit_are_named(run: RunDir) -> None:
    agent = dreamer_async.load(run.path)
    with pytest.raises(ValueError, match="is missing"):
        agent.act({})
    name = next(iter(agent.spec.obs))
    with pytest.raises(ValueError, match=name):
        agent.act({name: np.zeros((3, 99, 2), np.float32)})


def test_a_single_checkpoint_can_be_loaded_and_nothing_is_an_error(
    run: RunDir, tmp_path: Path
) -> None:
    path = next(checkpoint.candidates(run.checkpoints))
    assert dreamer_async.load(path).path == path
    with pytest.raises(checkpoint.CheckpointError, match="no valid checkpoint"):
        dreamer_async.load(tmp_path)


def test_episodes_are_shared_out_over_the_environments(run: RunDir) -> None:
    agent = dreamer_async.load(run.path)
    tally = Scores(3)
    play(agent.policy, agent.generator, agent.config.env, tally, seed=0)
    assert len(tally.scores) == len(tally.lengths) == 3 and min(tally.lengths) > 0


def test_an_episode_that_does_not_end_is_cut_off_and_counted_as_far_as_it_went(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = evaluate(run, 11, 5, "cpu")
    assert (whole["episodes"], whole["cut"], whole["longest"]) == (11, 0, LONGEST)
    cut = evaluate(run, 11, 5, "cpu", longest=4)
    assert (cut["episodes"], cut["cut"], cut["lengths"]) == (8, 8, [4] * 8)
    assert cut["scores"] == [0.0] * 8, "the ball has not come down yet"
    words = ["eval", run.name, "--runs-dir", str(run.path.parent), "--device", "cpu", "--json"]
    assert cli.main([*words, "--longest", "4", "-n", "1"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["cut"] == 1
    assert "1 episode did not end within 4 steps" in said.err and "--longest" in said.err
    assert cli.main([*words, "-n", "1"]) == 0
    assert capsys.readouterr().err == ""


def test_a_long_evaluation_says_how_far_it_is(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    evaluate(run, 9, 5, "cpu", say=said.append)
    assert said == []
    monkeypatch.setattr("dreamer_async.run.evaluate.NEWS_SECONDS", -1.0)
    evaluate(run, 9, 5, "cpu", say=said.append)
    assert said[0] == "0 episodes in 8 steps, 9 to come"
    assert said[-1].startswith("9 episodes in ") and "to come" not in said[-1]
