"""Runs of a sweep on this machine: so many at a time, each in a process of its own.

A trainer outlives this process if that is killed; whoever carries the sweep out next waits for
it instead of starting another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dreamer_async.machine.interpreter import environment
from dreamer_async.run.aio import first
from dreamer_async.store import exit_codes
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.summary import load_config
from dreamer_async.store.sweep_dir import Job, SweepDir
from dreamer_async.sweep import work
from dreamer_async.sweep.work import Standing

SLOT = "DREAMER_SWEEP_SLOT"
"""Environment variable of a trainer: the number of its place."""
POLL_SECONDS = 1.0
"""Between two looks at a run that is not a child of this process: nothing tells when it ends."""
REQUEST_SECONDS = 0.5
"""Between two looks for requests."""
MOST_THREADS = 8
"""Of a learner: more were never tried."""


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time."""

    number: int
    threads: int
    """CPU threads of its learner, or of each of its ranks."""
    gpu: str = ""
    """What CUDA_VISIBLE_DEVICES is there: one GPU, or as many as a run has ranks, with commas
    between; empty leaves it as it is."""

    def environment(self) -> dict[str, str]:
        """Of the trainer's process."""
        devices = {"CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu else {}
        return environment() | devices | {SLOT: str(self.number)}


def slots(count: int, gpus: Sequence[str], cores: int, devices: int = 1) -> list[Slot]:
    """Divide a machine: its cores evenly, its GPUs in turn, so many at a time."""
    threads = max(1, min(MOST_THREADS, cores // (count * devices)))
    ends = range(devices, len(gpus) + 1, devices)
    shares = [",".join(gpus[end - devices : end]) for end in ends] or [""]
    return [Slot(i, threads, shares[i % len(shares)]) for i in range(count)]


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be for one GPU of this machine each; empty without any."""
    import torch

    if not torch.cuda.is_available():
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    named = [name.strip() for name in given.split(",") if name.strip()]
    return named or [str(number) for number in range(torch.cuda.device_count())]


class Jobs(Protocol):
    """Where runs come from."""

    def next(self) -> Job | None:
        """The next run to start or to go on with; None if there is none at the moment."""
        ...

    async def follow(self, job: Job, run: RunDir) -> bool:
        """Watch a run for as long as it trains; True to give it up."""
        ...

    def ended(self, job: Job, standing: Standing) -> None:
        """A run of this sweep has ended, whichever way."""
        ...


class Listed:
    """Runs that are known from the beginning, in their order."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = list(jobs)

    def next(self) -> Job | None:
        return self._jobs.pop(0) if self._jobs else None

    async def follow(self, job: Job, run: RunDir) -> bool:
        await asyncio.Event().wait()  # for ever: nothing here gives a run up
        return False

    def ended(self, job: Job, standing: Standing) -> None:
        """Nobody has to know."""


class Local:
    """Carries a sweep out in places of this machine."""

    def __init__(
        self,
        directory: SweepDir,
        jobs: Jobs,
        running: Sequence[Job],
        say: Callable[[str], None],
        *,
        drop_replay: bool = False,
    ) -> None:
        """`running` are those that somebody trains already: they are waited for first."""
        self._directory, self._jobs, self._say = directory, jobs, say
        self._running = list(running)
        self._drop_replay = drop_replay
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._told: set[str] = set()
        """Runs that were sent a signal: a second one would end them at once."""
        self.stopping = False
        """Whether somebody has asked for an end."""
        self.signal = 0
        """The newest signal that did; 0 while there was none."""
        self._stopped = asyncio.Event()
        self._error: Exception | None = None
        self.failed: list[tuple[Job, int]] = []
        """Runs that ended badly this time, and the exit codes of their trainers."""

    async def carry_out(self, places: Sequence[Slot]) -> None:
        """Return when every run is over, or, after a stop, when those that trained have saved.

        An error of this process, such as a full disk, is a stop, too, and is raised after it: a
        trainer that nobody waits for could be killed with this process.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup keeps SIGHUP ignored
                loop.add_signal_handler(number, self._signalled, number)
        async with asyncio.TaskGroup() as group:
            requests = group.create_task(self._or_stop(self._answer_requests()))
            serving = [self._or_stop(self._serve(slot, len(places))) for slot in places]
            await asyncio.gather(*serving)
            for child in [*self._children.values()]:
                await child.wait()
            requests.cancel()
        if self._error is not None:
            raise self._error

    async def _or_stop(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it; what goes wrong with it ends the sweep as a stop does."""
        try:
            await work
        except Exception as error:
            self._error = self._error or error
            self.stop(f"{type(error).__name__}: {error}")

    def stop(self, reason: str) -> None:
        """Let every run save and end, once."""
        if self.stopping:
            return
        self.stopping = True
        self._stopped.set()
        for name in self._children:
            self._end(name)
        self._say(f"stopping ({reason}): {len(self._children)} runs save")

    def _signalled(self, number: int) -> None:
        """The first signal asks for a stop; the second insists, as a trainer takes it."""
        insists, self.signal = self.signal, number
        self.stop(signal.Signals(number).name)
        for name in self._children if insists else ():
            self._end(name, insist=True)

    async def _answer_requests(self) -> None:
        while True:
            if any(request.command == "stop" for request in self._directory.take_requests()):
                self.stop("on request")
            await asyncio.sleep(REQUEST_SECONDS)

    def _end(self, name: str, *, insist: bool = False) -> None:
        """Let a trainer save and end; wishes of several kinds for that are one signal."""
        if name in self._told and not insist:
            return
        self._told.add(name)
        with contextlib.suppress(ProcessLookupError):
            self._children[name].send_signal(signal.SIGTERM)

    async def _serve(self, slot: Slot, places: int) -> None:
        while not self.stopping:
            if job := self._adopted(slot, places):
                await self._wait_for(job)
            elif job := self._jobs.next():
                await self._train(job, slot)
            else:
                return

    # -- runs that train already -------------------------------------------------------------

    def _adopted(self, slot: Slot, places: int) -> Job | None:
        """A run that an earlier process started in this place, or somebody else anywhere."""
        for job in self._running:
            number = place_of(self._directory.run(job))
            if number is None or number % places == slot.number:
                self._running.remove(job)
                return job
        return None

    async def _wait_for(self, job: Job) -> None:
        run = self._directory.run(job)
        self._say(f"{job.name} is already training: waiting for it")
        if job.pruned:
            _ask_to_stop(run)
        while run.owner() is not None:
            ended = await first(self._stopped.wait(), asyncio.sleep(POLL_SECONDS, False))
            if ended:
                _ask_to_stop(run)
                while run.owner() is not None:
                    await asyncio.sleep(POLL_SECONDS)
        self._tell(job, 0)

    # -- runs of our own ---------------------------------------------------------------------

    async def _train(self, job: Job, slot: Slot) -> None:
        try:
            sweep = self._directory.read()
            run = work.make(self._directory, sweep, job)
            options = work.thread_settings(sweep, job, slot.threads)
            words = work.trainer(run, options, sweep.devices)
            child = await _start(words, run, slot)
        except (ValueError, OSError) as error:
            self._say(f"{job.name} cannot be started: {error}")
            self.failed.append((job, 1))
            self._jobs.ended(job, Standing(job, "failed", reason=str(error)))
            return
        self._children[job.name] = child
        self._told.discard(job.name)
        where = f" on GPU {slot.gpu}" if slot.gpu else ""
        self._say(f"{job.name} {'continues' if '--resume' in words else 'begins'}{where}")
        if self.stopping:  # somebody asked while it was started
            self._end(job.name)
        code = await self._end_of(child, job, run)
        del self._children[job.name]
        if code == exit_codes.CANNOT and run.owner() is not None:  # somebody else was sooner
            await self._wait_for(job)
        else:
            self._tell(job, code)

    async def _end_of(self, child: asyncio.subprocess.Process, job: Job, run: RunDir) -> int:
        """Wait for a trainer, which is stopped if its run is given up; its exit code."""
        if await first(_ended(child), self._jobs.follow(job, run)) is True:
            self._end(job.name)
        return await child.wait()

    def _tell(self, job: Job, code: int) -> None:
        standing = work.stand(self._directory, job)
        died = code != 0 or standing.state == "killed"
        bad = (died and not self.stopping) or standing.state == "failed"
        if bad:
            code = (code if code >= 0 else 128 - code) or 1
            self.failed.append((job, code))
        elif self._drop_replay and standing.state == "completed":
            run = self._directory.run(job)
            run.free_replay(load_config(run).replay.directory)
        log = f" (exit code {code}); its log: {self._directory.run(job).log_path}" if bad else ""
        score = standing.recent_return
        told = "" if score is None else f", return {score:.4g}"
        state = "failed" if bad else standing.state
        self._say(f"{job.name} {state} at step {standing.env_steps:,}{told}{log}")
        self._jobs.ended(job, standing)


def place_of(run: RunDir) -> int | None:
    """The place that a run's trainer was started in; None if this machine does not tell."""
    owner = run.owner() or {}
    with contextlib.suppress(OSError, ValueError, StopIteration):
        words = Path(f"/proc/{int(owner.get('pid') or 0)}/environ").read_bytes().split(b"\0")
        mark = f"{SLOT}=".encode()
        return int(next(word for word in words if word.startswith(mark))[len(mark) :])
    return None


async def _start(words: Sequence[str], run: RunDir, slot: Slot) -> asyncio.subprocess.Process:
    """Start a trainer, whose words go to the log of its run."""
    log = work.open_log(run)
    try:
        return await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=slot.environment(),
            start_new_session=True,  # ctrl+c reaches it through this process alone
        )
    finally:
        os.close(log)


def _ask_to_stop(run: RunDir) -> None:
    with contextlib.suppress(OSError):
        run.request("stop")


async def _ended(child: asyncio.subprocess.Process) -> bool:
    await child.wait()
    return False


def line_printer() -> Callable[[str], None]:
    """Print lines with the time of day in front, for as long as somebody reads them.

    A terminal that was closed, or a `| tee` that Ctrl+C has ended, is no reason to leave runs
    alone: they save and end all the same.
    """

    def say(text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    return say
