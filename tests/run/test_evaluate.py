"""Scoring a trained agent."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import TINY

import dreamer_async
from dreamer_async import cli
from dreamer_async.config import Config, ConfigError, from_dict, resolve, to_dict
from dreamer_async.envs.spec import StepBatch
from dreamer_async.fast.place import take_place
from dreamer_async.run import pipeline
from dreamer_async.run.aio import OwnedThread
from dreamer_async.run.evaluate import LONGEST, Evaluator, Scores, evaluate, play
from dreamer_async.run.saved_agent import SavedAgent
from dreamer_async.run.telemetry import Telemetry
from dreamer_async.run.weights import PolicyWeights
from dreamer_async.store import checkpoint
from dreamer_async.store.events import Controlled, Evaluated, Event
from dreamer_async.store.run_dir import RunDir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A toy run that was trained for a moment."""
    root = tmp_path_factory.mktemp("runs")
    config = resolve("toy", "catch", size="tiny", overrides=(*TINY, "train.steps=60"))
    run = RunDir.create(root, "toy-catch", config=to_dict(config))
    assert pipeline.main(run, plain=False, resume=False) == 0
    return run


def test_scores_are_complete_and_repeatable(run: RunDir) -> None:
    first = evaluate(run.path, episodes=11, seed=5, device="cpu")
    assert first == evaluate(run.path, episodes=11, seed=5, device="cpu")
    assert first.episodes == 11 and first.task == "toy/catch" and first.run == run.name
    assert first.frames_per_step == 1 and first.frames == first.env_steps >= 60
    scores = np.array(first.scores)
    assert scores.shape == (11,) and set(scores) <= {-1.0, 1.0} and len(first.lengths) == 11
    assert (first.mean, first.std) == pytest.approx((scores.mean(), scores.std()))
    assert (first.min, first.median, first.max) == (
        scores.min(),
        float(np.median(scores)),
        scores.max(),
    )
    assert first.scores != evaluate(run.path, episodes=11, seed=6, device="cpu").scores
    assert json.loads(json.dumps(first.record()))["scores"] == list(first.scores)


def test_the_best_checkpoint_can_be_played(run: RunDir, tmp_path: Path) -> None:
    only = evaluate(run.path, episodes=3, seed=5, device="cpu", best=True)
    with pytest.raises(ValueError, match="best chooses among the checkpoints of a run"):
        evaluate(next(run.checkpoints.glob("step-*")), episodes=3, device="cpu", best=True)
    assert only == evaluate(run.path, episodes=3, seed=5, device="cpu"), "there is but one"
    copy = tmp_path / run.name
    shutil.copytree(run.path, copy)
    found = checkpoint.read(next(checkpoint.candidates(copy / "checkpoints")))
    manifest = {**found.manifest, "score": 1.0, "env_steps": 1}
    checkpoint.save(copy / "checkpoints", 1, found.tensors, manifest, 2)
    assert evaluate(copy, 1, 0, device="cpu", best=True).env_steps == 1
    assert evaluate(copy, 1, 0, device="cpu").env_steps == found.manifest["env_steps"]


