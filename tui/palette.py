"""The command palette: everything that a key does, in the words of the list of keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.dom import DOMNode

PLACEHOLDER = "What do you want to do? Type a part of it"
_AGAIN = ("move", "roll", "pan", "match", "turn")
"""What one does many times in a row, for which a palette is no help."""


def commands(
    app: App[Any], owners: Sequence[tuple[DOMNode, Sequence[BindingType]]]
) -> Iterator[SystemCommand]:
    """What the keys of the app and its screen do, once each; each says its key, too."""
    seen = set()
    for owner, bindings in owners:
        for binding in bindings:
            if not isinstance(binding, Binding) or not binding.tooltip:
                continue
            again = binding.action.partition("(")[0] in _AGAIN
            if again or binding.action in seen:
                continue
            seen.add(binding.action)
            key = binding.key_display or binding.key.partition(",")[0]
            run = partial(app.run_action, binding.action, owner)
            yield SystemCommand(binding.tooltip, f"key {key}", run)


class Palette(CommandPalette):
    """The palette with our words."""

    @staticmethod
    def is_over(app: App[Any]) -> bool:
        """Tell whether it is what one sees."""
        return CommandPalette.is_open(app)

    def __init__(self) -> None:
        super().__init__(placeholder=PLACEHOLDER, id="--command-palette")
