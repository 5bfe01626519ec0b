"""Ranks of a real run: one stream, one limiter, one checkpoint, and one end for all."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fault_runs import Ledger, log, until
from parallel.rank_runs import RankServer
from tiny_run import extend, make_run, newest, read

from dreamer_async.store import events
from dreamer_async.store.run_dir import RunDir

LONG = ("train.steps=1_000_000", "train.checkpoint_seconds=0.2")
SHORT = ("train.steps=120", "train.sync=true", "train.checkpoint_seconds=1000")


@pytest.fixture(scope="module")
def ranks() -> Iterator[RankServer]:
    server = RankServer()
    yield server
    server.close()


def seen(run: RunDir, kind: type) -> list[events.Event]:
    return [event for event in read(run) if isinstance(event, kind)]


def finished(run: RunDir) -> events.RunFinished:
    last = read(run)[-1]
    assert isinstance(last, events.RunFinished), log(run)
    return last


def test_steps_and_updates_are_those_of_one_process_and_the_same_bits_come_again(
    ranks: RankServer, tmp_path: Path
) -> None:
    runs = [make_run(tmp_path / str(n), *SHORT, task="seek") for n in range(3)]
    codes = [ranks.train(run, count) for run, count in zip(runs, (2, 2, 1), strict=True)]
    assert codes == [[0, 0], [0, 0], [0]], log(runs[0])
    one, two, alone = (newest(run) for run in runs)
    for name in ("env_steps", "updates", "ratio_debt"):
        assert one.manifest[name] == alone.manifest[name], name
    assert one.manifest["updates"] > 5
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, two.tensors[name]), name
    trained = [name for name in one.tensors if name.startswith("trainer/agent.")]
    assert any(not torch.equal(one.tensors[n], alone.tensors[n]) for n in trained), "control"
    [started] = seen(runs[0], events.RunStarted)
    assert isinstance(started, events.RunStarted) and started.ranks == 2
    numbers = {e.env_id for e in read(runs[0]) if isinstance(e, events.Episode)}
    assert numbers & {0, 1} and numbers & {2, 3} and numbers <= {0, 1, 2, 3}


def test_a_killed_rank_ends_all_others_and_the_run_goes_on_with_what_there_is(
    ranks: RankServer, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *LONG, task="seek")
    ledger = Ledger(run)
    assert ranks.train(run, kill=(1, "saved", 0.0)) == [77, -signal.SIGKILL], log(run)
    assert finished(run).exit_code == 77 and "rank" in finished(run).message
    assert ledger.faults() == []
    assert ranks.train(run, resume=True, kill=(0, "begun", 0.0))[1] == 77, log(run)
    assert "error: rank 0" in log(run), "its connection, its silence or its end told of it"
    assert ranks.train(*until(run, ledger), resume=True) == [0, 0], log(run)
    assert ledger.resumed() == []


def test_a_run_goes_on_with_another_number_of_ranks(ranks: RankServer, tmp_path: Path) -> None:
    run = make_run(tmp_path, *SHORT, task="seek")
    for life, count in enumerate((4, 1, 2)):
        extend(run, f"train.steps={80 * (life + 1)}")
        assert ranks.train(run, count, resume=life > 0) == [0] * count, log(run)
        assert newest(run).manifest["env_steps"] == 80 * (life + 1)
        assert len(newest(run).manifest.get("ranks", [])) == count - 1
    assert "the replay of 4 ranks was dropped" in log(run)
    assert "the replay of 1 rank was dropped" in log(run)


def test_earlier_replays_of_ranks_are_not_counted_again(ranks: RankServer, tmp_path: Path) -> None:
    """As on machines with a disk each, between which a queue moves the run."""
    run, away = make_run(tmp_path, *SHORT, task="seek"), tmp_path / "away"
    assert ranks.train(run) == [0, 0], log(run)
    (run.path / "ranks").rename(away)
    for steps in (160, 200):
        extend(run, f"train.steps={steps}")
        assert ranks.train(run, resume=True) == [0, 0], log(run)
        (run.path / "ranks").rename(tmp_path / f"of {steps}")
        away.rename(run.path / "ranks")
        away = tmp_path / f"of {steps}"
    at = [event.env_steps for event in read(run) if isinstance(event, events.Resumed)]
    assert at == [120, 160] and newest(run).manifest["env_steps"] == 200
    assert list(newest(run).manifest["ranks"][0]["counted"].values()) == [20, 60 + 20]


def test_what_fails_on_one_rank_is_saved_and_told_by_rank_0(
    ranks: RankServer, tmp_path: Path
) -> None:
    run = make_run(tmp_path, "train.steps=1_000_000", "train.checkpoint_seconds=1000", task="seek")
    assert ranks.train(run, inject={1: {"environment_lies": 60}}) == [69, 69], log(run)
    assert finished(run).exit_code == 69 and finished(run).message.startswith("rank 1: ")
    assert len(seen(run, events.Checkpointed)) == 1
    assert len(newest(run).manifest["ranks"]) == 1


COMPILING = ("train.compile=true", "train.capture=false", *SHORT)


def test_what_one_rank_cannot_compile_all_run_without(ranks: RankServer, tmp_path: Path) -> None:
    run = make_run(tmp_path, *COMPILING, task="seek")
    failing = {0: {"compiles": "works"}, 1: {"compiles": "fails"}}
    assert ranks.train(run, inject=failing) == [0, 0], log(run)
    said = {event.message for event in read(run) if isinstance(event, events.Warned)}
    slower = "updates are not compiled, which makes them slower"
    assert {f"{slower}: another rank cannot do it", f"rank 1: {slower}: no compiler"} <= said
    assert newest(run).manifest["updates"] > 5


def test_what_one_rank_has_no_native_functions_for_all_compute_without(
    ranks: RankServer, tmp_path: Path
) -> None:
    runs = [make_run(tmp_path / str(n), *SHORT, task="seek") for n in range(2)]
    lacks = {"no_native_functions": "no C++ compiler"}
    assert ranks.train(runs[0], inject={1: lacks}) == [0, 0], log(runs[0])
    said = [event.message for event in read(runs[0]) if isinstance(event, events.Warned)]
    slower = "updates are slower without native functions: rank 1 has none: no C++ compiler"
    assert slower in said and newest(runs[0]).manifest["updates"] > 5
    wrong: dict[str, object] = {"ranks_agree_on_nothing": 0}
    assert ranks.train(runs[1], inject={0: wrong, 1: wrong | lacks}) == [77, 77], "control"
    assert "rank 1 has other weights" in finished(runs[1]).message


def test_a_rank_that_has_no_memory_to_compile_ends_all(ranks: RankServer, tmp_path: Path) -> None:
    run = make_run(tmp_path, *COMPILING, task="seek")
    failing = {0: {"compiles": "works"}, 1: {"compiles": "ends"}}
    assert ranks.train(run, inject=failing) == [71, 71], log(run)
    assert finished(run).message.startswith("rank 1: out of memory")


def test_a_rank_that_cannot_begin_is_not_waited_for(ranks: RankServer, tmp_path: Path) -> None:
    run = make_run(tmp_path, *SHORT, task="seek")
    assert ranks.train(run, inject={1: {"replay_does_not_fit": 1}}) == [74, 74], log(run)
    said = finished(run).message
    assert said.startswith("rank 1: ") and said.endswith("no room for the replay")
    assert not list(run.checkpoints.iterdir())


def test_ranks_that_hold_other_weights_are_found_before_anything_is_saved(
    ranks: RankServer, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *SHORT, task="seek")
    assert ranks.train(run, inject={1: {"weights_drift": 3}}) == [77, 77], log(run)
    assert "rank 1 has other weights" in finished(run).message
    assert not list(run.checkpoints.iterdir())


def test_a_signal_to_all_ranks_saves_once_more_and_ends_well(
    ranks: RankServer, tmp_path: Path
) -> None:
    run = make_run(tmp_path, "train.steps=1_000_000", "train.checkpoint_seconds=3", task="seek")
    assert ranks.train(run, signal=signal.SIGTERM) == [0, 0], log(run)
    assert finished(run).reason == "stopped"
    assert newest(run).manifest["env_steps"] == finished(run).env_steps
