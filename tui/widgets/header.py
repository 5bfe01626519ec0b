"""The three rows on top: which run, how it is set up, how far it is and how fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from dreamer_async.tui.draw.rows import Part, Row, bar, cells, spread
from dreamer_async.tui.draw.text import count, duration, plain, short, size
from dreamer_async.tui.read.progress import Phase, eta_seconds, goal, rate
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.widgets.panel import Panel

_CHIPS = {
    "training": "chip-good",
    "finished": "chip-good",
    "compiling": "chip-busy",
    "starting": "chip-busy",
    "resuming": "chip-busy",
    "prefill": "chip-busy",
    "stopping": "chip-busy",
    "lost": "chip-bad",
    "failed": "chip-bad",
}
_AT_REST = ("lost", "finished", "failed")


@dataclass(frozen=True)
class HeaderFacts:
    """What the header shows."""

    run: str = ""
    phase: Phase = field(default_factory=lambda: Phase("waiting"))
    now: float = 0.0
    """Unix seconds."""
    reading: float | None = None
    """Share of the history that has been read, while it is being read."""
    step: str = ""
    """What the trainer says that it does, before its first event."""


class Header(Panel):
    """Says what is running and where it stands."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._view = RunView()
        self._facts = HeaderFacts()

    def show(self, view: RunView, facts: HeaderFacts) -> None:
        """Replace what is shown."""
        self._view, self._facts = view, facts
        self.repaint()

    def paint(self, width: int, height: int) -> list[Row]:
        view, facts = self._view, self._facts
        name: Row = [Part("▌", "accent"), Part("dreamer-async ", "dim"), Part(facts.run, "strong")]
        rows = [
            spread(name, _chip(facts), width),
            _machine_row(_setup(view, facts), _machine(view), width),
            _progress(view, width, moving=facts.phase.name not in _AT_REST),
        ]
        return rows[:height]


def _chip(facts: HeaderFacts) -> Row:
    phase = facts.phase
    text = phase.name.upper()
    if phase.since:
        text += f" {duration(facts.now - phase.since)}"
    chip = Part(f" {text} ", _CHIPS.get(phase.name, "chip-quiet"))
    if facts.reading is None:
        return [chip]
    return [Part(f"reading history {facts.reading:.0%}  ", "dim"), chip]


def _setup(view: RunView, facts: HeaderFacts) -> list[str]:
    run = view.started
    if facts.step:
        return [facts.step]
    if run is None:
        return ["waiting for the trainer to start"]
    return [
        f"{run.suite}/{run.task}",
        f"{run.size} {short(run.parameters)} parameters",
        f"{run.device} {run.precision}",
        f"{run.num_envs} envs",
        f"seed {run.seed}",
        *(["sync"] if run.sync else []),
        *([] if run.compiled else ["eager"]),
    ]


def _machine(view: RunView) -> list[Row]:
    """CPU, memory, GPU and its memory, as far as the trainer tells."""
    gauges = view.gauges
    used, total = gauges.get("gpu/used_gb"), gauges.get("gpu/total_gb")
    memory = gauges.get("gpu/memory_gb") if used is None else used
    known = (
        ("cpu", _percent(gauges.get("cpu/percent"))),
        ("ram", _gigabytes(gauges.get("memory/rss_gb"))),
        ("gpu", _percent(gauges.get("gpu/percent"))),
        ("vram", _gigabytes(memory, total)),
    )
    return [[Part(f"  {title} ", "dim"), Part(text)] for title, text in known if text]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}%"


def _gigabytes(value: float | None, total: float | None = None) -> str:
    if value is None:
        return ""
    return size(value * 1e9) if total is None else f"{short(value)} of {plain(total)} GB"


def _machine_row(setup: list[str], machine: list[Row], width: int) -> Row:
    """Join both; what does not fit goes, first the details of the setup."""
    while True:
        left: Row = [Part("  " + " · ".join(setup), "dim")]
        right = [part for row in machine for part in row]
        gap = bool(machine)  # `spread` keeps one
        if cells(left) + gap + cells(right) <= width or (len(setup) <= 3 and not machine):
            return spread(left, right, width)
        if len(setup) > 3:
            setup = setup[:-1]
        else:
            machine = machine[1:]


def _progress(view: RunView, width: int, *, moving: bool) -> Row:
    """How far the run is; rates and the end in sight only while it moves."""
    done, planned, unit = goal(view)
    share = done / planned if planned > 0 else 0.0
    left: list[Part] = [Part("  "), Part(count(done), "strong")]
    left += [Part(f" / {plain(planned)} {unit}" if planned else f" {unit}", "dim")]
    left += [Part(f"  {100 * share:.1f}% " if planned else " ")]
    seconds = eta_seconds(view) if moving else None
    right: list[Part] = [Part(" ETA ", "dim")]
    right.append(Part("–" if seconds is None else duration(seconds)))
    speeds = (rate(view, "env_steps"), "steps/s"), (rate(view, "updates"), "updates/s")
    for speed, unit in speeds:
        right += [
            Part("  "),
            Part(short(speed if moving else None), "strong"),
            Part(f" {unit}", "dim"),
        ]
    room = width - cells(left) - cells(right) - 1
    if room >= 6:
        left += bar(share, room)
    return spread(left, right, width)
