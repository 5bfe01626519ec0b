"""The fault matrix, row of the dashboards: whatever happens to them, the run does not notice."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fault_runs import PATIENCE, SEEK, Ledger, Server
from tiny_run import make_run, newest

from dreamer_async.config import from_dict
from dreamer_async.envs import spec
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.setup import stored_ring_spec
from dreamer_async.store import events
from dreamer_async.store.json_file import read_json
from dreamer_async.store.run_dir import RunDir
from tests.run.test_pipeline import is_after, still
from tests.tui.test_process import Terminal

pytestmark = pytest.mark.faults


def saves_updates(event: events.Event) -> bool:
    return isinstance(event, events.Checkpointed) and event.updates > 0


def fingerprint(run: RunDir) -> dict[str, str]:
    """The md5 of everything that a trainer keeps: ring, latents, config, checkpoints, lock."""
    kept = [run.replay_path, run.latents_path, run.config_path, run.lock_path]
    kept += [path for path in run.checkpoints.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(run.path)): hashlib.md5(path.read_bytes()).hexdigest() for path in kept
    }


@contextmanager
def dashboard(run: RunDir) -> Iterator[Terminal]:
    """A real dashboard that has drawn the run."""
    terminal = Terminal(run)
    try:
        terminal.wait_for(b"PAUSED", PATIENCE)
        yield terminal
    finally:
        terminal.close()


@pytest.mark.slow
def test_dashboards_that_are_suspended_and_killed_leave_the_run_alone(
    server: Server, tmp_path: Path
) -> None:
    """Two at a time, so that neither is the only one; the ring stays the same to the last bit."""
    run = make_run(tmp_path, *SEEK, task="seek")
    ledger = Ledger(run)
    with server.start(run, {"gauges_often": 0.1}) as trainer:
        trainer.wait_for(saves_updates)
        run.request("pause")
        held = still(trainer)
        before = fingerprint(run)
        with dashboard(run) as suspended, dashboard(run) as killed:
            assert fingerprint(run) == before
            suspended.process.send_signal(signal.SIGSTOP)
            run.request("resume")
            trainer.wait_for(is_after(held))
            killed.process.kill()
            run.request("pause")
            held = still(trainer)
            before = fingerprint(run)
            suspended.process.kill()
            assert suspended.process.wait(PATIENCE) == -signal.SIGKILL
            assert fingerprint(run) == before
        run.request("resume")
        trainer.wait_for(is_after(held))
        run.request("stop")
        assert trainer.wait() == 0
    assert ledger.faults() == []
    assert newest(run).manifest["updates"] > held


def test_a_look_that_writes_into_the_ring_is_caught(server: Server, tmp_path: Path) -> None:
    """The control: what trainers do, and no dashboard."""
    run = make_run(tmp_path, *SEEK, "train.steps=40", task="seek")
    assert server.train(run) == 0
    before = fingerprint(run)
    ring = stored_ring_spec(
        from_dict(read_json(run.config_path)), spec("toy", "seek"), run.replay_path
    )
    Replay.open(run.replay_path, run.latents_path, ring, seed=0, readonly=True).close()
    assert fingerprint(run) == before
    with Replay.open(run.replay_path, run.latents_path, ring, seed=0) as replay:
        replay.claim()
    changed = {name for name, md5 in fingerprint(run).items() if before[name] != md5}
    assert "replay.ring" in changed
