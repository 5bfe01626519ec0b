"""From a RunView to what each widget shows: words, curves and looks, without Textual."""

from __future__ import annotations

from dataclasses import dataclass

from tui import published
from tui.chart import Trace
from tui.series import Series
from tui.state import (
    FLOORS,
    SCALE_FLOOR,
    Phase,
    RunView,
    at_floor,
    label,
    optional_charts,
    required_charts,
)
from tui.text import count, duration, plain, plural, short
from tui.widgets.chart import Curve, LogMode, Picture
from tui.widgets.meters import Meter
from tui.widgets.panel import Part, Row

SMOOTHINGS = (20, 100, 500, 1)
"""How many episodes or metrics events a line averages; 1 draws them as they are."""

STAGES = {
    "stage/env_wait": "env wait",
    "stage/ratio_wait": "ratio wait",
    "stage/policy": "policy",
    "stage/update": "update",
    "stage/sample": "sample",
    "stage/learner_wait": "learner wait",
    "stage/transfer": "transfer",
    "stage/write_latents": "write latents",
    "stage/insert": "insert",
}
"""Stages by importance: a low terminal shows the first five."""


@dataclass(frozen=True)
class Options:
    """What the person at the keyboard chose."""

    smoothing: int = SMOOTHINGS[0]
    log: LogMode = "auto"


def returns(view: RunView, options: Options) -> Picture:
    """Episode scores as dots, their rolling mean as a line, the published curve behind them."""
    series = view.episodes
    curves = [*_published_curves(view), Curve(_envelope(series, "dots"), "dots")]
    mean = series.rolling_mean(options.smoothing)
    if options.smoothing > 1:
        curves.append(Curve(Trace(series.x, mean)))
    legend: list[Part] = []
    if len(series):
        legend += _entry("line", "━ ", "mean", float(mean[-1]))
        legend += _published_legend(view, float(mean[-1]))
        legend += _entry("dots", "  • ", "last", series.last)
        legend += _entry("dim", "  ", "best", view.best_score)
        legend.append(Part(f"  {plural(view.episode_count, 'episode')}", "dim"))
        legend.append(Part(f"  last length {count(view.last_length)}", "dim"))
    return Picture(
        title="returns",
        note=f"mean of {options.smoothing} episodes" if options.smoothing > 1 else "",
        legend=legend,
        curves=curves,
        steps=True,
        empty="no finished episode yet",
    )


def _entry(look: str, mark: str, title: str, value: float | None) -> list[Part]:
    return [Part(mark, look), Part(f"{title} ", "dim"), Part(short(value), "strong")]


def _published(view: RunView) -> published.Published | None:
    started = view.started
    return None if started is None else published.find(started.suite, started.task)


def _published_curves(view: RunView) -> list[Curve]:
    """Mean and deviation of the published runs, as far as this run has come."""
    known, series = _published(view), view.episodes
    if known is None or view.started is None or not len(series):
        return []
    repeat = max(1, view.started.frames_per_step)
    part = known.until(float(series.x[-1]) * repeat)
    if not len(part.frames):
        return []
    x, mean, std = part.frames / repeat, part.mean, part.std
    band = Trace(x, mean, mean - std, mean + std)
    return [Curve(band, "band"), Curve(Trace(x, mean), "reference")]


def _published_legend(view: RunView, score: float) -> list[Part]:
    """What was published for this many steps, and how the run compares where it may be compared."""
    known, started = _published(view), view.started
    if known is None or started is None:
        return []
    repeat = max(1, started.frames_per_step)
    here = known.at(float(view.episodes.x[-1]) * repeat)
    if here is None:
        end = f"{short(float(known.mean[-1]))} at {count(known.frames[-1] / repeat)}"
        return [Part("  ┄ published ", "reference"), Part(f"{end} ({published.SIZE})", "dim")]
    legend = [Part("  ┄ published ", "reference"), Part(short(here[0]), "strong")]
    if published.comparable(started.suite, started.size, started.train_ratio):
        word = published.verdict(score, *here)
        legend.append(Part(f" {word}", {"ahead": "good", "behind": "warn"}.get(word, "strong")))
    return [*legend, Part(f" ({published.SIZE})", "dim")]


def scale(view: RunView) -> Picture:
    """The return scale S and the percentiles that it spans."""
    looks = {"return/S": "line", "return/p5": "line-2", "return/p95": "line-3"}
    legend: list[Part] = []
    for name, look in looks.items():
        gap = "  " if legend else ""
        legend += [Part(f"{gap}{name.removeprefix('return/')} ", look)]
        legend += [Part(short(view.latest.get(name)), "strong")]
    known = [(view.metrics[name], look) for name, look in looks.items() if name in view.metrics]
    return Picture(
        title="return scale S",
        value=[Part("at its floor 1", "warn")] if at_floor(view) else [],
        legend=legend,
        curves=[Curve(_envelope(series), look) for series, look in reversed(known)],
        references=[SCALE_FLOOR] if known else [],
    )


