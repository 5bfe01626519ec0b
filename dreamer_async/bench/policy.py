"""How long one acting step takes, for one environment and for all of them."""

from __future__ import annotations

import numpy as np

from dreamer_async.agent.policy import Policy
from dreamer_async.bench.synthetic import random_rows
from dreamer_async.bench.timing import Timing, timed, timing
from dreamer_async.collector import Actor
from dreamer_async.config import Config
from dreamer_async.device import use_cpu_threads, wait_for
from dreamer_async.place import Place, take_place
from envs.spec import EnvSpec


def policy(config: Config, spec: EnvSpec, seconds: float) -> list[Timing]:
    """Time encode, observe, act, with the copies to and from the device."""
    use_cpu_threads(1)  # as in training: the learner needs the others
    place = take_place(config.train)
    counts = sorted({1, config.env.num_envs})
    return [_act(config, spec, place, n, seconds / len(counts)) for n in counts]


def _act(config: Config, spec: EnvSpec, place: Place, rows: int, seconds: float) -> Timing:
    actor = Actor(Policy(spec, config, place.device, place.precision), rows, seed=0)
    step = random_rows(spec, rows, np.random.default_rng(0))
    times = timed(lambda: actor.act(step), seconds, lambda: wait_for(place.device))
    return timing("policy", f"act for {rows} environments", "s/step", times)
