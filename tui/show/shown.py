"""What the open page shows: runs at one moment, and how they are to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dreamer_async.tui.read.source import Source
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show.groups import Group, grouped
from dreamer_async.tui.show.options import Options
from dreamer_async.tui.show.pictures import Named


@dataclass(frozen=True, eq=False)
class Shown:
    """What there is to show now."""

    source: Source
    others: Sequence[Source] = ()
    """Runs that are laid over the first one."""
    options: Options = field(default_factory=Options)
    """As they suit the first run."""
    now: float = 0.0
    """Unix seconds."""

    @property
    def view(self) -> RunView:
        """The first run."""
        return self.source.view

    @property
    def named(self) -> list[Named]:
        """The other runs with what they are called."""
        looks = {id(s): group.look_of(s) for group in self.groups for s in group.sources}
        return [Named(s.label, s.view, looks[id(s)]) for s in self.others]

    @property
    def groups(self) -> list[Group]:
        """All runs, those together that differ in nothing but the seed."""
        return grouped((self.source, *self.others))

    @property
    def age(self) -> tuple[object, ...]:
        """Changes whenever a chart of episodes or metrics would."""
        counts = [
            (source.epoch, source.view.episode_count, source.view.metrics_seen)
            for source in (self.source, *self.others)
        ]
        return (self.options, *counts, len(self.view.evaluations))
