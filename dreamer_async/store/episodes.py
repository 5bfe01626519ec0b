"""Which episodes belong to a run: a resume loses those that came after what had been saved."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from dreamer_async.store.events import Episode, EventReader, Record, Resumed

T = TypeVar("T")


def kept(entries: Iterable[tuple[int, T]], resumed: Resumed) -> list[tuple[int, T]]:
    """What of (agent steps, anything) is still a part of the run when it goes on.

    The rest came after what had been saved, and is played again.
    """
    return [entry for entry in entries if entry[0] <= resumed.env_steps]


def read_episodes(path: Path) -> list[Episode]:
    """All training episodes of an event file that belong to the run, however long it is."""
    reader, episodes = EventReader(path), list[Episode]()
    while records := reader.read():
        episodes = episodes_of(records, episodes)
    return episodes


def episodes_of(records: Iterable[Record], before: Iterable[Episode] = ()) -> list[Episode]:
    """The training episodes of a stream, behind those of the part of it that came `before`."""
    found = [(episode.env_steps, episode) for episode in before]
    for record in records:
        event = record.event
        if isinstance(event, Episode):
            found.append((event.env_steps, event))
        elif isinstance(event, Resumed):
            found = kept(found, event)
    return [episode for _, episode in found]
