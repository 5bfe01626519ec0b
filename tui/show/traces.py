"""A film of numbers as charts: what happened, what was reconstructed, and what was dreamed.

Legend: T steps of a sequence, D numbers of an observation.
"""

from __future__ import annotations

import numpy as np

from dreamer_async.tui.draw.picture import Curve, Entry, Picture
from dreamer_async.tui.draw.rows import Part, Row, cells
from dreamer_async.tui.draw.text import short
from dreamer_async.tui.draw.trace import Trace
from dreamer_async.tui.read.film import Film, Shot
from dreamer_async.tui.read.series import Array
from dreamer_async.tui.show import dreaming
from dreamer_async.tui.show.dreaming import Horizon

FEW_CLASSES = 12
"""Up to so many categories the axis shows all of them."""


def count(film: Film, shot: Shot) -> int:
    """How many numbers an observation has, D."""
    return film.arrays[shot.key].shape[-1]


def traces(film: Film, shot: Shot, which: range, width: int) -> list[Picture]:
    """One chart for each of some numbers: the truth as a line, its reconstruction and the dream.

    Categories are steps. The ground reaches as far as the dream has seen. A chart has `width`
    columns.
    """
    return [_trace(film, shot, index, width) for index in which]


def horizon(film: Film, shot: Shot) -> Horizon:
    """Until when the dream of all numbers of a shot is good."""
    return _judged(film, shot, slice(None))


def horizon_words(found: Horizon, film: Film) -> Row:
    """Say until which step a dream is good."""
    if not found.judged:
        return [Part("nothing to judge", "dim")]
    if found.good == found.judged:
        return [Part("good to the end", "good")]
    if not found.good:
        return [Part("never good", "warn")]
    return [Part(f"good to step {film.context + found.good}", "text")]


def _short_words(found: Horizon, film: Film) -> Row:
    """The same in as few columns as possible."""
    if not found.judged:
        return []
    return [Part(f"to {film.context + found.good}" if found.good else "bad", "text")]


def _trace(film: Film, shot: Shot, index: int, width: int) -> Picture:
    real, seen, dreamed = (part[:, index].astype(np.float64) for part in film.traces(shot))
    classes = film.classes.get(shot.key, 0)
    part = dreaming.dreamed_steps(film.is_first[shot.row], film.context)
    off_seen, off_dreamed = (
        dreaming.error(real[part, None], version[part, None], categories=bool(classes))
        for version in (seen, dreamed)
    )
    judged = _judged(film, shot, slice(index, index + 1))
    title, off = film.name(shot.key, index), _off(off_dreamed, classes)
    values = ([off, Part(" "), *words(judged, film)] for words in (horizon_words, _short_words))
    fitting = (value for value in values if len(title) + cells(value) + 4 <= width)
    return Picture(
        title=title,
        value=next(fitting, _short_words(judged, film)),
        legend=_legend(off_seen, classes),
        curves=_three(film, [real, seen, dreamed], stepped=bool(classes)),
        grounds=[_seen(film, [real, seen, dreamed])],
        include=[0.0, classes - 1.0] if 0 < classes <= FEW_CLASSES else (),
        unit="step",
        empty="no finite number",
    )


def _judged(film: Film, shot: Shot, which: slice) -> Horizon:
    everything = film.arrays[shot.key]
    part = dreaming.dreamed_steps(film.is_first[shot.row], film.context)
    real, _, dreamed = (version[part, which] for version in film.traces(shot))
    spreads = dreaming.spread(everything[0, ..., which])
    return dreaming.horizon(real, dreamed, spreads, categories=shot.key in film.classes)


def _off(error: float, classes: int) -> Part:
    """An error as it is said: in the number's own unit, or how many classes are wrong."""
    if error != error:
        return Part("–", "dim")
    return Part(f"{error:.0%} wrong" if classes else f"±{short(error)}", "strong")


def _legend(off_seen: float, classes: int) -> list[Entry]:
    """What the curves are; the error of the reconstruction only where there is room for it."""
    seen: Row = [Part("• ", "line"), Part("reconstructed", "dim")]
    return [
        [[Part("━ ", "strong"), Part("real", "dim")]],
        [[Part("━ ", "line-2"), Part("dreamed", "dim")]],
        [[*seen, Part(" "), _off(off_seen, classes)], seen],
    ]


def _three(film: Film, versions: list[Array], *, stepped: bool) -> list[Curve]:
    """The later of two curves is on top: a reconstruction is seen where it is not the truth.

    The dream begins where it sees for the last time.
    """
    real, seen, dreamed = versions
    steps = np.arange(1, film.length + 1, dtype=np.float64)
    begin = max(0, film.context - 1)
    line = _stairs if stepped else Trace
    return [
        Curve(Trace(steps, seen, kind="dots"), "line"),
        Curve(line(steps, real), "strong"),
        Curve(line(steps[begin:], dreamed[begin:]), "line-2"),
    ]


def _stairs(steps: Array, values: Array) -> Trace:
    """A line that stays on a value for the whole of its step, [T] both."""
    edges = np.stack([steps - 0.5, steps + 0.5], axis=1).reshape(-1)
    return Trace(edges, np.repeat(values, 2))


def _seen(film: Film, versions: list[Array]) -> Curve:
    """A ground below the steps that the dream knows, as high as the curves."""
    known = np.concatenate(versions)
    known = known[np.isfinite(known)] if np.isfinite(known).any() else np.zeros(1)
    ends = np.array([1.0, max(1.0, film.context)])
    low, high = np.full(2, known.min()), np.full(2, known.max())
    return Curve(Trace(ends, low, low, high), "ground")
