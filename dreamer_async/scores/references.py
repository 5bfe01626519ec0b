"""What a return can be measured against: other players, and what a task allows."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from dreamer_async.scores.curves import squashed

PLAYERS = Path(__file__).parent / "data" / "references.csv"
CEILINGS = Path(__file__).parent / "data" / "ceilings.csv"
ALIASES = {"atari100k": "atari"}
"""Suites with the references of another."""
_PLAYERS_OF = {"atari": "human", "dmlab": "human", "procgen": "best"}
"""Who the better of the two reference players is."""


class Ceiling(NamedTuple):
    """A return to aim at."""

    value: float
    kind: str
    """optimum, solved, most, human or best: what it is."""


@lru_cache(maxsize=1)
def players() -> dict[tuple[str, str], tuple[float, float]]:
    """{(suite, squashed task): random play and the reference player}."""
    return {
        (suite, squashed(task)): (float(low), float(high))
        for suite, task, low, high in _rows(PLAYERS)
    }


def ceiling(suite: str, task: str) -> Ceiling | None:
    """What a return of this task can be measured against, None if nothing is known."""
    known = _ceilings()
    found = known.get((suite, squashed(task))) or known.get((suite, "*"))
    if found is not None:
        return found
    other = ALIASES.get(suite, suite)
    pair = players().get((other, squashed(task)))
    return None if pair is None else Ceiling(pair[1], _PLAYERS_OF[other])


@lru_cache(maxsize=1)
def _ceilings() -> dict[tuple[str, str], Ceiling]:
    return {
        (suite, squashed(task)): Ceiling(float(value), kind)
        for suite, task, value, kind in _rows(CEILINGS)
    }


def _rows(path: Path) -> Iterator[list[str]]:
    """Lines of a table below its notes and its header."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(line for line in file if not line.startswith("#"))
        next(rows)
        yield from rows
