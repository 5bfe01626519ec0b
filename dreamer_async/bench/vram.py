"""What a learner would hold on a GPU, where there is none to ask: a table that was measured once.

It was measured on a simulated card (docs/gpu.md), whose allocator is the real one.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dreamer_async.bench import differs
from dreamer_async.config import Config
from dreamer_async.envs.spec import EnvSpec

TABLE = Path(__file__).with_name("vram.csv")
BATCH = 16, 64
"""Rows and steps of the measured batches."""


class Held(NamedTuple):
    """One line of the table."""

    size: str
    image: int
    """Pixels a side; 0 for vectors."""
    compiled: bool
    expandable: bool
    """With expandable segments of PyTorch's allocator, without which recordings take more."""
    held_gb: float


def estimate(config: Config, spec: EnvSpec) -> Held | None:
    """The line that is nearest to a run, None where no networks and images are like its own.

    A run that is compiled takes less than one that is not, and one with expandable segments no
    more than one without: another line says at least not less than what the run would hold.
    """
    train = config.train
    larger = train.batch_size * train.batch_length > math.prod(BATCH)
    if differs(config) or larger or train.precision not in ("auto", "bfloat16"):
        return None
    side = max((obs.shape[0] for obs in spec.obs.values() if obs.is_image), default=0)
    alike = [row for row in table() if (row.size, row.image) == (config.size, side)]
    compiled = config.train.compile
    usable = [row for row in alike if row.compiled == compiled or not row.compiled]
    near = lambda row: (row.compiled == compiled, row.expandable)  # noqa: E731
    return max(usable, key=near, default=None)


@cache
def table() -> tuple[Held, ...]:
    """All lines."""
    return tuple(_rows())


def _rows() -> Iterator[Held]:
    lines = [line for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    for row in csv.DictReader(lines):
        yield Held(
            row["size"],
            int(row["image"]),
            row["compiled"] == "yes",
            row["expandable"] == "yes",
            float(row["held_gb"]),
        )
