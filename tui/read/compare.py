"""How runs differ: their settings side by side, and one line about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamer_async.store.json_file import read_json
from dreamer_async.tui.draw.text import clean

ABSENT = "–"


SEED = "train.seed"
"""The setting in which runs of one group differ."""


def groups(runs: Sequence[Mapping[str, str]]) -> list[int]:
    """Number the runs so that those whose settings differ in nothing but the seed have one number.

    Groups count from 0 in the order of their first run; nobody shares one whose settings cannot be
    read, or whose seed is another one's, too.
    """
    found: dict[frozenset[tuple[str, str]], int] = {}
    seeds: dict[int, set[str]] = {}
    numbers: list[int] = []
    for run in runs:
        key = frozenset((name, value) for name, value in run.items() if name != SEED)
        number, seed = found.get(key, -1), run.get(SEED, "")
        if not run or number < 0 or seed in seeds[number]:
            number = len(seeds)
            seeds[number] = set()
            found.setdefault(key, number)
        seeds[number].add(seed)
        numbers.append(number)
    return numbers


def settings(path: Path) -> dict[str, str]:
    """The settings of a run as dotted key -> text; empty if they cannot be read."""
    try:
        return dict(_flat(read_json(path), ""))
    except (OSError, ValueError):
        return {}


def _flat(value: Any, key: str) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        parts = [
            _flat(inner, f"{key}.{name}" if key else str(name)) for name, inner in value.items()
        ]
        return [pair for part in parts for pair in part]
    return [(clean(key, 60), clean(value, 60))]


def differences(runs: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all runs, as (key, value of each run)."""
    keys = list(dict.fromkeys(key for run in runs for key in run))
    rows = [(key, [run.get(key, ABSENT) for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]
