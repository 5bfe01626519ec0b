"""Trainers that are killed and broken on request, and what they must not have lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from tiny_run import extend, read

from dreamer_async.config import Config, from_dict
from dreamer_async.envs import spec
from dreamer_async.envs.suites import toy_tasks
from dreamer_async.parallel.shares import share
from dreamer_async.parallel.world import World
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.setup import stored_ring_spec
from dreamer_async.store import checkpoint, events
from dreamer_async.store.json_file import read_json
from dreamer_async.store.run_dir import RunDir

KILLS = int(os.environ.get("FAULT_KILLS", "30"))
SEEK = ("train.steps=10_000_000", "train.checkpoint_seconds=0.02", "replay.capacity=400")
PATIENCE = 240.0
"""Seconds after which a test stops waiting: many more than anything takes on a busy machine."""


class Forking:
    """A process that forks trainers as it is asked to: a line of JSON each way."""

    def __init__(self, script: Path) -> None:
        tests = Path(__file__).parent
        paths = map(str, (tests, tests.parent, os.environ.get("PYTHONPATH", "")))
        self.seconds = 0.0
        """How long the last trainer lived."""
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Say what is wanted; the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that the process says."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Server(Forking):
    """Forks trainers that are killed or broken as asked; see fault_server.py."""

    def __init__(self) -> None:
        super().__init__(Path(__file__).with_name("fault_server.py"))

    def train(self, run: RunDir, inject: Mapping[str, Any] | None = None, **request: Any) -> int:
        """Run one trainer to its end, as `start` does; its exit code, or minus the signal."""
        return self.start(run, inject, **request).wait()

    def start(
        self,
        run: RunDir,
        inject: Mapping[str, Any] | None = None,
        *,
        resume: bool = False,
        kill_after: float | str | None = None,
        suspended: float = 1.0,
    ) -> Started:
        """Start a trainer and return while it runs; one at a time.

        `kill_after` is a time in seconds, or "saved" for as soon as there is a checkpoint. One
        that suspends itself is continued after `suspended` seconds.
        """
        request = {
            "run": str(run.path),
            "resume": resume,
            "inject": dict(inject or {}),
            "kill_after": kill_after,
            "suspended": suspended,
        }
        return Started(self, run, self.ask(request)["pid"])


class Started:
    """A trainer that runs; leaving its context ends it."""

    def __init__(self, server: Server, run: RunDir, pid: int) -> None:
        self.run, self.pid = run, pid
        self._server = server
        self._code: int | None = None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit code, or minus the signal; one that takes too long is killed."""
        if self._code is None:
            timer = threading.Timer(seconds, os.kill, (self.pid, signal.SIGKILL))
            timer.start()
            answer = self._server.answer()
            timer.cancel()
            self._code, self._server.seconds = int(answer["code"]), float(answer["seconds"])
        return self._code

    def wait_for(self, good: Callable[[events.Event], bool], count: int = 1) -> None:
        """Wait until the run has announced so many such events."""
        self.wait_until(lambda: sum(map(good, read(self.run))) >= count)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that happens while the trainer lives."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.alive(), log(self.run)
            assert time.monotonic() < end, f"never saw {condition}"
            time.sleep(0.02)

    def alive(self) -> bool:
        """Tell whether the trainer has not ended yet."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][0]
        except OSError:
            return False
        return state != "Z"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._code is None:
            with suppress(ProcessLookupError):
                self.send_signal(signal.SIGKILL)
            self.wait()


def log(run: RunDir) -> str:
    """What the trainers of a run have printed."""
    path = run.path / "trainer.log"
    return path.read_text() if path.exists() else ""


class Ledger:
    """What a run has acknowledged so far, and the rules that must hold after every death."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.steps = self.updates = self.saves = 0
        self._reader, self._read = events.EventReader(run.events_path), b""
        self._lives: set[int] = set()

    def faults(self) -> list[str]:
        """Check everything on disk against what was acknowledged; returns what is wrong."""
        wrong = self._new_events()
        found, reasons = checkpoint.newest(self.run.checkpoints)
        if self.saves and found is None:
            wrong.append(f"no checkpoint is left: {reasons}")
        if found is not None and found.manifest["updates"] < self.updates:
            wrong.append(f"update {self.updates} was saved, {found.path.name} is older")
        if any(home.replay_paths()[0].exists() for home in [self.run, *self.run.ranks()]):
            stored, bad = seek_ring(self.run)
            wrong += [f"{bad} wrong steps in the ring"] if bad else []
            if stored < self.steps:
                wrong.append(f"{self.steps} steps were published, the ring knows {stored}")
        return wrong

    def _new_events(self) -> list[str]:
        """Take in what was announced since the last look; returns what is wrong with it."""
        wrong = []
        stream = self.run.events_path.read_bytes() if self.run.events_path.exists() else b""
        if not stream.startswith(self._read):
            wrong.append("acknowledged lines are gone or changed")
        records = self._reader.read()
        self._read = stream[: self._reader.offset]
        self._lives |= {record.generation for record in records}
        if self._reader.skipped > len(self._lives):
            wrong.append(f"{self._reader.skipped} lines torn in {len(self._lives)} lives")
        seen = [record.event for record in records]
        saved = [e for e in seen if isinstance(e, events.Checkpointed)]
        self.saves += len(saved)
        self.updates = max([self.updates, *(e.updates for e in saved)])
        self.steps = max([self.steps, *(getattr(e, "env_steps", 0) for e in seen)])
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
    """Steps that the rings of the task seek hold or held, and how many break the task's rules."""
    config, ranks = from_dict(read_json(run.config_path)), run.ranks()
    if not ranks:
        return _seek_ring(run, config)
    part = share(config, World(0, len(ranks)))
    steps, wrong = zip(*(_seek_ring(rank, part) for rank in ranks), strict=True)
    return sum(steps), sum(wrong)


def _seek_ring(run: RunDir, config: Config) -> tuple[int, int]:
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
    last = int(replay._cursors.head[env])
    first = max(0, int(replay._cursors.reserved[env]) - replay.spec.capacity)
    slots = np.arange(first, last) % replay.spec.capacity
    step = {name: column[env][slots] for name, column in replay._columns.items()}
    goal = step["goal"].astype(int) - toy_tasks.Seek.reach
    started = step["is_first"]
    reward = np.where(started, 0, np.exp2(-np.abs(goal)))
    wrong = ~(np.abs(step["reward"] - reward) <= 1e-6)  # also if it is not a number
    wrong |= started & (np.abs(goal) != toy_tasks.Seek.begin)
    moved = np.clip(goal[:-1] - (step["action"][:-1].astype(int) - 1), -4, 4)
    wrong[1:] |= ~started[1:] & (goal[1:] != moved)
    return int(wrong.sum())


def until(run: RunDir, ledger: Ledger, *overrides: str) -> tuple[RunDir]:
    """Let the next life end a little later."""
    assert ledger.faults() == []
    extend(run, f"train.steps={ledger.steps + 40}", *overrides)
    return (run,)