def test_a_run_is_found_by_its_name_and_a_checkpoint_by_its_path(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next(checkpoint.candidates(run.checkpoints))
    ours = evaluate(run.path, episodes=2, device="cpu")
    assert dreamer_async.evaluate(path, 2, device="cpu") == ours
    assert evaluate(run.name, 2, device="cpu", runs_dir=run.path.parent) == ours
    monkeypatch.setenv("DREAMER_RUNS_DIR", str(run.path.parent))
    assert evaluate(episodes=2, device="cpu") == ours and ours.run == run.name
    with pytest.raises(ValueError, match="episodes is 0, but must be at least 1"):
        evaluate(episodes=0)


def test_episodes_are_shared_out_over_the_environments(run: RunDir) -> None:
    agent = dreamer_async.load(run.path)
    tally = Scores(3)
    play(agent.policy, agent.generator, agent.config.env, tally, seed=0)
    assert len(tally.scores) == len(tally.lengths) == 3 and min(tally.lengths) > 0


def test_an_episode_that_does_not_end_is_cut_off_and_counted_as_far_as_it_went(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = evaluate(run.path, 11, 5, device="cpu")
    assert (whole.episodes, whole.cut, whole.longest) == (11, 0, LONGEST)
    cut = evaluate(run.path, 11, 5, device="cpu", longest=4)
    assert (cut.episodes, cut.cut, cut.lengths) == (8, 8, (4,) * 8)
    assert cut.scores == (0.0,) * 8, "the ball has not come down yet"
    words = ["eval", run.name, "--runs-dir", str(run.path.parent), "--device", "cpu", "--json"]
    assert cli.main([*words, "--longest", "4", "-n", "1"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["cut"] == 1
    assert "1 episode did not end within 4 steps" in said.err and "--longest" in said.err
    assert cli.main([*words, "-n", "1"]) == 0
    assert capsys.readouterr().err == ""


def test_an_episode_without_end_is_cut_off_in_the_evaluation_of_a_trainer_too(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody says how long to wait. Environments and actions take their time: without."""

    def endless(policy: Any, noise: Any, env: Any, tally: Scores, seed: int, **_: Any) -> None:
        no = np.zeros(1, bool)
        step = StepBatch(np.zeros(1, np.int32), {}, np.ones(1, np.float32), ~no, no, no)
        while not tally.complete and tally.steps < LONGEST + 10:
            tally.add(step)
            step = step._replace(is_first=no)

    monkeypatch.setattr("dreamer_async.run.evaluate.play", endless)
    agent, kept = dreamer_async.load(run.path, device="cpu"), Kept()
    evaluator = evaluator_of(agent, agent.config, kept)

    async def ask_once() -> None:
        with OwnedThread("evaluation", lambda: torch.set_num_threads(1)) as thread:
            serving = asyncio.create_task(evaluator.serve(thread))
            assert evaluator.ask(1) == ""
            while not kept.events:
                await asyncio.sleep(0.01)
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving

    asyncio.run(asyncio.wait_for(ask_once(), 60))
    answer, *told = kept.events
    assert isinstance(answer, Evaluated)
    assert (answer.lengths, answer.scores) == ((LONGEST,), (float(LONGEST) + 1,))
    why = f"1 of its episodes cut off after {LONGEST:,} steps"
    assert told == [Controlled("evaluate", "done", why)]


def test_a_long_evaluation_says_how_far_it_is(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    evaluate(run.path, 9, 5, device="cpu", say=said.append)
    assert said == []
    monkeypatch.setattr("dreamer_async.run.evaluate.NEWS_SECONDS", -1.0)
    evaluate(run.path, 9, 5, device="cpu", say=said.append)
    assert said[0] == "0 episodes in 8 steps, 9 to come"
    assert said[-1].startswith("9 episodes in ") and "to come" not in said[-1]


def test_an_evaluation_that_the_end_of_its_run_halts_leaves_no_error_behind(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody fetches is reported when everything else is over."""
    agent, kept = dreamer_async.load(run.path, device="cpu"), Kept()
    evaluator = evaluator_of(agent, agent.config, kept)
    stepped, errors = asyncio.Event(), list[dict[str, Any]]()

    async def halt_midway() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: errors.append(context))
        add = Scores.add

        def add_and_tell(scores: Scores, step: Any) -> None:
            add(scores, step)
            loop.call_soon_threadsafe(stepped.set)

        monkeypatch.setattr(Scores, "add", add_and_tell)
        monkeypatch.setattr(Scores, "complete", False)
        with OwnedThread("evaluation", lambda: torch.set_num_threads(1)) as thread:
            serving = asyncio.create_task(evaluator.serve(thread))
            assert evaluator.ask(3) == "" and "running already" in evaluator.ask(3)
            await stepped.wait()
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(asyncio.wait_for(halt_midway(), 60))
    assert errors == [] and kept.events == []


def elsewhere(config: Config) -> Config:
    """The same settings for another task."""
    return replace(config, env=replace(config.env, task="reach"))


@pytest.fixture
def moved(run: RunDir, tmp_path: Path) -> Path:
    """The run of an agent whose task has other observations and actions than when it learned."""
    copy = tmp_path / run.name
    shutil.copytree(run.path, copy)
    found = checkpoint.read(next(checkpoint.candidates(copy / "checkpoints")))
    config = elsewhere(from_dict(found.manifest["config"]))
    manifest = {**found.manifest, "config": to_dict(config)}
    checkpoint.save(copy / "checkpoints", 10**6, found.tensors, manifest, 2)
    return copy


CHANGED = r"toy/reach is not as .*: observation .*; the action is Box\(.*, not Discrete\(3\)"


def test_an_environment_that_has_changed_is_one_line(
    moved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=CHANGED):
        evaluate(moved, 1, device="cpu")
    monkeypatch.setattr("dreamer_async.cli.sharing.on_terminal", lambda: True)
    weights = moved.parent / "weights"
    for words in (["eval"], ["play"], ["export", "--safetensors", str(weights)]):
        capsys.readouterr()
        assert cli.main([*words, str(moved)]) == 2
        said = capsys.readouterr().err
        assert re.search(CHANGED, said) and said.count("\n") == 1
    assert not weights.exists()


def test_training_goes_on_where_an_evaluation_meets_another_environment(run: RunDir) -> None:
    agent = dreamer_async.load(run.path, device="cpu")
    evaluator = evaluator_of(agent, elsewhere(agent.config), Kept())
    assert evaluator.ask(1) == ""
    answer = evaluator._evaluate()
    assert isinstance(answer, Controlled) and answer.answer == "refused"
    assert re.search(CHANGED, answer.reason)


def evaluator_of(agent: SavedAgent, config: Config, kept: Kept) -> Evaluator:
    """What plays with the weights of an agent as if a trainer had just published them."""
    weights = PolicyWeights(agent.policy._weights)
    weights.publish(agent.policy._weights, 1)
    return Evaluator(agent.spec, config, take_place(config.train), weights, Telemetry(kept))


class Kept:
    """A sink that keeps what it is given."""

    dropped = 0

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)
