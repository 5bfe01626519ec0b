"""A whole run, overlapped, against its learner alone: what do environments and policy cost?

Both run in processes of their own, as in training, and take turns.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from dreamer_async.bench.apart import BenchError, measure_apart
from dreamer_async.bench.timing import Timing, timing
from dreamer_async.config import Config, override, to_dict
from dreamer_async.envs.children import bound
from dreamer_async.machine.interpreter import command, environment
from dreamer_async.store import events
from dreamer_async.store.run_dir import RunDir

ROUNDS = 3
"""Turns of each; the median of their ratios is reported."""
STAGE = "stage/"
"""How gauges of stages are called."""
PATIENCE_S = 900.0
"""Longest wait for the first update: compiling and the prefill come before it."""


def pipeline(config: Config, seconds: float) -> list[Timing]:
    """Time updates of a run that collects and learns, and of the learner alone, in turn."""
    steady = "train.steps=1_000_000_000", "train.checkpoint_seconds=1e9"
    config = override(config, steady)
    whole, alone, stages = [], [], []
    for _ in range(ROUNDS):
        mean, busy = measured_run(config, seconds / ROUNDS)
        whole.append(mean)
        stages.append(busy)
        alone.append(measure_apart(config, "learner", seconds / ROUNDS)["median_s"])
    shares = sorted(a / w for a, w in zip(alone, whole, strict=True))
    detail = {"share_of_learner_alone": shares[len(shares) // 2]} | mean_shares(stages)
    return [
        timing("pipeline", "update while collecting", "s/update", whole, **detail),
        timing("pipeline", "update, learner alone", "s/update", alone),
    ]


def measured_run(
    config: Config, seconds: float, devices: int = 1
) -> tuple[float, dict[str, float]]:
    """Mean seconds per update of a real run, after the first one that it reported, and its stages.

    Those are the shares of the time in which each was busy, or waited if that is what it does.
    """
    with TemporaryDirectory(prefix="dreamer-async-") as folder:
        run = RunDir.create(Path(folder), "bench", config=to_dict(config))
        words = bound(command("dreamer_async", "trainer", f"--devices={devices}", run.path))
        progress = Progress(run)
        with subprocess.Popen(
            words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            try:
                wait_until(process, lambda: progress.updates() > 0, PATIENCE_S)
                wait_until(process, lambda: progress.seconds() >= seconds, PATIENCE_S + seconds)
            finally:
                process.terminate()
                process.wait()
    return progress.seconds() / progress.updates(), progress.stages()


def mean_shares(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean share of each stage over several runs."""
    names = {name for shares in runs for name in shares}
    return {f"share_{n}": fmean(shares.get(n, 0.0) for shares in runs) for n in sorted(names)}


class Progress:
    """Follows the event stream of a run: what was done since its first report on an update.

    `from_now` leaves out what was reported before.
    """

    def __init__(self, run: RunDir, *, from_now: bool = False) -> None:
        self._reader = events.EventReader(run.events_path)
        if from_now:
            self._reader.read()
        self._seen: list[tuple[float, int]] = []
        """(monotonic seconds, updates), one per report."""
        self._stages: list[dict[str, float]] = []
        """Shares of a second by stage, one per report."""

    def updates(self) -> int:
        return self._since_the_first(1)

    def seconds(self) -> float:
        return self._since_the_first(0)

    def stages(self) -> dict[str, float]:
        """Mean share of each stage since the first update."""
        shares = mean_shares(self._stages)
        return {name.removeprefix("share_"): share for name, share in shares.items()}

    def _since_the_first(self, index: int) -> Any:
        for record in self._reader.read():
            if isinstance(record.event, events.Metrics) and "loss/total" in record.event.values:
                self._seen.append((record.mono, record.event.update))
            elif isinstance(record.event, events.Gauges) and self._seen:
                self._stages.append(
                    {
                        name.removeprefix(STAGE): share
                        for name, share in record.event.values.items()
                        if name.startswith(STAGE) and share is not None
                    }
                )
        return self._seen[-1][index] - self._seen[0][index] if self._seen else 0


def wait_until(
    process: subprocess.Popen[bytes],
    until: Callable[[], bool],
    patience: float,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Poll until something is true; raises BenchError if the process ends before that."""
    deadline = time.monotonic() + patience
    while not until():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            words = (process.stderr.read() if process.stderr else b"").decode(errors="replace")
            raise BenchError(f"the measured run ended early: {words.strip()[-500:]}")
        pause(0.25)
