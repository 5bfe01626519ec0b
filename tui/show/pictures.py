"""From a RunView to what each chart shows: words, curves and looks, without Textual."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dreamer_async.scores import curves as published
from dreamer_async.scores.references import Ceiling, ceiling
from dreamer_async.tui.draw.picture import Curve, Entry, Picture
from dreamer_async.tui.draw.rows import Part, Row
from dreamer_async.tui.draw.text import count, plain, plural, short
from dreamer_async.tui.draw.trace import Trace
from dreamer_async.tui.read.progress import Counter, rate
from dreamer_async.tui.read.series import Array, Series
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show.names import FREE, matching, optional_charts, required_charts, title
from dreamer_async.tui.show.options import Options, along, frames_per_step, window
from dreamer_async.tui.show.verdict import verdict

OTHERS = ("line-2", "line-3", "line-4")
"""Looks of the runs that are laid over the first."""
MARKS: dict[str, str] = dict(zip(OTHERS, ("△", "▽", "◇"), strict=True))
"""Their marks, for terminals that do not show the looks apart."""

QUARTILES_AT = 512
"""Most places at which the quartiles of the returns are computed: more than a chart has columns."""
CEILING_ROOM = 1.0
"""A line that lies further from the returns than they are spread, times this, would squeeze them:
it is only named."""

GAUGES_AVERAGED, RARE_AVERAGED = 15, 60
"""Gauges events, that is seconds, that a line over the last minutes averages; the second where
most of them are 0."""

RECENT_SECONDS = 600.0
"""How far the charts of gauges go back."""
MINUTES_FROM = 150.0
"""Seconds from which on their axis counts minutes."""


class Named(NamedTuple):
    """A run that is laid over the first."""

    name: str
    view: RunView
    look: str


def returns(view: RunView, options: Options, others: Sequence[Named] = ()) -> Picture:
    """Episode scores as dots, their rolling mean as a line over their quartiles, what is known."""
    series, span = view.episodes, options.smoothing
    x, mean = along(view, series, options.axis), series.rolling_mean(span)
    grounds, curves = _published_curves(view, options)
    curves.append(Curve(_envelope(view, series, options, "dots"), "dots"))
    curves += _others(others, options, lambda other: other.episodes)
    if span > 1 and len(series):
        grounds.append(Curve(_quartiles(series, x, span, window(view, options)), "ground"))
        curves.append(Curve(Trace(x, mean), thick=True))
    curves += [Curve(evaluated(view, options), "accent")] if view.evaluations else []
    top = _ceiling(view)
    full, brief = _said(view, options)
    return Picture(
        title="returns",
        note=f"mean and quartiles of {span} episodes" if span > 1 else "",
        short_note=f"mean of {span}" if span > 1 else "",
        value=full,
        brief=brief,
        legend=_returns_legend(view, others, options.smoothing) if len(series) else [],
        curves=curves,
        grounds=grounds,
        references=[top.value] if top is not None and _has_room(top.value, series) else [],
        unit=options.unit,
        window=window(view, options),
        empty="no finished episode yet",
        name="episode/score",
    )


def _quartiles(series: Series, x: Array, span: int, part: tuple[float, float] | None) -> Trace:
    """Quartiles of the last `span` episodes, where they are visible."""
    first, last = 0, len(x)
    if part is not None and part[0] < part[1]:
        first, last = np.searchsorted(x, part).tolist()
    number = min(QUARTILES_AT, last - first)
    places = np.unique(np.linspace(first, max(first, last - 1), number).astype(np.intp))
    low, high = series.rolling_quartiles(span, places)
    return Trace(x[places], (low + high) / 2, low, high)


def _said(view: RunView, options: Options) -> tuple[Row, Row]:
    """The verdict on the returns, with and without what was published."""
    series = view.episodes
    if not len(series):
        return (), ()
    x = along(view, series, options.axis)
    top = _ceiling(view)
    optimum = top.value if top is not None and top.kind == "optimum" else None
    said = verdict(x, series.mean, optimum, options.unit)
    brief = [Part(said.words, said.look)]
    beside = _beside_published(view, float(series.rolling_mean(options.smoothing)[-1]))
    if not beside:
        return brief, brief
    place = {"ahead": "ahead of", "behind": "behind", "on track": "on"}[beside]
    return [*brief, Part(", "), Part(f"{place} the published curve", _WORDS[beside])], brief


def _ceiling(view: RunView) -> Ceiling | None:
    """What the returns may be measured against, if anything."""
    started = view.started
    return None if started is None else ceiling(started.suite, started.task)


def _has_room(value: float, series: Series) -> bool:
    """Whether a line at this value leaves the returns room."""
    if not len(series):
        return False
    low, high = float(series.low.min()), float(series.high.max())
    return low - value <= CEILING_ROOM * (high - low) >= value - high


def _returns_legend(view: RunView, others: Sequence[Named], span: int) -> list[Entry]:
    mean = float(view.episodes.rolling_mean(span)[-1])
    legend = [_entry("line", "━ ", "mean", mean)]
    for name, other, look in others:
        latest = other.episodes.rolling_mean(span)
        value = float(latest[-1]) if len(latest) else None
        legend.append(_entry(look, f"{MARKS.get(look, '━')} ", name, value))
    legend += _published_legend(view, mean)
    if (top := _ceiling(view)) is not None:
        legend.append(_entry("floor", "┄ ", top.kind, top.value))
    legend.append(_entry("dots", "• ", "last", view.episodes.last))
    if view.evaluations:
        legend.append(_entry("accent", "◆ ", "evaluated", view.evaluations[-1].mean))
    legend.append(_entry("dim", "", "best", view.best_score))
    legend.append([[Part(plural(view.episode_count, "episode"), "dim")]])
    legend.append([[Part(f"last length {count(view.last_length)}", "dim")]])
    if view.started is not None and _published(view) is None and _ceiling(view) is None:
        legend.append([[Part("no reference", "dim")]])
    return legend


def _entry(look: str, mark: str, title: str, value: float | None) -> Entry:
    return [[Part(mark, look), Part(f"{title} ", "dim"), Part(short(value), "strong")]]


def evaluated(view: RunView, options: Options) -> Trace:
    """Mean scores of the episodes that were played when asked, a dot for each time."""
    series = Series(max(2, 2 * len(view.evaluations)))
    for done in view.evaluations:
        series.append(done.env_steps, done.mean, done.updates, done.ran)
    return Trace(along(view, series, options.axis), series.mean, kind="dots")


# -- what was published ----------------------------------------------------------------------


def _published(view: RunView) -> published.Published | None:
    started = view.started
    return None if started is None else published.find(started.suite, started.task)


def _published_curves(view: RunView, options: Options) -> tuple[list[Curve], list[Curve]]:
    """Range and median of the published runs, as far as this run has come: ground and curve."""
    known, series = _published(view), view.episodes
    if known is None or not len(series) or options.axis not in ("steps", "frames"):
        return [], []
    repeat = frames_per_step(view)
    part = known.until(float(series.x[-1]) * repeat)
    if not len(part.frames):
        return [], []
    x = part.frames / (repeat if options.axis == "steps" else 1)
    band = Trace(x, part.median, part.low, part.high)
    return [Curve(band, "ground-published")], [Curve(Trace(x, part.median), "reference")]


def _published_legend(view: RunView, score: float) -> list[Entry]:
    """What was published for this many steps, and how the run compares where it may be compared."""
    known, started = _published(view), view.started
    if known is None or started is None:
        return []
    repeat, how = frames_per_step(view), published.made_with(started.suite)
    here = known.at(float(view.episodes.x[-1]) * repeat)
    if here is None:
        end = f" at {count(known.frames[-1] / repeat)}"
        return [_reference(float(known.median[-1]), [Part(end, "dim")], how)]
    said = _beside_published(view, score)
    word = [Part(f" {said}", _WORDS[said])] if said else []
    spread = f"{short(here.low)} to {short(here.high)}"
    return [_reference(here.median, word, f"{spread}, {how}", how)]


_WORDS = {"ahead": "good", "behind": "warn", "on track": "strong"}
"""Looks of the words that compare with the published runs."""


def _beside_published(view: RunView, score: float) -> str:
    """One of those words; empty where size and protocol are others, or nothing is known."""
    known, started = _published(view), view.started
    if known is None or started is None or not len(view.episodes):
        return ""
    repeat = frames_per_step(view)
    here = known.at(float(view.episodes.x[-1]) * repeat)
    same = published.comparable(started.suite, started.size, started.train_ratio, repeat)
    return published.verdict(score, here) if same and here is not None else ""


def _reference(median: float, word: Row, *notes: str) -> Entry:
    """A published median and how it was made, which takes the place of the name if need be."""
    value = Part(short(median), "strong")
    full = [
        [Part("┄ published ", "reference"), value, *word, Part(f" ({note})", "dim")]
        for note in notes
    ]
    return [*full, [Part(f"┄ {notes[-1]} ", "reference"), value, *word]]


# -- scale and losses ------------------------------------------------------------------------


def scale(view: RunView, options: Options) -> Picture:
    """The return scale S and the percentiles that it comes from."""
    names = (
        *(("return/S", "line", "○"), ("return/p5", "line-2", "▽"), ("return/p95", "line-3", "△")),
    )
    known = [(view.metrics[name], look, m) for name, look, m in names if name in view.metrics]
    legend = [
        _entry(look, f"{mark} ", title(name, view.limits)[len("return/") :], view.latest.get(name))
        for name, look, mark in names
        if name in view.metrics
    ]
    return Picture(
        title="return scale S",
        value=_floored(view) if view.at_floor else [],
        legend=legend,
        curves=[
            Curve(_envelope(view, series, options), look, mark=mark)
            for series, look, mark in reversed(known)
        ],
        references=[view.limits.return_floor] if known else [],
        unit=options.unit,
        window=window(view, options),
        name="return/S",
    )


def _floored(view: RunView) -> Row:
    """Say that S is not what the returns would give, and what that is."""
    low, high = view.latest.get("return/p5"), view.latest.get("return/p95")
    if low is None or high is None:
        return [Part(f"at its floor {plain(view.limits.return_floor)}", "warn")]
    return [Part("at floor, ", "warn"), Part("raw ", "dim"), Part(short(high - low), "strong")]


def loss_names(view: RunView, options: Options) -> tuple[list[str], list[str]]:
    """Metrics to draw in any case, and those that fill the room which is left."""
    if options.filter:
        return matching(view.latest, options.filter), []
    return required_charts(view.latest), optional_charts(view.metrics)


def losses(
    view: RunView, options: Options, room: int, others: Sequence[Named] = (), chosen: str = ""
) -> list[Picture]:
    """One small chart for every required metric and for others while there is room."""
    required, optional = loss_names(view, options)
    names = (required + optional)[: max(room, len(required))]
    return [metric(view, name, options, others, chosen=name == chosen) for name in names]


def losses_note(options: Options, *, found: bool = True) -> Row:
    """Say how the small charts are drawn, or that there are none."""
    if options.filter and not found:
        return [Part(f"no metric has /{options.filter} in its name; / asks again", "warn")]
    if options.smoothing > 1:
        smooth = f"mean of {options.smoothing} over min and max"
    else:
        smooth = "min and max"
    axis = {"auto": "log where it helps", "log": "log axis", "linear": "linear axis"}
    across = "env steps" if options.axis == "steps" else options.unit
    note = f"{across} · {smooth} · {axis[options.log]}"
    if not options.zoom.everything:
        note = f"{zoomed(options)} · {note}"
    parts = [Part(note, "dim")]
    return [Part(f"/{options.filter}  ", "warn"), *parts] if options.filter else parts


def zoomed(options: Options) -> str:
    """Say which part of the run is visible."""
    zoom = options.zoom
    part = f"1/{1 / zoom.span:.0f} of the run"
    return f"newest {part}" if zoom.end >= 1 else f"{part}, to {zoom.end:.1%}"


def metric(
    view: RunView,
    name: str,
    options: Options,
    others: Sequence[Named] = (),
    *,
    chosen: bool = False,
    labelled: bool = False,
) -> Picture:
    """The curve of one metric: its range pale, its rolling mean bright."""
    series = view.metrics.get(name)
    latest = view.latest.get(name)
    value = Part("NaN", "bad") if name in view.latest and latest is None else None
    curves = []
    if series is not None and len(series):
        curves.append(
            Curve(_envelope(view, series, options), "dots" if options.smoothing > 1 else "line")
        )
        curves += _others(others, options, lambda other: other.metrics.get(name))
        if options.smoothing > 1:
            x = along(view, series, options.axis)
            curves.append(Curve(Trace(x, series.rolling_mean(options.smoothing))))
    floor = view.limits.free_nats if name in FREE else None
    return Picture(
        title=("▸ " if chosen else "") + title(name, view.limits),
        value=[value or Part(short(latest), "strong")],
        curves=curves,
        note="" if floor is None else f"floor {plain(floor)}",
        references=[floor] if floor is not None and curves else [],
        include=[0.0] if floor is not None and curves else [],
        log=options.log,
        unit=options.unit if labelled else "",
        window=window(view, options),
        empty="–",
        name=name,
    )


def _others(
    others: Sequence[Named], options: Options, choose: Callable[[RunView], Series | None]
) -> list[Curve]:
    """Rolling means of the same series in other runs."""
    curves = []
    for _, other, look in others:
        series = choose(other)
        if series is not None and len(series):
            mean = series.rolling_mean(options.smoothing)
            trace = Trace(along(other, series, options.axis), mean)
            curves.append(Curve(trace, look, mark=MARKS.get(look, "")))
    return curves


def _envelope(view: RunView, series: Series, options: Options, kind: str = "line") -> Trace:
    x = along(view, series, options.axis)
    return Trace(x, series.mean, series.low, series.high, "dots" if kind == "dots" else "line")


# -- gauges of the last minutes --------------------------------------------------------------


def _calm(view: RunView, name: str) -> float | None:
    """The newest value of a gauge; of a rate, its mean of late."""
    counters: dict[str, Counter] = {"rate/env_steps": "env_steps", "rate/updates": "updates"}
    speed = rate(view, counters[name]) if name in counters else None
    return view.gauges.get(name) if speed is None else speed


def recent(view: RunView, name: str, title: str, target: str = "") -> Picture:
    """One gauge over the last minutes; a second one may be its target."""
    since = view.clock.ran - RECENT_SECONDS
    kept = [(r.ran, r.values.get(name)) for r in view.recent if r.ran >= since]
    known = [(ran - view.clock.ran, value) for ran, value in kept if value is not None]
    latest, goal = _calm(view, name), view.gauges.get(target)
    value: list[Part] = [Part(short(latest), "strong")]
    if goal is not None:
        value.append(Part(f" of {plain(goal)}", "dim"))
    x, y = np.array(known, dtype=np.float64).reshape(-1, 2).T
    minutes = len(x) > 0 and -float(x[0]) >= MINUTES_FROM
    calm = Series(max(2, 2 * len(y)))
    for when, raw in zip(x.tolist(), y.tolist(), strict=True):
        calm.append(when, raw)
    rare = 2 * np.count_nonzero(y) < len(y)
    x = x / 60 if minutes else x
    mean = Trace(x, calm.rolling_mean(RARE_AVERAGED if rare else GAUGES_AVERAGED))
    return Picture(
        title=title,
        value=value,
        curves=[Curve(Trace(x, y, kind="dots"), "dots"), Curve(mean)] if known else [],
        references=[goal] if goal is not None and known else [],
        include=[0.0] if known else [],
        unit="minutes" if minutes else "seconds",
        empty="–",
        name=name,
    )
