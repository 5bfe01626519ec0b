"""A sweep as the dashboard sees it: what is to be run, and a view of each run that there is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dreamer_async.store.sweep_dir import Job, SweepDir
from dreamer_async.tui.draw.text import clean
from dreamer_async.tui.read.progress import eta_seconds
from dreamer_async.tui.read.source import Source

RECENT = 20
"""Episodes that the shown return is the mean of."""
_STATES = {"lost": "killed"}
RUNNING = ("starting", "compiling", "prefill", "training", "paused", "stopping")


@dataclass(eq=False)
class Member:
    """One run of a sweep."""

    job: Job
    path: Path
    place: int
    """In the order of the sweep."""
    source: Source | None = None
    """None until the run has been made."""
    host: str = ""
    """The machine that trains it."""

    @property
    def name(self) -> str:
        return clean(self.job.name, 64)

    @property
    def group(self) -> tuple[str, str]:
        """Task and settings: runs with the same ones are repetitions."""
        return clean(self.job.task, 40), clean(self.job.variant, 80)

    @property
    def state(self) -> str:
        """waiting, pruned, a phase, or how the run ended."""
        if self.source is None:
            return "pruned" if self.job.pruned else "waiting"
        name = self.source.phase.name
        if self.job.pruned and name not in RUNNING:
            return "pruned"
        finished = self.source.view.finished
        if name == "finished" and finished is not None:
            return clean(finished.reason, 10)
        return _STATES.get(name, name)

    @property
    def steps(self) -> int:
        return 0 if self.source is None else self.source.view.env_steps

    @property
    def planned(self) -> int:
        """Agent steps; 0 while nobody knows."""
        started = None if self.source is None else self.source.view.started
        return 0 if started is None else max(0, started.steps)

    @property
    def score(self) -> float | None:
        """Mean of the last episodes."""
        if self.source is None or not len(self.source.view.episodes):
            return None
        return float(self.source.view.episodes.rolling_mean(RECENT)[-1])

    @property
    def eta(self) -> float | None:
        """Seconds."""
        training = self.source is not None and self.state == "training"
        return eta_seconds(self.source.view) if training and self.source else None


class SweepSource:
    """Reads a sweep and its runs; never writes."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.directory = SweepDir(path)
        self.members: list[Member] = []
        self.problem = ""
        """Why the sweep's file cannot be read, if it cannot."""
        self._clock = clock
        self._turn = 0

    @property
    def name(self) -> str:
        return clean(self.directory.name, 64)

    def look(self) -> None:
        """Find out which runs there are, and who trains them."""
        try:
            jobs = self.directory.read().jobs
            self.problem = ""
        except (OSError, ValueError) as error:
            inside = str(error).replace(f"{self.directory.path}/", "")  # its name stands beside
            self.problem = clean(inside, 200)
            return
        known = {member.job.name: member for member in self.members}
        for place, job in enumerate(jobs):
            member = known.setdefault(job.name, Member(job, self.directory.run(job).path, place))
            member.job, member.place = job, place
        self.members = sorted(known.values(), key=lambda member: member.place)
        for member in self.members:
            self._look_at(member)

    def _look_at(self, member: Member) -> None:
        if member.source is None:
            run = self.directory.run(member.job)
            if not run.exists():
                return
            try:
                run.refuse_links()
            except ValueError:
                return
            member.source = Source(member.path, clock=self._clock)
            member.source.open()
        member.source.check_trainer()
        owner = member.source.run_dir.owner() or {}
        member.host = clean(owner.get("host", ""), 20)

    @property
    def behind(self) -> bool:
        """Whether there was more to read at the last read."""
        return any(member.source.behind for member in self.members if member.source)

    @property
    def caught_up(self) -> bool:
        """Whether all of every run has been read."""
        return all(member.source.caught_up for member in self.members if member.source)

    def read_piece(self) -> bool:
        """Read a piece of one run, the next in turn; tells whether there is more of any."""
        sources = [member.source for member in self.members if member.source]
        if sources:
            self._turn = (self._turn + 1) % len(sources)
            sources[self._turn].read_piece()
        return self.behind

    def close(self) -> None:
        """Close what is open."""
        for member in self.members:
            if member.source is not None:
                member.source.close()
