"""What the world model sees and expects: real, reconstructed and dreamed, moving."""

from __future__ import annotations

from dataclasses import replace

from textual.app import ComposeResult

from dreamer_async.tui.draw.picture import Picture
from dreamer_async.tui.draw.rows import Part
from dreamer_async.tui.pages.page import Page
from dreamer_async.tui.read.film import VERSIONS, Film, Shot
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show import pictures
from dreamer_async.tui.show.film_notes import note, timeline, waiting
from dreamer_async.tui.show.names import reconstructions
from dreamer_async.tui.show.shown import Shown
from dreamer_async.tui.show.traces import count, traces
from dreamer_async.tui.widgets.grid import ChartGrid
from dreamer_async.tui.widgets.lines import Caption
from dreamer_async.tui.widgets.video import OTHER_ROWS, Video

TRACES, MODEL_CURVES = 4, 3
"""Curves that are drawn in any case: of a vector, and below a film."""
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
        self._first = 0
        """First of the numbers of a vector that are drawn."""
        self._page = 1
        """How many of them are."""
        self._part = ""
        """Which of them, in words, if it is not all."""

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
        shot = self._shot(film)
        if film is not None and shot is not None and not shot.is_image:
            if self.changed("curves", (self._choice, self.size, self._first)):
                self._show_numbers(film, shot)
            self._show_news(film, shown)
            return
        self._show_news(film, shown)
        if self.changed("curves", (self._choice, self.size, shown.age)):
            self._show_curves(_model_curves(shown), MODEL_CURVES)

    def _show_news(self, film: Film | None, shown: Shown) -> None:
        """Show the film or what is waited for, if that changed or its age in words did."""
        old = film is not None and shown.now - film.time >= 100
        stands = film or (shown.view.env_steps, shown.view.updates)
        trouble, phase = shown.source.film.trouble, shown.source.phase
        key = (self.time, self._choice, self.playing, self._part, self.size, trouble, phase)
        if self.changed("film", (*key, int(shown.now / 10 if old else shown.now), stands)):
            self._show_film(film, shown)

    def _show_film(self, film: Film | None, shown: Shown) -> None:
        caption, video = self.query_one(Caption), self.query_one(Video)
        trouble, phase = shown.source.film.trouble, shown.source.phase
        shot = self._shot(film)
        video.display = shot is None or shot.is_image
        if film is None or shot is None:
            caption.show([])
            lines = waiting(shown.view, phase, trouble)
            video.show((), (), [[Part(line, "dim")] for line in lines])
            return
        self.time %= film.length
        room = self.size.width - len("world model") - 6
        caption.show(note(film, shot, phase, shown.now, room, self._part))
        if shot.is_image:
            notes = [[], timeline(film, shot.row, self.time, self.playing)]
            video.show(VERSIONS, film.frame(shot, self.time), notes)

    def _show_numbers(self, film: Film, shot: Shot) -> None:
        """Fill the page with the charts of a vector, as many of them as there is room for."""
        grid, known = self._grid, count(film, shot)
        grid.display = True
        size = self.size.width, max(1, self.size.height - OTHER_ROWS)
        self._page = min(known, grid.lay_out(min(TRACES, known), known, size))
        self._first = max(0, min(self._first, known - self._page))
        which = range(self._first, self._first + self._page)
        columns = grid.styles.grid_size_columns
        grid.show(traces(film, shot, which, size[0] // columns - 2))
        self._part = f"{which.start + 1}-{which.stop} of {known}" if len(which) < known else ""

    def _show_curves(self, curves: list[Picture], least: int) -> None:
        """Fill the room below the film, if it is worth it; without a film, all of it."""
        grid, video = self._grid, self.query_one(Video)
        taken = video.rows(self.size.width, self.size.height - OTHER_ROWS)
        left = self.size.height - OTHER_ROWS - video.display * (taken + 1)
        grid.display = left >= WORTH_ROWS and bool(curves)
        self._part = ""
        if grid.display:
            size = self.size.width, left
            room = grid.lay_out(min(least, len(curves)), len(curves), size)
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
        self._choose(1)

    def _choose(self, further: int) -> None:
        self._choice += further
        self.time = self._first = 0

    def pan(self, direction: int) -> bool:
        """Step through the frames by hand."""
        self.playing = False
        self.time += direction
        return True

    def move(self, rows: int) -> None:
        self._choose(rows)

    def turn_page(self, direction: int) -> None:
        self._first += direction * self._page

    def topics(self, view: RunView) -> list[str]:
        return [*reconstructions(view.latest), *MODEL, "rssm/posterior_entropy"]


def _model_curves(shown: Shown) -> list[Picture]:
    """How well the model knows what the film shows."""
    names = [*reconstructions(shown.view.latest), *MODEL]
    known = [name for name in names if name in shown.view.metrics]
    view, options = shown.view, shown.options
    drawn = [pictures.metric(view, name, options, shown.named) for name in known]
    return [replace(picture, unit=options.unit) for picture in drawn]
