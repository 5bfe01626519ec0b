"""The ranks of a run on several devices, in one row; it is empty for a run of one process."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from dreamer_async.tui.draw.picture import Entry
from dreamer_async.tui.draw.rows import Part, Row
from dreamer_async.tui.draw.text import short
from dreamer_async.tui.read.view import RunView

_NAME = re.compile(r"rank/([0-9]{1,4})/(env_steps|busy|lag)")
MOST = 8
"""Ranks whose numbers are written out; of more, the smallest and the largest."""
Values = Sequence[float | None]
"""Of one gauge, by rank."""
Spelling = Callable[[float], str]


def rows(view: RunView) -> Entry:
    """What each rank collects, how busy its learner is, and how old its policy's weights are.

    The numbers of every rank, then for less room the smallest and the largest.
    """
    ranks = by_rank(view.gauges)
    if len(ranks) < 2:
        return ((),)
    return [_row(ranks, written) for written in (_each, _range)[len(ranks) > MOST :]]


def _row(
    ranks: Sequence[Mapping[str, float | None]], written: Callable[[Values, Spelling], str]
) -> Row:
    shown = {
        "steps/s": written([rank.get("env_steps") for rank in ranks], short),
        "busy %": written([rank.get("busy") for rank in ranks], _percent),
        "lag": written([rank.get("lag") for rank in ranks], short),
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


def _each(values: Values, spell: Spelling) -> str:
    return " ".join("-" if value is None else spell(value) for value in values)


def _range(values: Values, spell: Spelling) -> str:
    known = [value for value in values if value is not None]
    ends = dict.fromkeys(spell(end(known)) for end in (min, max) if known)
    return "–".join(ends) or "-"
