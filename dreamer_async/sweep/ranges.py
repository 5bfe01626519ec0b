"""What a search may choose for one setting: numbers between two ends, or some values."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dreamer_async.config import ConfigError, known_settings, parse_overrides
from dreamer_async.config.schema import shown
from dreamer_async.sweep.grid import parse_key, split

_RANGE = re.compile(r"\s*([^.].*?)\s*\.\.\s*([^.:].*?)\s*(:log)?\s*")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; or one of `choices`, if there are any."""

    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False
    choices: tuple[str, ...] = ()


def is_range(text: str) -> bool:
    """Whether a value is written as a range, whatever its ends are."""
    return _RANGE.fullmatch(text) is not None and ".." in text


def parse_range(key: str, text: str) -> Range:
    """Read `1e-5..1e-3:log`, `1..4`, or values as a grid has them; ConfigError says what fits."""
    key, _ = parse_key(f"{key}={text}")
    match = _RANGE.fullmatch(text)
    if match is None or ".." not in text:
        return Range(choices=split(key, text))
    kind = known_settings()[key]
    if kind not in (int, float):
        raise ConfigError(f"{key}: only numbers have ranges, name the values instead")
    low, high = (parse_overrides([f"{key}={end}"])[key] for end in match.groups()[:2])
    log = match[3] is not None
    if not low < high or (log and low <= 0):
        rule = "0 < low < high" if log else "low < high"
        raise ConfigError(f"{key}: {shown(text)} is no range, which needs {rule}")
    return Range(low, high, kind is int, log)
