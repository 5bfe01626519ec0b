"""One run as the dashboard sees it: its view, kept up to date, and whether somebody trains it.

A long history is read newest part first: the last hour goes into a view of its own, which is
shown until the whole file has been read. From then on the result equals a fresh reading.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from dreamer_async.store.events import PhaseChanged, Resumed, RunStarted
from dreamer_async.store.regular_file import reading
from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.draw.text import clean
from dreamer_async.tui.read.compare import settings
from dreamer_async.tui.read.film import FilmFile
from dreamer_async.tui.read.limits import limits
from dreamer_async.tui.read.progress import Phase, Trainer, phase
from dreamer_async.tui.read.seek import NEAR, last_before, seek_generation, seek_time
from dreamer_async.tui.read.state import reduce
from dreamer_async.tui.read.tail import Tail
from dreamer_async.tui.read.view import RunView

LONG_BYTES = 16_000_000
"""Files above this are read newest part first."""
FIRST_SECONDS = 3600.0
"""What is shown first of them."""
GAUGES_BYTES = 4_000_000
"""Gauges further from the end are not decoded; nothing shows them."""
HEAD_BYTES = 2 * NEAR
LOG_BYTES = 4096
START_GRACE_SECONDS = 30.0
"""How long a trainer that was just started may take until it holds its lock."""


class Source:
    """Reads a run; never writes."""

    def __init__(
        self, path: Path, *, owner: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self.run_dir = RunDir(path)
        self.owner = owner
        """Whether the run was started here, and its lock may take a moment."""
        self.view = RunView()
        self.trainer = Trainer()
        self.tail = Tail(self.run_dir.events_path)
        self.caught_up = False
        self.epoch = 0
        """Grows whenever `view` is replaced by another one."""
        self.film = FilmFile(self.run_dir.film_path)
        self._clock = clock
        self._opened = clock()
        self._settings: dict[str, str] | None = None
        self._settings_since = 0.0
        """Unix seconds of the start that they are known from."""
        self._misses = 0
        self._restarts = 0
        self._full: RunView | None = None
        self._newest: Tail | None = None
        self._held: RunDir | None = None
        """The run by a descriptor, which stays the same when somebody renames its directory."""
        self._release = ExitStack()

    @property
    def label(self) -> str:
        """What the run is called, without its date."""
        name = clean(self.run_dir.name, 80)
        stamped = name[:15].replace("-", "").isdecimal() and name[15:16] == "-"
        return name[16:] if stamped and name[16:] else name

    @property
    def settings(self) -> dict[str, str]:
        """The settings of the run, as `compare.settings` reads them; only a start changes them."""
        if self._settings is None or self._settings_since != self.view.started_at:
            self._settings_since = self.view.started_at
            self._settings = settings(self.run_dir.config_path)
        return self._settings

    # -- reading -----------------------------------------------------------------------------

    @property
    def behind(self) -> bool:
        """Tell whether there was more to read at the last read."""
        return self.tail.behind or (self._newest is not None and self._newest.behind)

    @property
    def reading(self) -> float | None:
        """Share of the history that has been read, None once that is all of it."""
        return None if self.caught_up else self.tail.offset / max(1, self.tail.size)

    def open(self) -> None:
        """Begin with the newest part if the history is long."""
        try:
            self._held = self._release.enter_context(self.run_dir.held())
            size = self.run_dir.events_path.lstat().st_size
        except OSError:
            return
        self.tail.gauges_from = max(0, size - GAUGES_BYTES)
        start = seek_time(self.run_dir.events_path, FIRST_SECONDS) if size > LONG_BYTES else 0
        if start:
            self._full = RunView()
            self._read_head(start)
            self._newest = Tail(self.run_dir.events_path, start)
            self._newest.gauges_from = self.tail.gauges_from

    def read_piece(self) -> None:
        """Fold the next piece of the stream into the view, the newest part before the rest."""
        self._fold_piece()
        self.view.limits = limits(self.settings)

    def _fold_piece(self) -> None:
        newest = self._newest
        if newest is not None:
            for record in newest.read():
                reduce(self.view, record)
            if newest.behind:
                return
        self._read_history()

    def read_newest(self) -> None:
        """Fold all of the newest part into the view; everything if the history is short."""
        self.read_piece()
        while self.behind and (self._newest is None or self._newest.behind):
            self.read_piece()

    def close(self) -> None:
        """Close what is open."""
        self.tail.close()
        if self._newest is not None:
            self._newest.close()
        self._release.close()
        self._held = None

    def _read_head(self, start: int) -> None:
        """Learn what the run is and does, which the newest part, from a byte on, need not say.

        The first events of its trainer tell, and the last phase before that part.
        """
        path = self.run_dir.events_path
        for begin in sorted({0, seek_generation(path, start)}):
            head = Tail(path, begin)
            head.gauges_from = start
            for record in head.read(min(HEAD_BYTES, start - begin)):
                if isinstance(record.event, RunStarted | Resumed | PhaseChanged):
                    reduce(self.view, record)
            head.close()
        last = last_before(path, "phase_changed", start)
        if last is None:
            self.view.phase = "training"  # nothing else lasts as long
        elif last.generation >= self.view.generation:
            reduce(self.view, last)

    def _read_history(self) -> None:
        records = self.tail.read()
        if self.tail.restarts != self._restarts:
            self._restarts = self.tail.restarts
            self._forget_newest()
            self._replace(RunView())
            self.caught_up = False
        view = self.view if self._full is None else self._full
        for record in records:
            reduce(view, record)
        if not self.tail.behind:
            self.caught_up = True
            if self._full is not None:
                self._replace(self._full)
                self._forget_newest()

    def _replace(self, view: RunView) -> None:
        self.view = view
        self.epoch += 1

    def _forget_newest(self) -> None:
        if self._newest is not None:
            self._newest.close()
        self._newest = self._full = None

    @property
    def log_end(self) -> str:
        """The last line of the log, which before the trainer's first event is a step of its start.

        Empty if there is none, or if only an earlier trainer has written.
        """
        try:
            with reading(self.run_dir.log_path) as file:
                status = os.fstat(file.fileno())
                if status.st_mtime < self.trainer.since:
                    return ""
                file.seek(max(0, status.st_size - LOG_BYTES))
                lines = file.read(LOG_BYTES).decode(errors="replace").split("\n")
        except OSError:
            return ""
        return clean(next((line for line in reversed(lines) if line.strip()), ""), 80)

    # -- the trainer -------------------------------------------------------------------------

    def check_trainer(self) -> None:
        """Find out whether somebody holds the run's lock; two misses in a row count."""
        self._follow()
        owner = self.run_dir.owner()
        if owner is not None:
            self._misses = 0
            self.trainer = replace(self.trainer, alive=True, since=float(owner.get("since", 0.0)))
            return
        self._misses += 1
        starting = self.trainer.alive is None and self.owner
        patience = START_GRACE_SECONDS if starting else 0.0
        known = self.caught_up or self._newest is not None
        if self._misses > 1 and known and self._clock() - self._opened >= patience:
            self.trainer = replace(self.trainer, alive=False)

    def _follow(self) -> None:
        """Go where the directory has gone if somebody renamed it, as its trainer does."""
        place = self.run_dir if self._held is None else self._held.place()
        if place != self.run_dir:
            self.run_dir = place
            self.tail.path, self.film.path = place.events_path, place.film_path

    def stopping(self) -> None:
        """Remember that a stop was asked for here."""
        self.trainer = replace(self.trainer, stop_requested_at=self._clock())

    @property
    def phase(self) -> Phase:
        """What the run is doing, as far as this process can tell."""
        return phase(self.view, self.trainer)

    @property
    def may_run(self) -> bool:
        """Tell whether there is, or may be, a trainer that could be asked for something."""
        over = self.view.finished is not None and self.phase.name != "resuming"
        return not over and self.trainer.alive is not False
