"""One chart: a title with the current value, then curves in braille with labelled axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from textual.events import MouseMove

from dreamer_async.tui.draw.axis import (
    Scale,
    decades,
    even,
    step_scale,
    ticks,
    value_scale,
    wants_log,
)
from dreamer_async.tui.draw.chart import (
    EMPTY,
    Canvas,
    Cells,
    draw,
    layer,
    mark_places,
    rule,
    shade,
    text_rows,
    thickened,
)
from dreamer_async.tui.draw.picture import Curve, Entry, Picture
from dreamer_async.tui.draw.rows import Part, Row, cells, fit, spread
from dreamer_async.tui.draw.text import apart, plain, resolved, short, told_apart
from dreamer_async.tui.draw.trace import Array
from dreamer_async.tui.widgets.panel import Panel

_GUTTER = 7
"""Columns left of the curves: a label of six and a space."""


POINTED = 100
"""Parts of what is visible that are told apart where the mouse is."""
TALL = 6
"""Rows of curves from which on their axis has round values."""


class Chart(Panel):
    """Draws a Picture in whatever room there is, down to a single cell."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.picture = Picture("")
        self._pointed: int | None = None
        """Column below the mouse."""

    def on_mouse_move(self, event: MouseMove) -> None:
        """Say the value below the mouse."""
        self._point(event.x)

    def on_leave(self) -> None:
        """Say the newest value again."""
        self._point(None)

    def _point(self, column: int | None) -> None:
        if column != self._pointed:
            self._pointed = column
            self.repaint()

    def show(self, picture: Picture) -> None:
        """Replace the picture."""
        self.picture = _cut(picture)
        self.repaint()

    def paint(self, width: int, height: int) -> list[Row]:
        picture = self.picture
        traces = [curve.trace for curve in (*picture.grounds, *picture.curves)]
        log = picture.log == "log" or (picture.log == "auto" and wants_log(traces))
        up = value_scale(traces, [*picture.references, *picture.include], log=log)
        across = step_scale([curve.trace for curve in picture.curves])
        if across is not None and picture.window is not None:
            across = Scale(*picture.window)
        pointed = self._reading(across, width)
        values = [pointed] if pointed else [picture.value, picture.brief]
        rows = [_title(picture, values, width, log=up is not None and up.log)]
        if picture.legend and height > 4:
            rows.append(legend_row(picture.legend, width))
        return rows + self._plot(width, height - len(rows), across, up)

    def _reading(self, across: Scale | None, width: int) -> Row:
        """The point of the main curve that is nearest to the mouse; empty without one."""
        column = -1 if self._pointed is None else self._pointed - _gutter(width)
        if across is None or not 0 <= column < width - _gutter(width):
            return []
        share = (2 * column + 0.5) / (2 * (width - _gutter(width)) - 1)  # of its two dots
        span = across.high - across.low
        return _nearest(self.picture, across.low + share * span, span / POINTED)

    def _plot(self, width: int, height: int, across: Scale | None, up: Scale | None) -> list[Row]:
        picture = self.picture
        if height <= 0:
            return []
        if up is None or across is None:
            return _centred(picture.empty, width, height)
        axis = bool(picture.unit) and height > 3
        height -= axis
        gutter = _gutter(width)
        up = even(up, height) if height >= TALL else up
        labels = _value_labels(up, height)
        body = _curve_rows(picture, across, up, width - gutter, height)
        rows: list[Row] = body
        if gutter:
            blank = Part(" " * gutter, "axis")
            rows = [[blank, *row] for row in body]
            for y, label in labels.items():
                rows[y] = [Part(f"{label:>{gutter - 1}} ", "axis"), *body[y]]
        return [*rows, _step_labels(across, gutter, width, picture.unit)] if axis else rows


def _cut(picture: Picture) -> Picture:
    """Leave out the points that the window does not show."""
    if picture.window is None or picture.window[0] >= picture.window[1]:
        return replace(picture, window=None)
    curves, grounds = (
        [replace(c, trace=c.trace.within(*picture.window)) for c in part]
        for part in (picture.curves, picture.grounds)
    )
    hidden = _points(picture.curves) and not _points(curves)
    empty = "nothing in this part" if hidden else picture.empty
    return replace(picture, curves=curves, grounds=grounds, empty=empty)


