"""The terminal screen of `play`: the dream as half blocks, and what the model expects beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import Static

from dreamer_async.play.keys import bindings, legend
from dreamer_async.play.world import Action, Moment, Reality, World
from dreamer_async.tui.draw.rows import Part
from dreamer_async.tui.widgets.video import fitted, half_blocks, resized, shaded

FPS = 8
"""Steps per second of the agent."""
GAP = 2
PANEL = 26
"""Columns of the numbers."""


class Screen(Static):
    """Pictures side by side, as large as there is room."""

    def __init__(self) -> None:
        super().__init__(id="screen")
        self._pictures: Sequence[tuple[str, NDArray[np.uint8]]] = ()

    def show(self, pictures: Sequence[tuple[str, NDArray[np.uint8]]]) -> None:
        """Replace titles and pictures [H, W, 3]."""
        self._pictures = pictures
        self.refresh()

    def render(self) -> Text:
        """Two pixels a cell."""
        if not self._pictures:
            return Text("")
        room = (self.size.width - GAP * (len(self._pictures) - 1)) // len(self._pictures)
        columns: list[list[Text]] = []
        for title, picture in self._pictures:
            rows, width = fitted(picture.shape, room, self.size.height - 1)
            cells = drawn(resized(picture, 2 * rows, width), coloured=not self.app.no_color)
            columns.append([Text(title[:width].ljust(width), "bold"), *cells])
        lines = [
            Text(" " * GAP).join(
                column[row] if row < len(column) else Text("") for column in columns
            )
            for row in range(max(map(len, columns)))
        ]
        return Text("\n").join(lines)


def drawn(pixels: NDArray[np.uint8], *, coloured: bool) -> list[Text]:
    """[2 H, W, 3] as H lines: half blocks, or shades of characters without colour."""
    rows = half_blocks(pixels) if coloured else shaded(pixels)
    return [Text.assemble(*((part.text, _style(part)) for part in row)) for row in rows]


def _style(part: Part) -> Style:
    return part.look if isinstance(part.look, Style) else Style.null()


class Play(App[None]):
    """Keys are actions, `space` lets the agent play, `r` begins at another real moment."""

    CSS = f"""
    #body {{ height: 1fr; }}
    #screen {{ width: 1fr; height: 100%; }}
    #numbers {{ width: {PANEL}; height: 100%; padding: 1 1; }}
    #keys {{ height: 1; background: $panel; }}
    """
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, world: World, reality: Reality | None = None) -> None:
        super().__init__()
        self.world, self.reality = world, reality
        self.playing = False
        """Whether the agent plays."""
        self.moment: Moment | None = None
        self.total = 0.0
        """Rewards that the model expected since the last real moment."""
        self._actions = bindings(world.spec)
        self._last: Action | None = None
        self._real: NDArray[np.uint8] | None = None
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(id="body"):
            yield Screen()
            yield Static(id="numbers", markup=False)
        keys = f"{legend(self.world.spec)}  space agent  r restart  q quit"
        yield Static(keys, id="keys", markup=False)

    def on_mount(self) -> None:
        self._timer = self.set_interval(1 / FPS, self._tick)
        self._restart()

    def on_key(self, event: events.Key) -> None:
        """One key, one step."""
        match event.key:
            case "q" | "escape" | "ctrl+c":
                self.exit()
            case "space":
                self.playing = not self.playing
                self._update()
            case "r":
                self._restart()
            case key if key in self._actions:
                self.playing = False
                self._step(self._actions[key])

    def _tick(self) -> None:
        if self.playing:
            self._step(self.world.choose())

    def _restart(self) -> None:
        """Begin at another real moment: of the replay, or where a real episode begins."""
        self.total, self._last = 0.0, None
        if self.reality is None:
            self.moment = self.world.restart()
        else:
            rows = self.reality.restart()
            self._real = self.reality.picture(rows)
            self.moment = self.world.restart_from(rows)
        self._update()

    def _step(self, action: Action) -> None:
        if self.reality is not None:
            if self.reality.ended:
                self._restart()
                return
            self._real = self.reality.step(action)
        self.moment = self.world.step(action)
        self.total += self.moment.reward
        self._last = action
        self._update()

    def _update(self) -> None:
        assert self.moment is not None
        pictures = [("dream", self.moment.picture)]
        if self._real is not None:
            pictures.append(("real", self._real))
        self.query_one(Screen).show(pictures)
        self.query_one("#numbers", Static).update("\n".join(self._numbers(self.moment)))

    def _numbers(self, moment: Moment) -> list[str]:
        lines = [
            "agent plays" if self.playing else "you play",
            "",
            f"step      {self.world.actions}",
            f"action    {_written(self._last)}",
            f"reward    {moment.reward:+.3f}",
            f"total     {self.total:+.3f}",
            f"value     {moment.value:+.3f}",
            f"continue  {moment.cont:.3f}",
        ]
        if self.reality is not None:
            lines += [
                "",
                f"real reward {self.reality.reward:+.3f}",
                f"real score  {self.reality.score:+.3f}",
                "episode ended" if self.reality.ended else "",
            ]
        return lines


def _written(action: Action | None) -> str:
    if action is None:
        return "-"
    return str(int(action)) if action.ndim == 0 else " ".join(f"{x:+.1f}" for x in action[:3])
