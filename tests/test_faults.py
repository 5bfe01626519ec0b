"""The fault matrix: the real trainer is killed, starved and lied to, and nothing is lost.

Every check has a control: a wrong program that the same check catches.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import extend, make_run, newest, read

from dreamer_async import checkpoint, events
from dreamer_async.config import from_dict
from dreamer_async.replay import Replay
from dreamer_async.replay_setup import stored_ring_spec
from dreamer_async.run_dir import RunDir, read_json
from envs import spec, toy

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("FAULT_KILLS", "50"))
SEEK = ("train.steps=10_000_000", "train.checkpoint_seconds=0.02", "replay.capacity=400")


class Server:
    """Forks trainers that are killed or broken as asked; see fault_server.py."""

    def __init__(self) -> None:
        words = [sys.executable, str(Path(__file__).with_name("fault_server.py"))]
        self.seconds = 0.0
        """How long the last trainer lived."""
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def train(
        self,
        run: RunDir,
        inject: Mapping[str, Any] | None = None,
        *,
        resume: bool = False,
        kill_after: float | str | None = None,
    ) -> int:
        """Run one trainer to its end; returns its exit code, or minus the signal.

        `kill_after` is a time in seconds, or "saved" for as soon as there is a checkpoint.
        """
        request = {
            "run": str(run.path),
            "resume": resume,
            "inject": dict(inject or {}),
            "kill_after": kill_after,
        }
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None and pipe_out is not None
        pipe_in.write(json.dumps(request) + "\n")
        pipe_in.flush()
        answer = json.loads(pipe_out.readline())
        self.seconds = float(answer["seconds"])
        return answer["code"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def log(run: RunDir) -> str:
    return (run.path / "trainer.log").read_text()


class Ledger:
    """What a run has acknowledged so far, and the rules that must hold after every death."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.steps = self.updates = self.lines = 0

    def faults(self) -> list[str]:
        """Check everything on disk against what was acknowledged; returns what is wrong."""
        wrong = []
        reader = events.EventReader(self.run.events_path)
        records, skipped = reader.read(), reader.skipped
        generations = {record.generation for record in records}
        if skipped > len(generations):
            wrong.append(f"{skipped} lines torn in {len(generations)} lives")
        if len(records) < self.lines:
            wrong.append(f"{self.lines} lines were acknowledged, {len(records)} are left")
        self.lines = len(records)
        seen = [record.event for record in records]
        saved = [e for e in seen if isinstance(e, events.Checkpointed)]
        self.updates = max([self.updates, *(e.updates for e in saved)])
        found, reasons = checkpoint.newest(self.run.checkpoints)
        if saved and found is None:
            wrong.append(f"no checkpoint is left: {reasons}")
        if found is not None and found.manifest["updates"] < self.updates:
            wrong.append(f"update {self.updates} was saved, {found.path.name} is older")
        self.steps = max([self.steps, *(getattr(e, "env_steps", 0) for e in seen)])
        if self.run.replay_paths()[0].exists():
            stored, bad = seek_ring(self.run)
            wrong += [f"{bad} wrong steps in the ring"] if bad else []
            if stored < self.steps:
                wrong.append(f"{self.steps} steps were published, the ring knows {stored}")
        return wrong

    def resumed(self) -> list[str]:
        """Check where the newest life began."""
        last = [e for e in read(self.run) if isinstance(e, events.Resumed)][-1]
        wrong = []
        if last.env_steps < self.steps:
            wrong.append(f"resumed at step {last.env_steps} after step {self.steps}")
        if last.updates < self.updates:
            wrong.append(f"resumed at update {last.updates} after a save at {self.updates}")
        return wrong