def _points(curves: Sequence[Curve]) -> int:
    return sum(len(curve.trace.x) for curve in curves)


def _gutter(width: int) -> int:
    return _GUTTER if width >= 16 else 0


def _nearest(picture: Picture, x: float, step: float) -> Row:
    """Where the point next to x is, to a step, and what it says, of the mean if there is one."""
    known = [curve for curve in picture.curves if len(curve.trace.x)]
    main = [curve for curve in known if curve.look == "line"] or known
    if not main:
        return []
    trace = main[-1].trace
    place = int(np.abs(trace.x - x).argmin())
    return [
        Part(f"at {resolved(float(trace.x[place]), step)}: ", "dim"),
        Part(short(float(trace.y[place])), "strong"),
    ]


def _title(picture: Picture, values: Sequence[Row], width: int, *, log: bool) -> Row:
    """Title and notes on the left, the first value that fits on the right; notes go before it."""
    left = [Part(picture.title, "title")]
    room = width - cells(left) - 1
    value = next((value for value in values if cells(value) <= room), values[-1] or values[0])
    for note in (picture.note, picture.short_note):
        said = " · ".join(filter(None, (note, "log" if log else "")))
        between = 1 if note and value else 0  # or both read as one sentence
        if said and cells(value) + len(said) + 2 + between <= room:
            left.append(Part(f"  {said}", "dim"))
            break
    return spread(left, value, width, Part("─", "rule"))


def legend_row(entries: Sequence[Entry], width: int) -> Row:
    """Join what fits, each entry as long as there is room for it; never a part of one.

    They stand close together where more of them fit so.
    """
    wide, close = (_joined(entries, width, gap) for gap in (2, 1))
    rows, space = (close, Part(" ")) if len(close) > len(wide) else (wide, Part("  "))
    return [part for place, row in enumerate(rows) for part in [*[space][: bool(place)], *row]]


def _joined(entries: Sequence[Entry], width: int, gap: int) -> list[Row]:
    kept: list[Row] = []
    for entry in entries:
        room = width - sum(map(cells, kept)) - gap * len(kept)
        fitting = [words for words in entry if cells(words) <= room]
        kept += fitting[:1]
    return kept


