"""What is said beside a film: which one it is, where it stands, or what is waited for."""

from __future__ import annotations

from dreamer_async.tui.draw.picture import Entry
from dreamer_async.tui.draw.rows import Part, Row, cells
from dreamer_async.tui.draw.text import count, duration
from dreamer_async.tui.read.film import Film, Shot
from dreamer_async.tui.read.progress import Phase
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show.traces import horizon, horizon_words

LINE = 60
"""Most columns of the time line."""
FIRST_SECONDS = 15
"""The trainer tries to film for the first time after so many seconds, and again as often."""
OVER = ("finished", "failed", "lost")
"""Phases without a trainer."""


def note(film: Film, shot: Shot, phase: Phase, now: float, width: int, more: str) -> Row:
    """Which sequence it is and how old; what does not fit into so many columns is left out.

    `more` says which of its numbers are shown.
    """
    shots = film.shots()
    which = f"{shots.index(shot) + 1} of {len(shots)} (v)"
    entries: list[Entry] = [[[Part(f"{shot.key} ", "strong"), Part(which, "dim")]]]
    if not shot.is_image:
        entries.append([[Part("dream ", "dim"), *horizon_words(horizon(film, shot), film)]])
        entries += [[[Part(more, "dim")]]] if more else []
    entries.append([[Part(age, "dim")] for age in _ages(film, phase, now)])
    entries.append([[Part(f"update {count(film.update)}", "dim")]])
    if not shot.is_image:
        good = "nine in ten right" if shot.key in film.classes else "off by under half its spread"
        entries.append([[Part(f"good: {good}", "dim")]])
    return _joined(entries, width)


def _joined(entries: list[Entry], width: int) -> Row:
    """Every entry in the most words that there is room for."""
    row: list[Part] = []
    for entry in entries:
        between = [Part(" · ", "dim")] if row else []
        room = width - cells(row) - cells(between)
        fitting = [words for words in entry if cells(words) <= room]
        row += [*between, *fitting[0]] if fitting else []
    return row


def _ages(film: Film, phase: Phase, now: float) -> list[str]:
    """How old a film is, and when the next one comes, in ever fewer words."""
    age = f"{duration(now - film.time)} ago"
    if phase.name in OVER:
        return [age]
    left = film.time + film.pause - now
    known = film.pause > 0 and left > 0 and phase.name == "training"
    coming = [f"{age}, next in {duration(left)} (d: now)"] if known else []
    return [*coming, f"{age} (d: now)", age]


def waiting(view: RunView, phase: Phase, trouble: str) -> list[str]:
    """Say why there is no film and when one comes, a line each."""
    if trouble:
        return ["The film cannot be shown:", trouble, "", *_coming(view, phase)]
    return [
        "No film yet.",
        "",
        "A film shows what was observed, its reconstruction, and what the world model",
        "expects when it only knows the actions.",
        "",
        *_coming(view, phase),
    ]


def _coming(view: RunView, phase: Phase) -> list[str]:
    if phase.name in OVER:
        return ["This run is not being trained: films come again once it is resumed."]
    if phase.name == "paused":
        return ["The run is paused: films are made when it continues (p)."]
    if phase.name == "stopping":
        return ["The run is stopping: none will come until it is resumed."]
    if phase.name == "training" and view.updates:
        soon = f"The first one comes within {FIRST_SECONDS} seconds of the first update,"
        return [f"{soon} the others every", "two minutes or more slowly; d asks for one now."]
    where = f"Now: {phase.name}, step {count(view.env_steps)}, update {count(view.updates)}."
    return [f"The first one comes within {FIRST_SECONDS} seconds of the first update.", where]


def timeline(film: Film, row: int, time: int, playing: bool) -> Row:
    """Say where in the sequence the frame is, and whether the dream still sees."""
    parts: list[Part] = [Part("▶ " if playing else "• ", "accent")]
    for step in range(min(film.length, LINE)):
        if step == time:
            parts.append(Part("◆", "strong"))
        elif step and film.is_first[row, step]:
            parts.append(Part("|", "warn"))
        else:
            parts.append(Part("━" if step < film.context else "─", "line"))
    sees = "sees" if time < film.context else "dreams"
    words = f"  step {time + 1:>{len(str(film.length))}} of {film.length}, {sees}"
    reset = bool(film.is_first[row, film.context : time + 1].any()) and time >= film.context
    parts.append(Part(words, "text"))
    if reset:
        parts.append(Part("  a new episode began: the dream cannot know", "warn"))
    return parts