def seek_ring(run: RunDir) -> tuple[int, int]:
    """Steps that a ring of the task seek holds or held, and how many break the task's rules."""
    config = from_dict(read_json(run.config_path))
    ring, latents = run.replay_paths()
    try:
        replay = Replay.open(
            ring,
            latents,
            stored_ring_spec(config, spec("toy", "seek"), ring),
            seed=0,
            readonly=True,
        )
    except FileNotFoundError:  # killed before the latents were made
        return 0, 0
    with replay:
        wrong = sum(wrong_steps(replay, env) for env in range(replay.spec.num_envs))
        return replay.steps, wrong


def wrong_steps(replay: Replay, env: int) -> int:
    """Published steps of one environment that do not follow from the steps before them."""
    last = int(replay._head[env])
    first = max(0, int(replay._reserved[env]) - replay.spec.capacity)
    slots = np.arange(first, last) % replay.spec.capacity
    step = {name: column[env][slots] for name, column in replay._columns.items()}
    goal = step["goal"].astype(int) - toy.Seek.reach
    started = step["is_first"]
    reward = np.where(started, 0, np.exp2(-np.abs(goal)))
    wrong = np.abs(step["reward"] - reward) > 1e-6
    wrong |= started & (np.abs(goal) != toy.Seek.begin)
    moved = np.clip(goal[:-1] - (step["action"][:-1].astype(int) - 1), -4, 4)
    wrong[1:] |= ~started[1:] & (goal[1:] != moved)
    return int(wrong.sum())


# -- 1: kill -9 at any time ------------------------------------------------------------------


def lives(server: Server, run: RunDir, kills: int, inject: Mapping[str, Any]) -> list[str]:
    """Kill a trainer again and again at random moments; returns everything that was wrong.

    The first life ends with its first checkpoint, which says how long the others may last here.
    """
    chance, ledger, wrong, longest = random.Random(0), Ledger(run), [], 0.0
    for life in range(kills):
        moment = chance.uniform(0.0, longest) if life else "saved"
        code = server.train(run, inject, resume=life > 0, kill_after=moment)
        longest = longest or 1.5 * server.seconds
        if code != -signal.SIGKILL:
            return [*wrong, f"life {life} ended by itself with {code}: {log(run)[-500:]}"]
        if run.events_path.exists():
            wrong += [f"life {life}: {fault}" for fault in ledger.faults()]
    return wrong + ([] if inject else revived(server, run, ledger))


def revived(server: Server, run: RunDir, ledger: Ledger) -> list[str]:
    """After all that the run still goes on to its end."""
    extend(run, f"train.steps={ledger.steps + 100}")
    code = server.train(run, resume=True)
    return ledger.resumed() + ([] if code == 0 else [f"exit code {code}: {log(run)[-500:]}"])


