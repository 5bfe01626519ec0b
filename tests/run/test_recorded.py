"""Runs that learn from another run's replay: what is copied, how they end, and going on online."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fault_runs import Server, log
from tiny_run import extend, make_run, newest, read

from dreamer_async.config import from_dict, to_dict
from dreamer_async.envs import spec_of
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.setup import stored_ring_spec
from dreamer_async.run import parts, pipeline
from dreamer_async.store import events
from dreamer_async.store.json_file import read_json, write_json_atomic
from dreamer_async.store.run_dir import RunDir

STEPS = 200


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that has ended."""
    run = make_run(tmp_path_factory.mktemp("source"), f"train.steps={STEPS}", "train.sync=true")
    assert pipeline.main(run, plain=False, resume=False) == 0
    return run


def learner_of(source: RunDir, root: Path, *overrides: str) -> RunDir:
    """A new run that is to learn from the replay of another."""
    run = make_run(root, f"replay.source={source.path}", "train.updates=20", *overrides)
    return run


def stored(run: RunDir) -> dict[str, list[np.ndarray[Any, Any]]]:
    """Columns of every environment."""
    config = from_dict(read_json(run.config_path))
    ring, latents = run.replay_paths()
    spec = stored_ring_spec(config, spec_of(config.env), ring)
    with Replay.open(ring, latents, spec, seed=0, readonly=True) as replay:
        return {name: [rows.copy() for rows in columns] for name, columns in replay.stored()}


def same_steps(one: RunDir, two: RunDir, last: int | None = None) -> bool:
    """Whether two replays hold the same steps, or the first the last ones of the second."""
    mine, other = stored(one), stored(two)
    return all(
        np.array_equal(a, b if last is None else b[-last:])
        for name in mine.keys() - {"deter", "stoch", "valid"}
        for a, b in zip(mine[name], other[name], strict=True)
    )


def ends(run: RunDir) -> list[tuple[str, int, int]]:
    return [
        (e.reason, e.env_steps, e.updates) for e in read(run) if isinstance(e, events.RunFinished)
    ]


def weights(run: RunDir) -> dict[str, torch.Tensor]:
    return {n: t for n, t in newest(run).tensors.items() if n.startswith("trainer/agent.")}


