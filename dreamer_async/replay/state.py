"""What a checkpoint keeps of a replay beside its files, and checking it when it comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dreamer_async.config.schema import shown

STATE_KEYS = {"ring", "generation", "length", "heads", "rng", "queue", "counters"}
COUNTERS = ("sampled", "torn", "online_served", "online_dropped", "contexts_lost")
"""What a replay counts, see `Replay.stats`."""


def parse_state(state: Mapping[str, Any], num_envs: int | None) -> dict[str, Any]:
    """Check what `Replay.state` made and a file has kept; raises ValueError naming the fault.

    The environments are checked against `num_envs` where the state belongs to this ring.
    """
    if not isinstance(state, Mapping) or state.keys() != STATE_KEYS:
        raise ValueError(f"replay state has {shown(state)}, not {sorted(STATE_KEYS)}")
    try:
        np.random.default_rng().bit_generator.state = state["rng"]
        queue = [[int(env), int(start)] for env, start in state["queue"]]
        heads = [int(head) for head in state["heads"]]
        counters = {name: int(state["counters"][name]) for name in COUNTERS}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"replay state is damaged: {error!r}") from error
    foreign = num_envs is not None and any(not 0 <= env < num_envs for env, _ in queue)
    if foreign or len(heads) != (num_envs or len(heads)):
        raise ValueError(f"replay state is not of {num_envs} environments")
    return {**state, "queue": queue, "heads": heads, "counters": counters}