def _centred(text: str, width: int, height: int) -> list[Row]:
    rows: list[Row] = [[] for _ in range(height)]
    rows[(height - 1) // 2] = [Part(fit(text, min(width, len(text))).center(width), "dim")]
    return rows


def _curve_rows(picture: Picture, across: Scale, up: Scale, width: int, height: int) -> list[Row]:
    canvases = [rule(value, up, width, height) for value in picture.references]
    for curve in picture.curves:
        drawn = draw(curve.trace, across, up, width, height)
        canvases.append(thickened(drawn) if curve.thick else drawn)
    codes, owners = layer(canvases)
    marks = _marks(picture.curves, canvases[len(picture.references) :])
    for (row, column), (place, _) in marks.items():
        owners[row, column] = len(picture.references) + place
    looks = ["text", *["floor"] * len(picture.references), *(c.look for c in picture.curves)]
    chosen = _spread_owners(owners) - EMPTY  # of looks
    for ground in picture.grounds:
        chosen = chosen + len(looks) * shade(ground.trace, across, up, width, height)
        looks += [f"{look}@{ground.look}" for look in looks]
    return _coloured(_marked(text_rows(codes), marks), chosen, looks)


Marks = Mapping[tuple[int, int], tuple[int, str]]
"""Row and column of a cell -> place of its curve, and the character that stands there."""


def _marks(curves: Sequence[Curve], canvases: Sequence[Canvas]) -> Marks:
    """The marks of all curves; of two in one cell the later one."""
    marked = [place for place, curve in enumerate(curves) if curve.mark]
    return {
        cell: (place, curves[place].mark)
        for turn, place in enumerate(marked)
        for cell in mark_places(canvases[place], turn)
    }


def _marked(texts: list[str], marks: Marks) -> list[str]:
    for (row, column), (_, mark) in marks.items():
        texts[row] = texts[row][:column] + mark + texts[row][column + 1 :]
    return texts


def _spread_owners(owners: Cells) -> Cells:
    """Give empty cells to the owner before them, [H, W]: fewer runs that look the same."""
    height, width = owners.shape
    places = np.arange(owners.size, dtype=np.int32).reshape(height, width)
    places = np.where(owners != EMPTY, places, places[:, :1])
    return owners.take(np.maximum.accumulate(places, axis=1))


def _coloured(texts: Sequence[str], chosen: Cells, looks: Sequence[str]) -> list[Row]:
    """Cut rows of cells [H, W] into runs of one look; `chosen` are their indices."""
    rows: list[list[Part]] = [[] for _ in texts]
    if not chosen.size:
        return [*rows]
    width = chosen.shape[1]
    edges = np.ones(chosen.shape, dtype=np.bool_)
    edges[:, 1:] = chosen[:, 1:] != chosen[:, :-1]
    starts = np.flatnonzero(edges)
    stops = np.append(starts[1:], chosen.size)
    wanted: list[int] = chosen.reshape(-1)[starts].tolist()
    for start, stop, look in zip(starts.tolist(), stops.tolist(), wanted, strict=True):
        row, column = divmod(start, width)
        rows[row].append(Part(texts[row][column : column + stop - start], looks[look]))
    return [*rows]


def _value_labels(up: Scale, height: int) -> dict[int, str]:
    """Place round values on tall axes; the two ends where there are none, or all look the same."""
    if height >= TALL and (labels := _round_labels(up, height)):
        return labels
    low, high = apart(up.low, up.high)
    return {height - 1: low, 0: high} if height > 1 else {0: high}


def _round_labels(up: Scale, height: int) -> dict[int, str]:
    """At least two round values that look different, evenly spread if they can be; or nothing."""
    usual = [ticks(up, max(2, height // most)) for most in (3, 2, 1)]
    usual = [v for v in usual if _evenly(v, up, height)] + [[v[0], v[-1]] for v in usual if v]
    finer = [ticks(up, most) for most in range(height // 2, 0, -1)]
    choices = (
        [decades(up)] if up.log else [*filter(lambda v: _on_rows(v, up, height), finer), *usual]
    )
    for values in map(np.array, choices):
        texts = [plain(value) for value in values.tolist()]
        if len(set(texts)) == len(texts) > 1:
            rows = np.rint(_rows_of(values, up, height)).astype(int)
            return dict(zip(rows.tolist(), texts, strict=True))
    return {}


def _evenly(values: list[float], up: Scale, height: int) -> bool:
    """Whether values stand on rows that are equally far from each other."""
    rows = np.rint(_rows_of(np.array(values), up, height))
    return len(set(np.diff(rows).tolist())) <= 1


def _rows_of(values: Array, up: Scale, height: int) -> Array:
    """Where values stand, in rows from the top."""
    return (1 - up.position(values)) * (height - 1)


def _on_rows(values: list[float], up: Scale, height: int) -> bool:
    """Whether two or more values stand in the middle of rows."""
    rows = _rows_of(np.array(values), up, height)
    return len(rows) > 1 and bool((np.abs(rows - np.rint(rows)) < 0.01).all())


def _step_labels(across: Scale, gutter: int, width: int, unit: str) -> Row:
    """Write round values below the columns that they belong to, and their unit at the end.

    As many as leave a space between any two of them and before the unit; fewer before uneven.
    """
    tail = fit(" " + unit, min(width, len(unit) + 1))
    room = width - gutter
    most = max(4, room // 10)
    while (line := _spaced(across, most, gutter, width - len(tail), room)) is None:
        most -= 1
    return [Part(line + tail, "axis")]


def _spaced(across: Scale, most: int, gutter: int, width: int, room: int) -> str | None:
    """At most so many labels, up to a column; None if two of them would touch."""
    line = " " * min(gutter, width)
    values = ticks(across, most)
    for value, text in zip(values, told_apart(values), strict=True):
        share = (value - across.low) / (across.high - across.low)
        start = max(gutter, gutter + round(share * (room - 1)) - len(text) // 2)
        if start + len(text) > width:
            break  # there stands the unit
        written = line.rstrip(" ")
        if written and start <= len(written):
            return None
        line = written.ljust(start) + text
    return line.ljust(width)