def test_updates_are_made_of_recorded_steps_and_no_environment_is_opened(
    source: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_env(*_: Any) -> None:
        raise AssertionError("an environment was opened")

    monkeypatch.setattr(parts, "make_env", make_env)
    run = learner_of(source, tmp_path)
    assert pipeline.main(run, plain=False, resume=False) == 0
    assert ends(run) == [("completed", 0, 20)]
    assert same_steps(run, source)
    said = [e.message for e in read(run) if isinstance(e, events.Warned) and e.level == "info"]
    assert f"{STEPS} recorded steps of {source.path} are in the replay" in said
    other = make_run(tmp_path, "train.steps=100")
    assert pipeline.main(other, plain=False, resume=False) == 1, "an ordinary run opens some"


def test_the_same_seed_learns_the_same_and_another_does_not(source: RunDir, tmp_path: Path) -> None:
    found = []
    for seed in (1, 1, 2):
        run = learner_of(source, tmp_path, f"train.seed={seed}", "train.updates=5")
        assert pipeline.main(run, plain=False, resume=False) == 0
        found.append(weights(run))
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
    assert not all(torch.equal(tensor, found[2][name]) for name, tensor in found[0].items())


def test_lockstep_changes_nothing_where_nothing_is_collected(
    source: RunDir, tmp_path: Path
) -> None:
    run, other = (
        learner_of(source, tmp_path, f"train.sync={sync}", "train.updates=5")
        for sync in ("true", "false")
    )
    for each in (run, other):
        assert pipeline.main(each, plain=False, resume=False) == 0
    mine, theirs = weights(run), weights(other)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def test_of_more_steps_than_there_is_room_for_the_newest_are_kept(
    source: RunDir, tmp_path: Path
) -> None:
    run = learner_of(source, tmp_path, "replay.capacity=100", "train.updates=1")
    assert pipeline.main(run, plain=False, resume=False) == 0
    kept = len(stored(run)["reward"][0])
    assert kept == 25 and same_steps(run, source, last=kept)
    assert not same_steps(run, source)


def test_a_run_goes_on_with_more_updates_and_then_with_environments(
    source: RunDir, tmp_path: Path
) -> None:
    run = learner_of(source, tmp_path)
    assert pipeline.main(run, plain=False, resume=False) == 0
    more = ["train.updates=30"]
    assert pipeline.main(run, plain=False, resume=True, overrides=more) == 0
    online = ["train.updates=0", "train.steps=80"]
    assert pipeline.main(run, plain=False, resume=True, overrides=online) == 0
    first, second, third = ends(run)
    assert (first, second) == (("completed", 0, 20), ("completed", 0, 30))
    assert third[1] == 80 and third[2] > 30, "its own steps are counted from nothing"
    assert len(stored(run)["reward"][0]) == STEPS / 4 + 80 / 4
    begun = np.stack(stored(run)["is_first"])[:, STEPS // 4]
    assert begun.all(), "a new episode begins in every environment"


def test_recorded_steps_that_are_filled_in_again_are_none_of_the_run(
    source: RunDir, tmp_path: Path
) -> None:
    run = learner_of(source, tmp_path)
    assert pipeline.main(run, plain=False, resume=False) == 0
    run.free_replay()
    more = ["train.updates=30"]
    assert pipeline.main(run, plain=False, resume=True, overrides=more) == 0
    assert ends(run)[-1] == ("completed", 0, 30) and same_steps(run, source)
    (resumed,) = (e for e in read(run) if isinstance(e, events.Resumed))
    assert (resumed.env_steps, resumed.lost_updates) == (0, 0.0)


@pytest.mark.parametrize("pieces", [0, 1, 3, 4])
def test_a_kill_while_the_replay_is_filled_leaves_an_empty_one_which_is_filled_again(
    server: Server, source: RunDir, tmp_path: Path, pieces: int
) -> None:
    """Wherever between the steps of one environment and those of the next, and after the last."""
    run = learner_of(source, tmp_path)
    assert server.train(run, {"dies_filling_the_replay": pieces}) == -signal.SIGKILL, log(run)
    assert run.replay_path.exists() and [len(r) for r in stored(run)["reward"]] == [0, 0, 0, 0]
    assert pipeline.main(run, plain=False, resume=True) == 0
    assert ends(run) == [("completed", 0, 20)] and same_steps(run, source)


def test_a_killed_run_goes_on_from_its_checkpoint_without_its_source(
    server: Server, source: RunDir, tmp_path: Path
) -> None:
    run = learner_of(source, tmp_path, "train.updates=100000", "train.checkpoint_seconds=0.2")
    assert server.train(run, kill_after="saved") == -signal.SIGKILL, log(run)
    before = newest(run).manifest["updates"]
    assert before > 0
    extend(run, f"train.updates={before + 10}", f"replay.source={tmp_path / 'gone'}")
    assert pipeline.main(run, plain=False, resume=True) == 0
    resumed = [e for e in read(run) if isinstance(e, events.Resumed)]
    assert [(e.env_steps, e.updates) for e in resumed] == [(0, before)]
    assert ends(run)[-1] == ("completed", 0, before + 10)
    assert same_steps(run, source)


def test_a_pause_and_a_stop_are_heard(server: Server, source: RunDir, tmp_path: Path) -> None:
    run = learner_of(source, tmp_path, "train.updates=100000")
    with server.start(run) as trainer:
        trainer.wait_for(lambda event: isinstance(event, events.Metrics))
        for word in ("pause", "resume", "stop"):
            run.request(word)
        assert trainer.wait() == 0, log(run)
    done = [e.command for e in read(run) if isinstance(e, events.Controlled)]
    assert done == ["pause", "resume", "stop"] and ends(run)[0][0] == "stopped"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env.num_envs=2"], "has the steps of 4 environments, so env.num_envs cannot be 2"),
        (["train.batch_length=60"], "50 steps in a row, but a sequence takes 61"),
        (["replay.source=/nowhere"], "/nowhere is neither a run nor a folder of episodes"),
        (["replay.source="], "there is nothing recorded to learn from"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_and_leaves_no_replay(
    source: RunDir,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    message: str,
) -> None:
    run = learner_of(source, tmp_path, *overrides)
    assert pipeline.main(run, plain=False, resume=False) == 2
    assert message in capsys.readouterr().err
    assert not run.replay_path.exists() and not run.latents_path.exists()


def test_a_replay_of_another_task_is_refused(
    source: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = learner_of(source, tmp_path)
    config = from_dict(read_json(run.config_path))
    config = replace(config, env=replace(config.env, task="reach"))
    write_json_atomic(run.config_path, to_dict(config))
    assert pipeline.main(run, plain=False, resume=False) == 2
    assert "this run needs" in capsys.readouterr().err


# -- weights of another run ------------------------------------------------------------------


def begun_with(run: RunDir) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Weights before the first update, and what was said of them."""
    assert pipeline.main(run, plain=False, resume=False) == 0
    said = [e.message for e in read(run) if isinstance(e, events.Warned) and e.level == "info"]
    return weights(run), said


STILL = ("train.steps=20",)
"""So few steps that nothing is learned."""


def test_a_new_run_begins_with_the_weights_of_another(source: RunDir, tmp_path: Path) -> None:
    there = weights(source)
    mine, said = begun_with(make_run(tmp_path, *STILL, f"train.init={source.path}"))
    assert all(torch.equal(tensor, there[name]) for name, tensor in mine.items())
    count = len(mine)
    path = newest(source).path
    assert said == [f"began with {count} of the {count} tensors of all networks, from {path}"]
    fresh, said = begun_with(make_run(tmp_path, *STILL))
    assert not said and not all(torch.equal(fresh[name], t) for name, t in there.items())


def test_it_may_take_the_world_model_alone(source: RunDir, tmp_path: Path) -> None:
    there = weights(source)
    fresh, _ = begun_with(make_run(tmp_path, *STILL))
    init = f"train.init={source.path}", "train.init_parts=world_model"
    mine, said = begun_with(make_run(tmp_path, *STILL, *init))
    for name, tensor in mine.items():
        part = name.removeprefix("trainer/agent.").split(".")[0]
        origin = fresh if part in ("pol", "val", "slowval") else there
        assert torch.equal(tensor, origin[name]), name
    assert "of the world model, from" in said[0]


def test_what_does_not_fit_is_named_and_stays_random(source: RunDir, tmp_path: Path) -> None:
    """Another task: other actions and observations."""
    there = weights(source)
    mine, said = begun_with(make_run(tmp_path, *STILL, f"train.init={source.path}", task="reach"))
    fresh, _ = begun_with(make_run(tmp_path, *STILL, task="reach"))
    taken = [n for n, t in mine.items() if n in there and t.shape == there[n].shape]
    assert all(torch.equal(mine[name], there[name]) for name in taken)
    others = mine.keys() - set(taken)
    assert others and all(torch.equal(mine[name], fresh[name]) for name in others)
    assert said[0].startswith(f"began with {len(taken)} of the {len(mine)} tensors")
    assert said[1].startswith("random as in a new run: ") and " there)" in said[1]


def test_weights_of_which_none_fits_are_refused(
    source: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = ("model.deter=64", "model.hidden=16", "model.units=16", "model.stoch=8", "model.bins=51")
    run = make_run(tmp_path, *STILL, *wide, "model.depth=4", f"train.init={source.path}")
    code = pipeline.main(run, plain=False, resume=False)
    said = capsys.readouterr().err
    assert code == 65 and "none of its weights fits" in said
