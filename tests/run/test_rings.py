"""Runs whose replay is another one when they come back: every step counts once."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from experience import Experience, make_spec
from tiny_run import UPDATES_PER_STEP, extend, make_run, newest, read

from dreamer_async import envs
from dreamer_async.config import ConfigError
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.setup import open_replay, room_of
from dreamer_async.run import pipeline
from dreamer_async.run.ranks.follower import answer, begin
from dreamer_async.run.ranks.shared_ratio import MirrorRatio
from dreamer_async.run.run_state import RunState
from dreamer_async.store import checkpoint, events
from dreamer_async.store.checkpoint_layout import MOST_RINGS, counted_steps, with_counted
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.summary import load_config


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A lockstep run that has made 120 steps and has ended."""
    run = make_run(tmp_path, "train.steps=120", "train.sync=true")
    assert pipeline.main(run, plain=False, resume=False) == 0
    return run


def resume(run: RunDir, steps: int) -> events.Resumed:
    """Train a run up to so many steps; where it went on."""
    extend(run, f"train.steps={steps}")
    assert pipeline.main(run, plain=False, resume=True) == 0
    seen = read(run)
    assert isinstance(seen[-1], events.RunFinished) and seen[-1].env_steps == steps
    assert newest(run).manifest["env_steps"] == steps
    return [event for event in seen if isinstance(event, events.Resumed)][-1]


def keep(run: RunDir, place: Path) -> Path:
    """Take the replay of a run away, as on a machine that has it no more."""
    place.mkdir()
    for path in run.replay_path, run.latents_path:
        path.rename(place / path.name)
    return place


def bring_back(run: RunDir, place: Path) -> None:
    for path in place.iterdir():
        path.rename(run.path / path.name)


def drop_last_checkpoint(run: RunDir) -> None:
    """Leave a run as if it had been killed before it saved."""
    for path in newest(run).path.iterdir():
        path.unlink()
    next(checkpoint.candidates(run.checkpoints)).rmdir()


def ring_steps(run: RunDir) -> int:
    return newest(run).manifest["replay_steps"]


def warned(run: RunDir, words: str) -> list[str]:
    said = [event.message for event in read(run) if isinstance(event, events.Warned)]
    return [message for message in said if words in message]


def test_an_earlier_replay_is_not_counted_again(run: RunDir, tmp_path: Path) -> None:
    """As on two machines with a disk each, between which a queue moves the run."""
    first = keep(run, tmp_path / "first")
    assert resume(run, 180).env_steps == 120
    second = keep(run, tmp_path / "second")
    bring_back(run, first)
    back = resume(run, 228)
    assert (back.env_steps, back.lost_updates) == (180, 0.0)
    assert ring_steps(run) == 120 + 48
    assert len(warned(run, "an earlier one of the run")) == 1
    keep(run, first.with_name("again"))
    bring_back(run, second)
    assert resume(run, 240).env_steps == 228
    assert ring_steps(run) == 60 + 12