def losses(view: RunView, options: Options, room: int) -> list[Picture]:
    """One small chart for every required metric and for others while there is room."""
    required = required_charts(view)
    names = required + optional_charts(view)
    return [_metric(view, name, options) for name in names[: max(room, len(required))]]


def losses_note(options: Options) -> Row:
    """Say how the small charts are drawn."""
    if options.smoothing > 1:
        smooth = f"mean of {options.smoothing} over min and max"
    else:
        smooth = "min and max"
    axis = {"auto": "log where it helps", "log": "log axis", "linear": "linear axis"}
    return [Part(f"env steps · {smooth} · {axis[options.log]}", "dim")]


def pipeline(view: RunView) -> list[Meter]:
    """How each stage of the pipeline spends its time."""
    known = [name for name in STAGES if name in view.gauges]
    return [_stage(name, view.gauges.get(name)) for name in known or tuple(STAGES)[:5]]


def _stage(name: str, share: float | None) -> Meter:
    """Show a share of 0..1; a call that ends counts at once, so that short spells exceed 1."""
    look = "bar-wait" if name.endswith("_wait") else "bar"
    if share is None:
        return Meter(STAGES[name], "–", 0.0, look)
    share = max(0.0, min(1.0, share))
    return Meter(STAGES[name], f"{share:.0%}", share, look)


def replay(view: RunView) -> list[Meter]:
    """How full the ring is, and whether training keeps pace with collecting."""
    gauges = view.gauges
    fill, gigabytes = gauges.get("replay/fill"), gauges.get("replay/gb")
    steps, queue = gauges.get("replay/steps"), gauges.get("replay/online_queue")
    lag = gauges.get("policy/lag")
    actual, target = gauges.get("ratio/actual"), gauges.get("ratio/target")
    size = f"{short(gigabytes)} GB" if gigabytes is not None else "–"
    if view.started is not None and view.started.replay_capacity:
        size += f" for {plain(view.started.replay_capacity)}"
    return [
        Meter("fill", "–" if fill is None else f"{fill:.0%}", fill or 0.0),
        Meter("train ratio", f"{short(actual)} of {'–' if target is None else plain(target)}"),
        Meter("size", size),
        Meter("policy lag", "–" if lag is None else plural(lag, "update")),
        Meter("steps added", "–" if steps is None else count(steps)),
        Meter("online queue", "–" if queue is None else plural(queue, "window")),
    ]


def alert(view: RunView, phase: Phase, now: float) -> Row:
    """The one thing a person should know now."""
    if phase.name == "lost":
        return [Part("▲ lost  ", "bad"), Part(_lost_hint(view))]
    if view.finished is not None and phase.name == "finished":
        said = view.finished.message or view.finished.reason
        return [Part("● finished  ", "good"), Part(f"{said} at step {count(view.env_steps)}")]
    if not view.alerts:
        return [Part("no warnings", "dim")]
    newest = view.alerts[-1]
    look = {"error": "bad", "warning": "warn"}.get(newest.level, "accent")
    age = duration(now - newest.time)
    return [
        Part(f"▲ {newest.level} ", look),
        Part(f"{age} ago  ", "dim"),
        Part(newest.message),
    ]


def safety(view: RunView, now: float) -> Row:
    """What was skipped and what is saved."""
    row: list[Part] = []
    skipped = view.gauges.get("opt/skipped")
    if skipped:
        row.append(Part(f"{plural(skipped, 'NaN update')} skipped  ", "bad"))
    if view.checkpoint is None:
        return [*row, Part("no checkpoint yet", "dim")]
    age = duration(now - view.checkpoint_at)
    size = short(view.checkpoint.bytes / 1e6)
    return [*row, Part(f"saved {age} ago ({size} MB)", "dim")]


def _lost_hint(view: RunView) -> str:
    if view.started is None:
        return "no trainer works on this run"
    return f"the trainer is gone; `dreamer-async resume {view.started.run}` goes on"


def _envelope(series: Series, kind: str = "line") -> Trace:
    return Trace(
        series.x, series.mean, series.low, series.high, "dots" if kind == "dots" else "line"
    )


def _metric(view: RunView, name: str, options: Options) -> Picture:
    series = view.metrics.get(name)
    known = name in view.latest
    latest = view.latest.get(name)
    value = Part("NaN", "bad") if known and latest is None else Part(short(latest), "strong")
    curves = []
    if series is not None and len(series):
        curves.append(Curve(_envelope(series), "dots" if options.smoothing > 1 else "line"))
        if options.smoothing > 1:
            mean = series.rolling_mean(options.smoothing)
            curves.append(Curve(Trace(series.x, mean)))
    floor = FLOORS.get(name)
    return Picture(
        title=label(name),
        value=[value],
        curves=curves,
        note="" if floor is None else f"floor {plain(floor)}",
        references=[floor] if floor is not None and curves else [],
        include=[0.0] if floor is not None and curves else [],
        log=options.log,
        empty="–",
    )
