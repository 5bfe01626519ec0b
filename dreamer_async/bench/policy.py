"""How long one acting step takes, for one environment and for all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from dreamer_async.agent.policy import Policy
from dreamer_async.bench.learner import ready
from dreamer_async.bench.synthetic import random_rows
from dreamer_async.bench.timing import Timing, timed, timing
from dreamer_async.config import Config
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.fast.place import Place, take_place
from dreamer_async.machine.device import use_cpu_threads, use_device, use_own_stream, wait_for
from dreamer_async.run.collector import Player
from dreamer_async.run.learner import Learner


def policy(config: Config, spec: EnvSpec, seconds: float) -> list[Timing]:
    """Time encode, observe, act, with the copies to and from the device.

    On a GPU also while a learner uses it, with and without a stream of higher priority.
    """
    use_cpu_threads(1)  # as in training: the learner needs the others
    place = take_place(config.train)
    use_device(place.device)
    counts = sorted({1, config.env.num_envs})
    if place.device.type != "cuda":
        return [_act(config, spec, place, n, seconds / len(counts)) for n in counts]
    each = seconds / (3 * len(counts))
    rows = [_act(config, spec, place, n, each) for n in counts]
    return rows + beside_learner(config, spec, place, counts, each)


def beside_learner(
    config: Config, spec: EnvSpec, place: Place, counts: list[int], seconds: float
) -> list[Timing]:
    """Time the same while a learner updates all the time."""
    with ready(config, spec) as (subject, _), _updating(subject, place):
        rows = []
        for urgent in (True, False):
            use_own_stream(place.device, urgent=urgent)
            how = "learning beside" if urgent else "the same, not urgent"
            rows += [_act(config, spec, place, n, seconds, how) for n in counts]
    return rows


@contextmanager
def _updating(subject: Learner, place: Place) -> Iterator[None]:
    """A learner in a thread of its own, which stops at the end."""
    done = threading.Event()

    def work() -> None:
        use_own_stream(place.device)
        while not done.is_set():
            subject.step()

    wait_for(place.device)
    thread = threading.Thread(target=work, name="learner")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _act(
    config: Config, spec: EnvSpec, place: Place, rows: int, seconds: float, how: str = ""
) -> Timing:
    subject = Policy(spec, config, place.device, place.precision, place.backend)
    player = Player(subject, rows, seed=0)
    step = random_rows(spec, rows, np.random.default_rng(0))
    times = timed(lambda: player.act(step), seconds)  # its results are on the host
    late = float(np.quantile(times, 0.99))
    what = f"act for {rows} environments" + (f", {how}" if how else "")
    return timing("policy", what, "s/step", times, p99_ms=late * 1e3)
