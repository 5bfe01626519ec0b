"""What the world model sees and expects: real, reconstructed and dreamed, moving."""

from __future__ import annotations

import numpy as np
from textual.app import ComposeResult

from dreamer_async.tui.draw.chart import Trace
from dreamer_async.tui.draw.picture import Curve, Picture
from dreamer_async.tui.draw.rows import Part, Row
from dreamer_async.tui.draw.text import count, duration
from dreamer_async.tui.pages.page import Page
from dreamer_async.tui.read.film import VERSIONS, Film, Shot
from dreamer_async.tui.read.series import Array
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show import pictures
from dreamer_async.tui.show.names import reconstructions
from dreamer_async.tui.show.shown import Shown
from dreamer_async.tui.widgets.grid import ChartGrid
from dreamer_async.tui.widgets.lines import Caption
from dreamer_async.tui.widgets.video import OTHER_ROWS, Video

LINE = 60
"""Most columns of the time line."""
TRACES, MODEL_CURVES = 4, 3
"""Curves that are drawn in any case: of a vector, and below a film."""
_KEY: Row = (
    Part("• ", "strong"),
    Part("real ", "dim"),
    Part("━ ", "line"),
    Part("seen ", "dim"),
    Part("━ ", "line-2"),
    Part("dreamed", "dim"),
)
"""What the three curves of a vector are."""
WORTH_ROWS = 5
"""Rows below a film from which on curves are drawn there."""
MODEL = ("loss/dyn", "loss/rep", "loss/reward", "loss/cont", "rssm/prior_entropy")
"""What says how good the world model is, besides its reconstructions."""


class World(Page):
    """Plays the newest film of the run."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.time = 0
        """Frame that is shown."""
        self._choice = 0
        self._film: Film | None = None

    def compose(self) -> ComposeResult:
        yield Caption("world model", id="film-caption")
        yield Video(id="film")
        yield ChartGrid(id="traces")

    def show(self, shown: Shown) -> None:
        source = shown.source
        source.film.look()
        film = source.film.film
        if film is not self._film:
            self._film = film
            self.forget()
        age = int(shown.now) if film is None or shown.now - film.time < 100 else shown.now // 10
        key = (self.time, self._choice, self.playing, age, source.film.trouble)
        if self.changed("film", key):
            self._show_film(film, source.film.trouble, shown.now)
        shot = self._shot(film)
        if film is not None and shot is not None and not shot.is_image:
            if self.changed("curves", (self._choice, self.size)):
                self._show_curves(traces(film, shot), TRACES)
        elif self.changed("curves", (self._choice, self.size, shown.age)):
            self._show_curves(_model_curves(shown), MODEL_CURVES)

    def _show_film(self, film: Film | None, trouble: str, now: float) -> None:
        caption, video = self.query_one(Caption), self.query_one(Video)
        shot = self._shot(film)
        video.display = shot is None or shot.is_image
        if film is None or shot is None:
            caption.show([])
            video.show((), (), [[Part(line, "dim")] for line in _nothing(trouble)])
            return
        self.time %= film.length
        caption.show(_note(film, shot, len(film.shots()), now))
        if shot.is_image:
            notes = [[], timeline(film, shot.row, self.time, self.playing)]
            video.show(VERSIONS, film.frame(shot, self.time), notes)

    def _show_curves(self, curves: list[Picture], least: int) -> None:
        """Fill the room below the film, if it is worth it; without a film, all of it."""
        grid, video = self._grid, self.query_one(Video)
        taken = video.rows(self.size.width - 2, self.size.height - OTHER_ROWS)
        left = self.size.height - OTHER_ROWS - video.display * (taken + 1)
        grid.display = left >= WORTH_ROWS and bool(curves)
        if grid.display:
            width = self.size.width - 2
            room = grid.lay_out(min(least, len(curves)), len(curves), (width, left))
            grid.show(curves[: max(room, min(least, len(curves)))])

    @property
    def _grid(self) -> ChartGrid:
        return self.query_one(ChartGrid)

    def _shot(self, film: Film | None) -> Shot | None:
        if film is None:
            return None
        shots = film.shots()
        return shots[self._choice % len(shots)]

    @property
    def moving(self) -> bool:
        """Tell whether there is anything to play."""
        shot = self._shot(self._film)
        return self.playing and shot is not None and shot.is_image

    def advance(self) -> None:
        """Show the next frame."""
        self.time += 1

    def next_source(self) -> None:
        """Show the next sequence or observation key."""
        self._choice += 1
        self.time = 0

    def pan(self, direction: int) -> bool:
        """Step through the frames by hand."""
        self.playing = False
        self.time += direction
        return True

    def move(self, rows: int) -> None:
        self._choice += rows
        self.time = 0

    def topics(self, view: RunView) -> list[str]:
        return [*reconstructions(view.latest), *MODEL, "rssm/posterior_entropy"]


def _model_curves(shown: Shown) -> list[Picture]:
    """How well the model knows what the film shows."""
    names = [*reconstructions(shown.view.latest), *MODEL]
    known = [name for name in names if name in shown.view.metrics]
    return [pictures.metric(shown.view, name, shown.options, shown.named) for name in known]


def _nothing(trouble: str) -> list[str]:
    if trouble:
        return ["the film cannot be shown:", trouble]
    return [
        "no film yet",
        "",
        "The trainer films its world model every few minutes: what was observed,",
        "its reconstruction, and what the model expects when it only knows the actions.",
        "d asks for a film now.",
    ]


def _note(film: Film, shot: Shot, shots: int, now: float) -> Row:
    number = film.shots().index(shot) + 1
    age = duration(now - film.time)
    return [
        Part(f"{shot.key} ", "strong"),
        Part(f"{number} of {shots} (v) · update {count(film.update)} · {age} ago (d: new)", "dim"),
    ]


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


def traces(film: Film, shot: Shot) -> list[Picture]:
    """One chart for each number of a vector observation: real, reconstructed, dreamed.

    The ground reaches as far as the dream has seen.
    """
    real, seen, dreamed = film.traces(shot)
    steps = np.arange(1, film.length + 1, dtype=np.float64)
    charts = []
    for index in range(real.shape[1]):
        versions = [part[:, index].astype(np.float64) for part in (real, seen, dreamed)]
        charts.append(
            Picture(
                title=f"{shot.key}[{index}]" if real.shape[1] > 1 else shot.key,
                value=_KEY if not index else (),
                curves=_three(steps, versions),
                grounds=[_seen(film, versions)],
                name="",
            )
        )
    return charts


def _seen(film: Film, versions: list[Array]) -> Curve:
    """A ground below the steps that the dream knows, as high as the curves."""
    ends = np.array([1.0, max(1.0, film.context)])
    low, high = np.full(2, np.min(versions)), np.full(2, np.max(versions))
    return Curve(Trace(ends, low, low, high), "ground")


def _three(steps: Array, versions: list[Array]) -> list[Curve]:
    real, seen, dreamed = versions
    return [
        Curve(Trace(steps, seen), "line"),
        Curve(Trace(steps, dreamed), "line-2"),
        Curve(Trace(steps, real, kind="dots"), "strong"),
    ]
