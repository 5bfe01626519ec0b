"""A whole run, overlapped, against its learner alone: what do environments and policy cost?

Both run in processes of their own, as in training, and take turns.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from dreamer_async import events
from dreamer_async.bench.apart import BenchError, measure_apart
from dreamer_async.bench.timing import Timing, timing
from dreamer_async.config import Config, override, to_dict
from dreamer_async.run_dir import RunDir

ROUNDS = 3
"""Turns of each; the median of their ratios is reported."""
PATIENCE_S = 900.0
"""Longest wait for the first update: compiling and the prefill come before it."""


def pipeline(config: Config, seconds: float) -> list[Timing]:
    """Time updates of a run that collects and learns, and of the learner alone, in turn."""
    config = override(config, ["train.steps=1_000_000_000", "train.checkpoint_seconds=1e9"])
    whole, alone = [], []
    for _ in range(ROUNDS):
        whole.append(update_seconds(config, seconds / ROUNDS))
        alone.append(measure_apart(config, "learner", seconds / ROUNDS)["median_s"])
    shares = sorted(a / w for a, w in zip(alone, whole, strict=True))
    detail = {"share_of_learner_alone": shares[len(shares) // 2]}
    return [
        timing("pipeline", "update while collecting", "s/update", whole, **detail),
        timing("pipeline", "update, learner alone", "s/update", alone),
    ]


def update_seconds(config: Config, seconds: float) -> float:
    """Mean seconds per update of a real run, from its gauges, after the first update."""
    with TemporaryDirectory(prefix="dreamer-async-") as folder:
        run = RunDir.create(Path(folder), "bench", config=to_dict(config))
        words = [sys.executable, "-m", "dreamer_async", "trainer", str(run.path)]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            try:
                _wait(process, lambda: len(_gauges(run)) > 1, PATIENCE_S)
                _wait(process, lambda: _spent(_gauges(run)) >= seconds, PATIENCE_S + seconds)
            finally:
                process.terminate()
                process.wait()
        first, *_, last = _gauges(run)
    return (last[0] - first[0]) / (last[1] - first[1])


def _gauges(run: RunDir) -> list[tuple[float, int]]:
    """(monotonic seconds, updates) whenever more updates than before were done."""
    if not run.events_path.exists():
        return []
    seen: list[tuple[float, int]] = []
    for record in events.read_events(run.events_path)[0]:
        event = record.event
        if isinstance(event, events.Metrics) and event.update > (seen[-1][1] if seen else 0):
            seen.append((record.mono, event.update))
    return seen


def _spent(gauges: list[tuple[float, int]]) -> float:
    return gauges[-1][0] - gauges[0][0] if gauges else 0.0


def _wait(process: subprocess.Popen[bytes], until: Callable[[], bool], patience: float) -> None:
    """Poll until something is true; raises BenchError if the process ends before that."""
    deadline = time.monotonic() + patience
    while not until():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            words = (process.stderr.read() if process.stderr else b"").decode(errors="replace")
            raise BenchError(f"the measured run ended early: {words.strip()[-500:]}")
        time.sleep(0.25)
