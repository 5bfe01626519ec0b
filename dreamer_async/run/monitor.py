"""The once-a-second round: gauges out, requests from the run directory in."""

from __future__ import annotations

import asyncio

from dreamer_async.run.aio import Stop
from dreamer_async.run.evaluate import Evaluator
from dreamer_async.run.films.film import Filmer
from dreamer_async.run.gauges import RunGauges
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.ranks.team import Team
from dreamer_async.run.saver import Saver
from dreamer_async.run.telemetry import Telemetry
from dreamer_async.store.control_dir import Request
from dreamer_async.store.events import Controlled, Gauges
from dreamer_async.store.run_dir import RunDir

EVALUATION_EPISODES = 10


class Monitor:
    """Reports what the gauges show, and answers requests."""

    def __init__(
        self,
        run_dir: RunDir,
        telemetry: Telemetry,
        gauges: RunGauges,
        ratio: TrainRatio,
        saver: Saver,
        filmer: Filmer,
        evaluator: Evaluator,
        stop: Stop,
        team: Team | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._telemetry = telemetry
        self._gauges = gauges
        self._ratio = ratio
        self._saver = saver
        self._filmer = filmer
        self._evaluator = evaluator
        self._stop = stop
        self._team = team or Team()
        self._dropping, self._dropped = False, 0

    async def report_every(self, seconds: float) -> None:
        """Report until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            self.report()
            await self._ratio.notify()  # a pause may have begun or ended

    def report(self) -> None:
        """Emit one gauges event and answer pending requests."""
        for request in self._run_dir.take_requests():
            self._answer(request)
        if self._run_dir.removed():
            self._stop.request("the directory of the run was removed")
        own = self._gauges.read()
        values = {**own, **self._team.gauges(own)}
        self._telemetry.emit(Gauges(*self._telemetry.position, values))
        self._report_drops()

    def _report_drops(self) -> None:
        """Say once that the disk takes no events, and once that it does again."""
        dropping = self._telemetry.dropped > self._dropped
        if dropping and not self._dropping:
            self._telemetry.warn(
                "events cannot be written to the disk; training continues without them"
            )
        elif self._dropping and not dropping:
            self._telemetry.warn(f"events are written again; {self._dropped} were dropped")
        self._dropping, self._dropped = dropping, self._telemetry.dropped

    def _answer(self, request: Request) -> None:
        """Do what is asked, or pass it on to whoever does, and say so."""
        match request.command:
            case "pause" | "resume":
                self._pause(request.command)
                return
            case "evaluate":
                episodes = request.args.get("episodes", EVALUATION_EPISODES)
                trouble = self._evaluator.ask(episodes)
            case other:
                asks = {
                    "stop": lambda: self._stop.request("on request"),
                    "checkpoint": self._saver.ask,
                    "film": self._filmer.ask,
                }
                asks[other]()
                trouble = ""
        answer = "refused" if trouble else "accepted"
        self._telemetry.emit(Controlled(request.command, answer, trouble))

    def _pause(self, command: str) -> None:
        """Hold both sides of the pipeline, or let them go on."""
        ratio, pause = self._ratio, command == "pause"
        if ratio.paused == pause:
            reason = "the run is paused already" if pause else "the run is not paused"
            self._telemetry.emit(Controlled(command, "refused", reason))
            return
        ratio.paused = pause
        self._telemetry.emit(Controlled(command, "done"))
        self._telemetry.enter(ratio.phase)
