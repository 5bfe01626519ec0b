"""One module a page: each lays out its widgets and fills them from a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dreamer_async.tui.pages.page import Page

NAMES = ("overview", "losses", "pipeline", "world", "episodes", "log", "compare")
"""The pages in their order."""


def make(name: str) -> Page:
    """Make a page. Its module is imported here: the first paint waits for no other page."""
    match name:
        case "overview":
            from dreamer_async.tui.pages.overview import Overview as Made
        case "losses":
            from dreamer_async.tui.pages.losses import Losses as Made
        case "pipeline":
            from dreamer_async.tui.pages.pipeline import Pipeline as Made
        case "world":
            from dreamer_async.tui.pages.world import World as Made
        case "episodes":
            from dreamer_async.tui.pages.episodes import Episodes as Made
        case "log":
            from dreamer_async.tui.pages.log import Log as Made
        case "compare":
            from dreamer_async.tui.pages.compare import Compare as Made
        case _:
            raise AssertionError(name)
    return Made(id=name)