def test_steps_of_another_time_are_not_continued(run: RunDir, tmp_path: Path) -> None:
    """The environments of the checkpoint stand elsewhere than the last steps of an earlier ring."""
    first = keep(run, tmp_path / "first")
    resume(run, 180)
    keep(run, tmp_path / "second")
    bring_back(run, first)
    resume(run, 228)
    config = load_config(run)
    with open_replay(config, envs.spec_of(config.env), run, resume=True) as replay:
        begins = dict(replay.stored())["is_first"]
        assert [bool(steps[120 // 4]) for steps in begins] == [True] * 4
        del begins


def test_an_earlier_replay_counts_for_what_was_not_counted(run: RunDir, tmp_path: Path) -> None:
    """It was killed after its last checkpoint, and another machine went on from that."""
    assert resume(run, 140).env_steps == 120
    drop_last_checkpoint(run)
    first = keep(run, tmp_path / "first")
    assert resume(run, 180).env_steps == 120
    keep(run, tmp_path / "second")
    bring_back(run, first)
    back = resume(run, 220)
    assert (back.env_steps, back.lost_updates) == (200, 20 * UPDATES_PER_STEP)
    assert ring_steps(run) == 140 + 20


def test_a_replay_that_no_checkpoint_knows_is_counted_in_full(run: RunDir, tmp_path: Path) -> None:
    keep(run, tmp_path / "first")
    resume(run, 160)
    drop_last_checkpoint(run)
    assert resume(run, 180).env_steps == 120 + 40


def test_a_checkpoint_of_an_earlier_version_knows_its_own_replay(
    run: RunDir, tmp_path: Path
) -> None:
    path = newest(run).path / checkpoint.MANIFEST
    manifest = json.loads(path.read_text())
    manifest.pop("counted", None)
    manifest[checkpoint.OWN_HASH] = checkpoint._manifest_hash(manifest)
    path.write_text(json.dumps(manifest))
    first = keep(run, tmp_path / "first")
    assert resume(run, 160).env_steps == 120
    keep(run, tmp_path / "second")
    bring_back(run, first)
    assert resume(run, 200).env_steps == 160


def test_files_that_follow_a_renamed_run_are_not_counted_again(tmp_path: Path) -> None:
    """What the warning advises, to the letter."""
    replays = tmp_path / "replays"
    run = make_run(tmp_path, "train.steps=80", f"replay.directory={replays}", "train.sync=true")
    assert pipeline.main(run, plain=False, resume=False) == 0
    old = run.replay_paths(str(replays))
    moved = RunDir(run.path.rename(tmp_path / "renamed"))
    assert resume(moved, 120).env_steps == 80
    for here, there in zip(old, moved.replay_paths(str(replays)), strict=True):
        here.rename(there)
    assert resume(moved, 160).env_steps == 120
    assert ring_steps(moved) == 80 + 40
    assert len(warned(moved, "moved or renamed")) == 1
    assert len(warned(moved, "an earlier one of the run")) == 1, "and no advice any more"


# -- what a checkpoint keeps ---------------------------------------------------------------------


def test_an_earlier_version_has_kept_what_its_own_replay_had() -> None:
    replay = {"ring": "a", "heads": [3, 4]}
    assert counted_steps({"replay": replay, "replay_steps": 7}) == {"a": 7}
    assert counted_steps({"replay": replay}) == {"a": 7}, "of another rank"
    assert counted_steps({"replay": replay, "counted": {"b": 5, "a": 2}}) == {"b": 5, "a": 2}


@pytest.mark.parametrize("counted", [None, 3, [], {"a": -1}, {"a": True}, {"a": 1.0}, {"a": 1e99}])
def test_counts_that_cannot_be_are_refused(counted: Any) -> None:
    with pytest.raises(ValueError, match="counted: "):
        counted_steps({"replay": {"ring": "a", "heads": [3]}, "counted": counted})


def test_the_replays_that_were_used_last_are_kept() -> None:
    counted: dict[str, int] = {}
    for number in range(MOST_RINGS + 3):
        counted = with_counted(counted, f"ring {number}", number)
        counted = with_counted(counted, "ring 0", 9 * number)
    assert len(counted) == MOST_RINGS
    assert counted["ring 0"] == 9 * (MOST_RINGS + 2) and "ring 4" in counted
    assert not {"ring 1", "ring 2", "ring 3"} & set(counted)


# -- another rank --------------------------------------------------------------------------------


class Rank:
    """The parts of a rank that has a replay and nothing to learn, and its line to rank 0."""

    def __init__(self, replay: Replay) -> None:
        unused: Any = SimpleNamespace()
        state = RunState(unused, replay, unused, unused, unused, unused, lockstep=False)
        state.learned = self.learned
        self.learner = SimpleNamespace(
            updates=0, trainer=None, restore_generator=lambda _: None, publish=lambda: None
        )
        self.learner_thread = self.writer_thread = self
        self.replay, self.state, self.ratio = replay, state, MirrorRatio(8.0, 32)
        self.collector = SimpleNamespace(prefill=1)
        self.known: dict[str, Any] | None = None
        self.said: dict[str, Any] = {}

    def learned(self) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
        return {"learner/generator": torch.zeros(8, dtype=torch.uint8)}, {}

    def same_weights(self, trainer: object) -> None:
        """Hold no weights."""

    async def run(self, function: Any, *args: Any) -> Any:
        return function(*args)

    async def first(self) -> dict[str, Any]:
        return {"known": self.known, "updates": 7, "skipped": 0}

    def send(self, kind: str, **values: Any) -> None:
        self.said = {"kind": kind, **values}

    def begins(self, known: dict[str, Any] | None) -> int:
        """Take up what a checkpoint has kept; the steps that are told to rank 0 as new ones."""
        self.known = known
        parts = team = cast(Any, self)
        asyncio.run(begin(parts, team))
        return self.said["steps"]

    def kept(self) -> dict[str, Any]:
        """What a checkpoint keeps now."""
        parts = team = cast(Any, self)
        asyncio.run(answer(parts, team, 1))
        return json.loads(json.dumps(self.said["kept"]))


@pytest.fixture
def rings(tmp_path: Path) -> Iterator[tuple[Replay, Replay]]:
    spec = make_spec()
    paths = [(tmp_path / f"{name}.ring", tmp_path / f"{name}.latents") for name in "ab"]
    with Replay.create(*paths[0], spec, seed=0) as a, Replay.create(*paths[1], spec, seed=0) as b:
        yield a, b


@pytest.mark.parametrize("version", ["this", "an earlier one"])
def test_another_rank_does_not_count_an_earlier_replay_again(
    rings: tuple[Replay, Replay], version: str
) -> None:
    a, b = rings
    feeds = Experience(a), Experience(b)
    feeds[0].fill(20)
    rank = Rank(a)
    assert rank.begins(None) == 60, "it was killed before its first checkpoint"
    kept = rank.kept()
    if version != "this":
        kept.pop("counted", None)
    feeds[1].fill(5)
    rank = Rank(b)
    assert rank.begins(kept) == 15
    kept = rank.kept()
    feeds[0].fill(2)
    assert Rank(a).begins(kept) == 6
    assert Rank(b).begins(kept) == 0
    assert base64.b64decode(kept["generator"]) == bytes(8)


# -- a directory that is gone --------------------------------------------------------------------


def contents(*places: Path) -> dict[Path, bytes]:
    files = (path for place in places for path in place.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if path.name != "lock"}


def test_a_replay_whose_disk_is_away_is_waited_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk" / "replays"
    run = make_run(tmp_path, "train.steps=80", f"replay.directory={disk}")
    assert pipeline.main(run, plain=False, resume=False) == 0 and disk.is_dir(), (
        "a new run makes it"
    )
    before, at = newest(run).manifest["env_steps"], disk.parent.rename(tmp_path / "away")
    extend(run, "train.steps=120")
    files = contents(run.path)
    capfd.readouterr()
    assert pipeline.main(run, plain=False, resume=True) == 2
    err = capfd.readouterr().err
    assert f"{disk}, does not exist" in err and err.count("\n") == 1
    assert not disk.parent.exists() and contents(run.path) == files
    at.rename(disk.parent)
    assert pipeline.main(run, plain=False, resume=True) == 0
    [resumed] = [event for event in read(run) if isinstance(event, events.Resumed)]
    assert resumed.env_steps == before


def test_a_rank_whose_disk_is_away_makes_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, f"replay.directory={tmp_path / 'disk'}")
    config = load_config(run)
    spec = envs.spec_of(config.env)
    for opens in open_replay, room_of:
        with pytest.raises(ConfigError, match="does not exist"):
            opens(config, spec, run.rank(1), resume=True)
    assert not (tmp_path / "disk").exists() and not run.ranks()
