"""A run on several devices against the same run on one: what do more of them bring?

Both train in processes of their own, as always, with the same batch in the whole run, and take
turns. On CPUs as many threads work on both sides: N ranks of one thread against one process of N.
"""

from __future__ import annotations

from statistics import median

from dreamer_async.bench.pipeline import ROUNDS, measured_run
from dreamer_async.bench.timing import Timing, timing
from dreamer_async.config import Config, override
from dreamer_async.machine.device import choose_device
from dreamer_async.parallel.shares import check

LEAST = 2
"""Ranks, where nothing says how many."""


def scaling(config: Config, seconds: float) -> list[Timing]:
    """Time updates of one process and of several; `train.threads` is how many there are of them.

    On GPUs it is all that can be seen, and threads are left alone. Raises ConfigError where the
    settings cannot be shared among so many.
    """
    count, one, many = _sides(config)
    check(config, count)
    times: dict[int, list[float]] = {1: [], count: []}
    for _ in range(ROUNDS):
        for ranks, settings in ((1, one), (count, many)):
            times[ranks].append(measured_run(settings, seconds / ROUNDS, ranks)[0])
    faster = median(a / b for a, b in zip(times[1], times[count], strict=True))
    threads = one.train.threads
    each = f" x {threads} threads" if threads else ""
    return [
        timing("scaling", f"update, 1 rank{each}", "s/update", times[1]),
        timing(
            "scaling",
            f"update, {count} ranks" + (" x 1 thread" if threads else ""),
            "s/update",
            times[count],
            times_as_fast=faster,
        ),
    ]


def _sides(config: Config) -> tuple[int, Config, Config]:
    """How many ranks, the settings of one process, and those of so many."""
    steady = "train.steps=1_000_000_000", "train.checkpoint_seconds=1e9"
    config = override(config, steady)
    if choose_device(config.train.device).type == "cuda":
        import torch

        return max(LEAST, torch.cuda.device_count()), config, config
    count = config.train.threads or LEAST
    one, many = (override(config, [f"train.threads={n}"]) for n in (count, 1))
    return max(LEAST, count), one, many
