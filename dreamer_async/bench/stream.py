"""A made-up event stream, as long as one likes: one metrics and one gauges event a second.

Every eighth second an episode ends as well. The task is one with a published curve.
"""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path

import numpy as np

from dreamer_async.store.events import (
    Episode,
    Gauges,
    Metrics,
    PhaseChanged,
    RunStarted,
    encode_line,
)

METRICS = (
    *("loss/image", "loss/reward", "loss/cont", "loss/dyn", "loss/rep", "loss/actor"),
    *("loss/critic", "loss/replay_critic", "loss/total", "return/S", "return/p5", "return/p95"),
    *("return/mean", "return/min", "return/max", "return/rate", "policy/entropy"),
    *("policy/randomness", "adv/mean", "adv/std", "adv/mag", "value/mean", "value/slow"),
    *("imagine/reward", "imagine/cont", "imagine/weight", "rssm/posterior_entropy"),
    *("rssm/prior_entropy", "opt/lr", "opt/update_rms", "opt/param_rms", "opt/grad_norm"),
    *("opt/grad_rms", "opt/finite"),
)
GAUGES = (
    *("rate/env_steps", "rate/frames", "rate/updates", "cpu/percent", "ratio/target"),
    *("ratio/actual", "ratio/debt", "policy/lag", "opt/skipped", "replay/gb", "disk/free_gb"),
    *("memory/rss_gb", "replay/fill", "replay/steps", "replay/windows", "replay/sample_age"),
    *("replay/online_queue", "stage/env_wait", "stage/ratio_wait", "stage/policy"),
    *("stage/insert", "stage/learner_wait", "stage/sample", "stage/transfer", "stage/update"),
)
MARK = b"PAUSED"
"""On the screen once the end of the stream has been read: its last event says so."""
_VARIETY = 251
"""Different events of each kind; only their times and counters go on changing."""
_EPISODE = 8
"""Beats in which one episode ends."""
_CHUNK = 4096
_COUNTERS = 987_654_321, 123_456_789
"""Stand for updates and steps until a line is written."""
_TIMES = 987_654_321.5, 123_456_789.5


def write_stream(path: Path, events: int) -> None:
    """Append a run of `events` metrics and gauges that ends now and is paused."""
    now, seconds = round(time.time(), 3), max(1, events // 2)  # as the beats are written
    start = RunStarted(
        *("bench", "atari100k", "pong", "size12m", 12_000_000, "cpu", "float32", 16),
        *(10 * seconds, 4),
        *(32.0, 1, False, False, 100_000, 10**8, 1, "0"),
    )
    kinds = _templates()
    with open(path, "ab") as file:
        file.write(encode_line(start, now - seconds, 0.0, 0))
        file.write(encode_line(PhaseChanged("training", 0, 0), now - seconds, 0.0, 0))
        for first in range(0, seconds, _CHUNK):
            beats = range(first, min(seconds, first + _CHUNK))
            lines = (_beat(kinds, beat, now - seconds + beat) for beat in beats)
            file.write(b"".join(lines))
        paused = PhaseChanged("paused", 8 * seconds, 2 * seconds)
        file.write(encode_line(paused, now, float(seconds), 0))


_BEATS = count()


def append_beat(path: Path) -> None:
    """Append what a trainer says in one round: metrics and gauges."""
    rng, now = np.random.default_rng(next(_BEATS)), time.time()
    metrics = Metrics(1, 1, dict(zip(METRICS, rng.random(len(METRICS)).tolist(), strict=True)))
    gauges = Gauges(1, 1, dict(zip(GAUGES, rng.random(len(GAUGES)).tolist(), strict=True)))
    with open(path, "ab") as file:
        file.write(encode_line(metrics, now, now, 0) + encode_line(gauges, now, now, 0))


def _templates() -> list[bytes]:
    """Pairs of lines, some with a third, with marks where times and counters go."""
    rng = np.random.default_rng(0)
    updates, steps = _COUNTERS
    pairs = []
    for number in range(_VARIETY):
        metrics = dict(zip(METRICS, rng.random(len(METRICS)).tolist(), strict=True))
        gauges = dict(zip(GAUGES, rng.random(len(GAUGES)).tolist(), strict=True))
        pair = encode_line(Metrics(updates, steps, metrics), *_TIMES, 0)
        pair += encode_line(Gauges(steps, updates, gauges), *_TIMES, 0)
        if number % _EPISODE == 0:
            episode = Episode(steps, 0, float(rng.integers(-21, 22)), 800)
            pair += encode_line(episode, *_TIMES, 0)
        for mark, field in zip((*_TIMES, *_COUNTERS), _FIELDS, strict=True):
            pair = pair.replace(str(mark).encode(), field)
        pairs.append(pair)
    return pairs


_FIELDS = b"%(time).3f", b"%(mono).1f", b"%(updates)d", b"%(steps)d"


def _beat(templates: list[bytes], beat: int, when: float) -> bytes:
    values = {b"time": when, b"mono": float(beat), b"updates": 2 * beat, b"steps": 8 * beat}
    return templates[beat % len(templates)] % values
