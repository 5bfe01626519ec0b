"""What may lie over the dashboard: help, questions, the list of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, OptionList, Static

from dreamer_async.tui.draw.text import ascii_only

Answer = TypeVar("Answer")
RUNS_WIDTH, MOST_WIDTH = 92, 0.9
"""Columns of the list of runs, and the share of the screen that it may take: dashboard.tcss."""


class Dialog(ModalScreen[Answer]):
    """Lies over the dashboard and speaks its characters."""

    def spell(self, text: str) -> str:
        """Write a text so that this terminal can show it."""
        return ascii_only(text) if getattr(self.app, "ascii", False) else text


class Help(Dialog[None]):
    """Lists keys and what they do."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "dismiss", "Close", show=False)
    ]

    def __init__(self, keys: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help", classes="dialog") as box:
            box.border_title = "keys"
            box.border_subtitle = self.spell("↑ ↓ scroll   esc closes")
            keys = [(self.spell(key), what) for key, what in self._keys]
            yield Static(_key_table(keys), markup=False)
            yield Static(Text("\nBlue bars are work, orange bars are waiting.", "dim"))

    def on_mount(self) -> None:
        self.query_one("#help").focus()


def _key_table(keys: Sequence[tuple[str, str]]) -> Text:
    width = max((len(key) for key, _ in keys), default=0)
    text = Text()
    for key, what in keys:
        text.append(f"{key:>{width}}  ", style="bold")
        text.append(what + "\n")
    return text


class ConfirmStop(Dialog[bool]):
    """Asks before a run is stopped; True means stop."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes", show=False),
        Binding("n,escape,q", "answer(False)", "No", show=False),
        Binding("left,right", "app.focus_next", "Other button", show=False),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(id="confirm", classes="dialog") as box:
            box.border_title = "stop this run?"
            yield Static(
                "The trainer saves a checkpoint and ends.\nIt can be resumed.", markup=False
            )
            with Horizontal():
                yield Button("No, keep training (n)", id="no", compact=True)
                yield Button("Stop and save (y)", id="yes", variant="warning", compact=True)

    def on_mount(self) -> None:
        self.query_one("#no", Button).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, stop: bool) -> None:
        """Close with the answer."""
        self.dismiss(stop)


class AskWords(Dialog[str | None]):
    """Asks for one line; escape changes nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Close", show=False)
    ]

    def __init__(self, title: str, words: str) -> None:
        super().__init__()
        self._title, self._words = title, words

    def compose(self) -> ComposeResult:
        with Vertical(id="ask", classes="dialog") as box:
            box.border_title = self._title
            box.border_subtitle = "enter applies, empty shows all, esc cancels"
            yield Input(self._words, placeholder="such as: kl entropy grad", compact=True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)


class FindWords(Dialog[str | None]):
    """A line at the bottom that asks what to find, and tells while it is typed; escape is None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Close", show=False)
    ]

    def __init__(self, words: str, typed: Callable[[str], object]) -> None:
        super().__init__()
        self._words, self._typed = words, typed

    def compose(self) -> ComposeResult:
        with Horizontal(id="find"):
            yield Label("find ", markup=False)
            hint = "text; capitals match capitals only; enter keeps it, esc cancels"
            yield Input(self._words, placeholder=hint, compact=True)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._typed(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)


class RunList(Dialog[str | None]):
    """Lists the runs beside this one: one can be watched, which is the answer, others picked."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,r,q", "dismiss(None)", "Close", show=False),
        Binding("space", "pick", "Pick", show=False),
    ]

    def __init__(self, rows: Sequence[tuple[str, str]], pick: Callable[[str], bool]) -> None:
        """Rows are (name, words that begin with a mark); `pick` lays a run over the one that is
        shown or takes it off, and tells which."""
        super().__init__()
        self._rows, self._pick = rows, pick

    @staticmethod
    def room(width: int) -> int:
        """Columns of a row on a screen so wide, beside border, padding and scroll bar."""
        return min(RUNS_WIDTH, int(width * MOST_WIDTH)) - 8

    def compose(self) -> ComposeResult:
        with Vertical(id="runs", classes="dialog") as box:
            box.border_title = "runs, newest first; steps and mean of the last 20 episodes"
            box.border_subtitle = "space picks or drops one (+)   enter watches   esc closes"
            yield OptionList(*(self._words(text) for _, text in self._rows), compact=True)

    def _words(self, text: str) -> Text:
        return Text(self.spell(text), no_wrap=True)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._rows[event.option_index][0])

    def action_pick(self) -> None:
        """Lay the highlighted run over the one that is shown, or take it off; the list stays."""
        options = self.query_one(OptionList)
        place = options.highlighted
        if place is None:
            return
        name, text = self._rows[place]
        lies = self._pick(name)
        mark = text[:1] if text[:1] == "▸" else "+" if lies else " "
        options.replace_option_prompt_at_index(place, self._words(mark + text[1:]))
