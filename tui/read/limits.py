"""Settings that charts draw: floors of losses and returns, percentiles of returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite


@dataclass(frozen=True)
class Limits:
    """Settings of the losses, by their names; the defaults are those of a run."""

    free_nats: float = 1.0
    """The KL losses have no gradient below this floor, in nats."""
    return_floor: float = 1.0
    """Returns are divided by S, which is never less."""
    return_low: float = 5.0
    """Percentile of the returns from which S is measured."""
    return_high: float = 95.0
    """Percentile to which it is."""


def limits(settings: Mapping[str, str]) -> Limits:
    """The limits of a run with these settings; defaults for what is missing or no number."""
    known = {part.name: _number(settings.get(f"loss.{part.name}", "")) for part in fields(Limits)}
    return Limits(**{name: value for name, value in known.items() if value is not None})


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and 0 <= value <= 1e9 else None