def test_kill_9_at_any_time_loses_nothing_that_was_acknowledged(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    assert lives(server, run, KILLS, {}) == []
    saves = [e for e in read(run) if isinstance(e, events.Checkpointed)]
    assert len(saves) >= KILLS / 4, "the kills must hit runs that save"


@pytest.mark.parametrize("mutant", ["acknowledge_first", "overwrite_in_place", "publish_early"])
def test_the_same_check_catches_wrong_programs(server: Server, tmp_path: Path, mutant: str) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    wrong = lives(server, run, 12, {mutant: 1})
    expected = {"publish_early": "wrong steps"}.get(mutant, "checkpoint")
    assert expected in " ".join(wrong), wrong


# -- 2: kill -9 at every call of a save that touches the disk ---------------------------------


def crash_points(server: Server, root: Path, inject: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Die before the first, second, ... such call, each in a new run; returns how many, faults."""
    wrong: list[str] = []
    for point in range(1, 100):
        run = make_run(root / str(point), *SEEK, "train.steps=100", task="seek")
        ledger = Ledger(run)
        code = server.train(run, {**inject, "crash_at": point})
        wrong += [f"point {point}: {fault}" for fault in ledger.faults()]
        if code != -signal.SIGKILL:
            return point - 1, wrong
        code = server.train(run, resume=True)
        wrong += [f"point {point}: {fault}" for fault in ledger.resumed()]
        wrong += [f"point {point}: exit code {code}"] if code else []
        if [path for path in run.checkpoints.iterdir() if path.name.startswith(".")]:
            wrong.append(f"point {point}: litter")
    raise AssertionError("a save has no end")


def test_every_crash_point_of_a_save_gives_the_old_or_the_new(
    server: Server, tmp_path: Path
) -> None:
    points, wrong = crash_points(server, tmp_path, {})
    assert wrong == []
    assert points >= 8, "a save makes, writes, syncs, renames, prunes"


# -- 3, 4: stopping --------------------------------------------------------------------------


def test_a_thread_stuck_in_c_is_bounded_and_the_last_checkpoint_stands(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *SEEK, "train.grace_seconds=1", task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"environment_hangs": 100}) == 75
    assert ledger.faults() == []
    assert newest(run).manifest["updates"] > 0
    assert "not stopped after" in log(run) and "in hang" in log(run)


# -- 5, 6, 20: disks -------------------------------------------------------------------------


def test_a_full_disk_keeps_the_old_checkpoints_and_ends_after_three_tries(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"file_limit": 40_000}) == 74
    assert ledger.faults() == []
    warned = [e for e in read(run) if isinstance(e, events.Warned)]
    assert sum("checkpoint not saved" in e.message for e in warned) == 3
    assert not [path for path in run.checkpoints.iterdir() if path.name.startswith(".")]
    assert server.train(*_until(run, ledger), resume=True) == 0
    assert ledger.resumed() == []


def test_an_fsync_that_fails_is_no_checkpoint(server: Server, tmp_path: Path) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    assert server.train(run, {"fsync_error": 4}) == 74
    saved = [e for e in read(run) if isinstance(e, events.Checkpointed)]
    assert len(saved) == len(list(checkpoint.candidates(run.checkpoints))) == 1


def test_a_ring_that_does_not_fit_is_refused_before_any_environment(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *SEEK, "replay.capacity=1_000_000_000_000", task="seek")
    assert server.train(run, {"environment_aborts": 1}) == 74
    assert "GB" in log(run) and "replay" in log(run)
    assert not run.replay_paths()[0].exists()


# -- 9, 10: environments ---------------------------------------------------------------------


def test_a_process_that_dies_in_c_says_where_and_the_run_goes_on(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"environment_aborts": 80}) == -signal.SIGABRT
    assert ledger.faults() == []
    assert "Fatal Python error: Aborted" in log(run) and "in broken" in log(run)
    assert server.train(*_until(run, ledger), resume=True) == 0
    assert ledger.resumed() == []


def test_a_reward_that_is_not_finite_is_never_stored(server: Server, tmp_path: Path) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"environment_lies": 50}) == 69
    assert "reward" in log(run) and "not finite" in log(run)
    assert ledger.faults() == []


# -- 17: memory ------------------------------------------------------------------------------


def test_running_out_of_memory_names_what_would_help(server: Server, tmp_path: Path) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"memory_runs_out": 20}) == 71
    assert ledger.faults() == []
    assert "out of memory" in log(run) and "train.batch_size" in log(run)
    last = read(run)[-1]
    assert isinstance(last, events.RunFinished) and last.exit_code == 71


# -- 21: another machine ---------------------------------------------------------------------


def test_a_lockstep_resume_with_another_thread_count_warns(server: Server, tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.steps=80", "train.sync=true", task="seek")
    ledger = Ledger(run)
    assert server.train(run) == 0
    assert server.train(*_until(run, ledger, "train.threads=2"), resume=True) == 0
    warned = [e.message for e in read(run) if isinstance(e, events.Warned)]
    assert any("threads 1, goes on with 2" in message for message in warned), warned


def _until(run: RunDir, ledger: Ledger, *overrides: str) -> tuple[RunDir]:
    """Let the next life end a little later."""
    assert ledger.faults() == []
    extend(run, f"train.steps={ledger.steps + 100}", *overrides)
    return (run,)
