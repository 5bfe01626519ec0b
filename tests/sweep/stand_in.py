"""What a trainer does with its run directory, without training: a lock, a stream, steps, an end.

`python stand_in.py RUN PLAN [--resume]` takes the steps that the plan has for the run, fifty a
second, and goes on from those that it has. `python stand_in.py sweep PLAN WORDS...` is a command
`dreamer-async sweep` whose trainers are these. The plan is JSON: run -> steps, "fails" -> a run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dreamer_async.store import exit_codes
from dreamer_async.store.events import EventWriter, PhaseChanged, RunFinished
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.run_lock import RunInUse
from dreamer_async.sweep import work

STEPS_PER_SECOND = 50
SEEN, TAKEN = "seen.txt", "steps.txt"
"""What the trainers of a sweep leave in its directory, and each in that of its run."""


def command(plan: str) -> None:
    """Let trainers of sweeps in this process be stand-ins."""

    def trainer(run: RunDir, overrides: Sequence[str] = (), devices: int = 1) -> list[str]:
        options = ["--resume"] if run.events_path.exists() else []
        return [sys.executable, __file__, str(run.path), plan, *options]

    work.trainer = trainer


def train(run: RunDir, plan: dict[str, object], options: list[str]) -> int:
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    with run.lock(), EventWriter(run.events_path, int("--resume" in options)) as writer:
        writer.emit(PhaseChanged("training", 1, 0))
        note(run, "begins", os.environ.get("CUDA_VISIBLE_DEVICES", "-"), str(options))
        while (taken := steps(run)) < int(str(plan.get(run.name, 2))) and not stop:
            append(run.path / TAKEN, ".")
            time.sleep(1 / STEPS_PER_SECOND)
            stop += [1 for request in run.take_requests() if request.command == "stop"]
        failed = plan.get("fails") == run.name
        reason = "failed" if failed else "stopped" if stop else "completed"
        note(run, reason, str(taken))
        writer.emit(RunFinished(reason, 10, 0, 70 * failed))
    return 70 * failed


def note(run: RunDir, *words: str) -> None:
    """One line, at once, for whoever wants to know what happened in which order."""
    append(run.path.parent / SEEN, f"{' '.join([run.name, *words])}\n")


def append(path: Path, text: str) -> None:
    """Add to a file by one call, which a kill cannot split."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def steps(run: RunDir) -> int:
    """How many steps a run has taken."""
    path = run.path / TAKEN
    return path.stat().st_size if path.exists() else 0


if __name__ == "__main__":
    what, given, *others = sys.argv[1:]
    if what == "sweep":
        from dreamer_async import cli

        command(given)
        sys.exit(cli.main(["sweep", *others]))
    try:
        sys.exit(train(RunDir(Path(what)), json.loads(given), others))
    except RunInUse:
        sys.exit(exit_codes.CANNOT)
