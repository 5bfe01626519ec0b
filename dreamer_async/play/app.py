"""The terminal screen of `play`: the dream as a picture, and what the model expects beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from dreamer_async.config import ConfigError
from dreamer_async.play.keys import bindings, legend
from dreamer_async.play.world import Action, Moment, Reality, World
from dreamer_async.tui import terminal
from dreamer_async.tui.draw.picture import Meter
from dreamer_async.tui.draw.rows import Part
from dreamer_async.tui.graphics import Choice, chosen, way
from dreamer_async.tui.terminal_app import TerminalApp
from dreamer_async.tui.widgets.keybar import Key, KeyBar
from dreamer_async.tui.widgets.lines import AlertLine
from dreamer_async.tui.widgets.meters import Meters
from dreamer_async.tui.widgets.video import Video

FPS = 8
"""Steps per second of the agent."""
OVER = 0.5
"""Less probable than this that it continues: the model takes the episode for over."""
LEFT = 0
"""Exit code: the game was left, or its terminal went away."""
RESTART, LEAVE = Key("r", "restart", "app.restart"), Key("q", "leave", "app.leave")
THEME = Key("T", "theme", "app.theme")
PARTS = (Video, Meters, AlertLine, KeyBar)
"""What a game shows itself in."""


class Play(TerminalApp[None]):
    """Keys are actions, `space` lets the agent play, `r` begins at another real moment."""

    CSS = """
    #game { height: 1fr; padding: 1 1 0 1; }
    #pictures { width: 1fr; height: 100%; }
    #numbers { width: 26; height: 100%; margin-left: 2; }
    #numbers Meters { margin: 0 0 1 0; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+q,ctrl+c,escape", "leave", "Leave", priority=True),
        Binding("ctrl+z", "to_shell", "Suspend", show=False, priority=True),
        Binding("space", "hand_over", "Let the agent play, or play"),
        Binding("r", "restart", "Begin at another real moment"),
        Binding("T", "theme", "Next colours"),
    ]

    def __init__(
        self,
        world: World,
        reality: Reality | None = None,
        *,
        clock: Callable[[], float] = time.time,
        on_terminal: bool = False,
        ascii: bool = False,
        graphics: Choice = "auto",
    ) -> None:
        super().__init__(clock=clock, on_terminal=on_terminal, ascii=ascii, graphics=graphics)
        self.world, self.reality = world, reality
        self.playing = False
        """Whether the agent plays."""
        self.moment: Moment | None = None
        self.total = 0.0
        """Rewards that the model expected since the last real moment."""
        self._actions = bindings(world.spec)
        self._last: Action | None = None
        self._real: NDArray[np.uint8] | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(id="game"):
            yield Video(id="pictures")
            with Vertical(id="numbers"):
                yield Meters("dream", id="dream")
                if self.reality is not None:
                    yield Meters("real", id="real")
        yield AlertLine(id="alerts")
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        self.set_interval(1 / FPS, self._tick)
        self._legend()
        self.action_restart()

    def _legend(self) -> None:
        keys = Part(legend(self.world.spec), "text")
        self.query_one(AlertLine).show(([keys],), ())

    # -- keys --------------------------------------------------------------------------------

    def on_key(self, event: events.Key) -> None:
        """One key, one step."""
        if event.key in self._actions:
            self.playing = False
            self._step(self._actions[event.key])

    def action_hand_over(self) -> None:
        """Let the agent play, or take over."""
        self.playing = not self.playing
        self._update()

    def action_restart(self) -> None:
        """Begin at another real moment: of the replay, or where a real episode begins."""
        self.total, self._last = 0.0, None
        if self.reality is None:
            self.moment = self.world.restart()
        else:
            rows = self.reality.restart()
            self._real = self.reality.picture(rows)
            self.moment = self.world.restart_from(rows)
        self._update()

    def action_leave(self) -> None:
        """End the game."""
        self.exit()

    # -- steps -------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self.playing and all(self.query(part) for part in PARTS):  # they go before the timer
            self._step(self.world.choose())

    def _step(self, action: Action) -> None:
        if self.reality is not None:
            if self.reality.ended:
                self.action_restart()
                return
            self._real = self.reality.step(action)
        self.moment = self.world.step(action)
        self.total += self.moment.reward
        self._last = action
        self._update()

    # -- showing -----------------------------------------------------------------------------

    def _update(self) -> None:
        assert self.moment is not None
        pictures = {"dream": self.moment.picture}
        if self._real is not None:
            pictures["real"] = self._real
        self.query_one(Video).show([*pictures], [*pictures.values()], ())
        self.query_one("#dream", Meters).show(
            self._expected(self.moment), [Part("agent plays" if self.playing else "you play")]
        )
        if self.reality is not None:
            self.query_one("#real", Meters).show(_happened(self.reality))
        hand_over = Key("space", "you play" if self.playing else "agent plays", "app.hand_over")
        self.query_one(KeyBar).show((), "", (hand_over, RESTART, THEME, LEAVE))

    def _expected(self, moment: Moment) -> list[Meter]:
        """What the model expects."""
        over = [Meter("episode", "over (r restarts)")] if moment.cont < OVER else []
        return [
            Meter("step", str(self.world.actions)),
            Meter("action", _written(self._last)),
            Meter("reward", f"{moment.reward:+z.3f}"),
            Meter("total", f"{self.total:+z.3f}"),
            Meter("value", f"{moment.value:+z.3f}"),
            Meter("continue", f"{moment.cont:.3f}", moment.cont),
            *over,
        ]

    # -- the terminal ------------------------------------------------------------------------

    def interrupted(self) -> None:
        """End the game."""
        self.action_leave()

    def hang_up(self) -> None:
        """End the game, even if the lost terminal keeps the app from closing."""
        terminal.leave_soon(LEFT)
        self.exit()


def _happened(reality: Reality) -> list[Meter]:
    """What the real environment gave."""
    ended = [Meter("episode", "ended: any key")] if reality.ended else []
    return [
        Meter("reward", f"{reality.reward:+z.3f}"),
        Meter("score", f"{reality.score:+z.3f}"),
        *ended,
    ]


def _written(action: Action | None) -> str:
    if action is None:
        return "–"
    return str(int(action)) if action.ndim == 0 else " ".join(f"{x:+z.1f}" for x in action[:3])


def graphics(text: str) -> Choice:
    """How pictures are drawn; raises ConfigError where this terminal cannot have them so."""
    try:
        way(choice := chosen(text))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return choice


def play(world: World, reality: Reality | None, how: Choice) -> None:
    """Play on this terminal until somebody leaves; raises what ended the game against its will."""
    plain = not terminal.has_unicode()
    with terminal.drawn_on_terminal():
        game = Play(world, reality, on_terminal=True, ascii=plain, graphics=how)
        game.run()
    if game.failure is not None:
        raise game.failure
