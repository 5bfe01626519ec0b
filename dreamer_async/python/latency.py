"""How long a control loop waits for its actions while the learner is busy.

    python -m dreamer_async.python.latency --hz 20 --seconds 60

A session of vectors steps at a fixed rate, as a robot would. The train ratio is so high that the
learner never rests, which is the worst that it can do to a step.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from gymnasium import spaces

from dreamer_async.python.session import Session
from dreamer_async.store.events import Gauges, Metrics, read_events

EPISODE = 200
"""Steps of an episode."""
BUSY = 4096.0
"""A train ratio with which an update is due at any time."""


@dataclass(frozen=True)
class Latency:
    """What was measured, of `step` alone."""

    steps: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    missed: int
    """Steps that took longer than the period of the loop; 0 for one that never misses."""
    updates_per_second: float
    learner_busy: float
    """Share of the time in which the learner had an update to do."""
    stolen: float | None
    """Share of all processors' time that the host of a virtual machine gave to others; None where
    the system does not tell."""


def measure(size: str, hz: float, seconds: float, device: str, ratio: float) -> Latency:
    """Step a session of 24 numbers and 6 torques, in a folder that is thrown away."""
    seen, done = spaces.Box(-1, 1, (24,)), spaces.Box(-1, 1, (6,))
    few = {"replay.capacity": 100_000}
    with (
        tempfile.TemporaryDirectory() as root,
        Session(
            seen, done, runs_dir=root, size=size, device=device, ratio=ratio, settings=few
        ) as session,
    ):
        _step_while(session, lambda: not _learning(session), 0.0)
        before = processor_ticks()
        end = time.monotonic() + seconds
        taken = np.array(_step_while(session, lambda: time.monotonic() < end, 1 / hz)) * 1e3
        updates, busy = _learner(session, seconds)
        taken_away = stolen(before, processor_ticks())
    p50, p99 = np.percentile(taken, [50, 99]).tolist()
    missed = int((taken > 1e3 / hz).sum())
    return Latency(len(taken), p50, p99, float(taken.max()), missed, updates, busy, taken_away)


def _step_while(session: Session, wanted: Callable[[], bool], period: float) -> list[float]:
    """Step at a fixed rate, 0 for as fast as it goes; seconds that each step took."""
    taken, due = [], time.monotonic()
    while wanted():
        session.reset(session.observation_space.sample())
        for step in range(1, EPISODE + 1):
            due = max(due + period, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            obs, began = session.observation_space.sample(), time.perf_counter()
            session.step(obs, float(obs[0]), step == EPISODE, False)
            taken.append(time.perf_counter() - began)
    return taken


def _learning(session: Session) -> bool:
    """Whether there has been an update."""
    records, _ = read_events(session.run.path / "events.jsonl")
    return any(isinstance(record.event, Metrics) for record in records)


def _learner(session: Session, seconds: float) -> tuple[float, float]:
    """Updates a second, and the share of the time that was not waited, at the end of the run."""
    records, _ = read_events(session.run.path / "events.jsonl")
    gauges = [r.event.values for r in records if isinstance(r.event, Gauges)][-int(seconds) :]
    updates = np.mean([values.get("rate/updates") or 0.0 for values in gauges])
    waited = np.mean([values.get("stage/learner_wait") or 0.0 for values in gauges])
    return float(updates), float(np.clip(1 - waited, 0, 1))


def processor_ticks() -> np.ndarray | None:
    """Ticks of all processors since the system began, of eight kinds as proc(5) orders them."""
    try:
        total = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:  # not Linux
        return None
    return np.array(total[1:9], dtype=np.int64)


def stolen(before: np.ndarray | None, after: np.ndarray | None) -> float | None:
    """The host's share of the ticks between two moments; None where there are none to read."""
    if before is None or after is None:
        return None
    spent = after - before
    return float(spent[7] / max(1, spent.sum()))


def main(words: Sequence[str] | None = None) -> None:
    """Measure as the words say and print the result as JSON."""
    parser = argparse.ArgumentParser(description="The latency of a session's steps.")
    parser.add_argument("--size", default="size1m")
    parser.add_argument("--hz", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--ratio", type=float, default=BUSY)
    given = parser.parse_args(words)
    print(json.dumps(asdict(measure(**vars(given)))))


if __name__ == "__main__":
    main()
