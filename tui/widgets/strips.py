"""One strip for each stage of the pipeline: busy, waiting and for whom; below, what limits."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from textual.geometry import Size

from dreamer_async.tui.draw.rows import Part, Row, cells, fit, named, spread
from dreamer_async.tui.show.stages import AT_ZERO, Strip, Verdict
from dreamer_async.tui.widgets.panel import Panel

_LABEL, _SHARE = 16, 5
_WORDS, _WORDS_WIDE = 42, 64
"""Columns for the words behind a strip, where there is room, and where there is plenty."""


class Strips(Panel):
    """Shows where the time goes."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._stages: Sequence[Strip] = ()
        self._verdict = Verdict("", "")

    def show(self, strips: Sequence[Strip], verdict: Verdict) -> None:
        """Replace strips and verdict."""
        self._stages, self._verdict = strips, verdict
        self.repaint()
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Ask for a title, the strips, and the sentences below them."""
        return len(self._rows(width))

    def paint(self, width: int, height: int) -> list[Row]:
        return self._rows(width)[:height]

    def _rows(self, width: int) -> list[Row]:
        note = [
            Part("━ ", "bar"),
            Part("busy  ", "dim"),
            Part("╍ ", "bar-wait"),
            Part("waiting  ", "dim"),
            Part("┅ ", "bar-held"),
            Part("for the train ratio  ", "dim"),
            Part("mean of 10 s", "dim"),
        ]
        rows: list[Row] = [spread([Part("stages", "title")], note, width, Part("─", "rule"))]
        idle = [s.label for s in self._stages if s.busy is not None and s.busy < AT_ZERO]
        rows += [_strip_row(strip, width) for strip in self._stages if strip.label not in idle]
        rows += [_idle_row(idle, width)] if idle else []
        for sentence, look in ((self._verdict.limit, "strong"), (self._verdict.faster, "text")):
            lines = textwrap.wrap(sentence, max(20, width))
            rows += [[Part(line, look)] for line in lines]
        return rows


def _idle_row(labels: Sequence[str], width: int) -> Row:
    """The stages that take no time, in one line."""
    label = f"{'at 0%':<{_LABEL}}  "
    return [Part(label, "dim"), Part(named(", ".join(labels), width - len(label)), "dim")]


def _strip_row(strip: Strip, width: int) -> Row:
    label = Part(fit(strip.label, min(_LABEL, width)), "dim")
    if strip.busy is None:
        return [label, Part(f"{'–':>{_SHARE}}  not measured", "dim")]
    room = width - cells([label]) - _SHARE - 3
    wanted = _WORDS_WIDE if room >= 2 * _WORDS_WIDE else _WORDS
    length = max(8, room - wanted) if room >= wanted + 8 else max(4, room // 3)
    share = Part(f"{strip.busy:>{_SHARE - 1}.0%} ", "strong")
    words = _waits(strip, room - length + 1)
    return [label, share, *stacked(strip, length), Part("  "), Part(words, "dim")]


def _waits(strip: Strip, width: int) -> str:
    """For whom the stage waits; the second is only named where there is room for it."""
    known = [f"{wait.share:.0%} for {wait.whom}" for wait in strip.waits if wait.share >= 0.005]
    both = ", ".join(known[:2])
    return both if not known or len(both) <= width else known[0]


def stacked(strip: Strip, width: int) -> Row:
    """Draw busy and waiting time behind each other."""
    busy = round((strip.busy or 0.0) * width)
    if strip.busy and strip.busy >= 0.005:
        busy = max(1, busy)
    held = round(sum(wait.share for wait in strip.waits if wait.wanted) * width)
    held = min(width - busy, held)
    waiting = round(sum(wait.share for wait in strip.waits if not wait.wanted) * width)
    waiting = min(width - busy - held, waiting)
    return [
        Part("━" * busy, "bar"),
        Part("╍" * waiting, "bar-wait"),
        Part("┅" * held, "bar-held"),
        Part("─" * (width - busy - waiting - held), "bar-rest"),
    ]
