"""The ranks of a run on several devices, as one row; there is none for a run of one process."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from dreamer_async.tui.draw.rows import Part, Row
from dreamer_async.tui.draw.text import short
from dreamer_async.tui.read.view import RunView

_NAME = re.compile(r"rank/([0-9]{1,4})/(env_steps|busy|lag)")
MOST = 8
"""Ranks whose numbers are written out; of more, the smallest and the largest."""


def row(view: RunView) -> Row:
    """What each rank collects, how busy its learner is, and how old its policy's weights are."""
    ranks = by_rank(view.gauges)
    if len(ranks) < 2:
        return ()
    shown = {
        "steps/s": _numbers([rank.get("env_steps") for rank in ranks], short),
        "busy %": _numbers([rank.get("busy") for rank in ranks], _percent),
        "lag": _numbers([rank.get("lag") for rank in ranks], short),
    }
    parts = [Part(f"{len(ranks)} ranks", "dim")]
    for label, text in shown.items():
        parts += [Part(f"  {label} ", "dim"), Part(text)]
    return parts


def by_rank(gauges: Mapping[str, float | None]) -> list[dict[str, float | None]]:
    """The gauges of each rank, in the order of their numbers."""
    found: dict[int, dict[str, float | None]] = {}
    for name, value in gauges.items():
        if match := _NAME.fullmatch(name):
            found.setdefault(int(match[1]), {})[match[2]] = value
    return [found[number] for number in sorted(found)]


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _numbers(values: list[float | None], spell: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if len(values) > MOST and known:
        return f"{spell(min(known))} to {spell(max(known))}"
    return " ".join("-" if value is None else spell(value) for value in values)
