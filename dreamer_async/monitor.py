"""The once-a-second round: gauges out, requests from the run directory in."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress

from dreamer_async.aio import Stop
from dreamer_async.collector import Collector
from dreamer_async.evaluate import Evaluator
from dreamer_async.events import Controlled, Gauges
from dreamer_async.film import Filmer
from dreamer_async.gpu import gpu_gauges
from dreamer_async.learner import Learner
from dreamer_async.restore import Saver
from dreamer_async.run_dir import Request, RunDir
from dreamer_async.telemetry import Rates, Telemetry, process_gauges

EVALUATION_EPISODES = 10


class Monitor:
    """Reports rates, stage shares and fill levels, and answers requests."""

    def __init__(
        self,
        run_dir: RunDir,
        telemetry: Telemetry,
        collector: Collector,
        learner: Learner,
        saver: Saver,
        filmer: Filmer,
        evaluator: Evaluator,
        stop: Stop,
    ) -> None:
        self._run_dir = run_dir
        self._telemetry = telemetry
        self._collector = collector
        self._learner = learner
        self._saver = saver
        self._filmer = filmer
        self._evaluator = evaluator
        self._stop = stop
        self._rates = Rates()
        self._dropping, self._dropped = False, 0
        self._cores = len(os.sched_getaffinity(0))

    async def report_every(self, seconds: float) -> None:
        """Report until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            self.report()
            await self._collector.ratio.notify()  # a pause may have begun or ended

    def report(self) -> None:
        """Emit one gauges event and answer pending requests."""
        for request in self._run_dir.take_requests():
            self._answer(request)
        if self._run_dir.removed():
            self._stop.request("the directory of the run was removed")
        self._telemetry.emit(
            Gauges(self._collector.ratio.inserted, self._learner.updates, self.gauges())
        )
        self._report_drops()

    def _report_drops(self) -> None:
        """Say once that the disk takes no events, and once that it does again."""
        dropping = self._telemetry.dropped > self._dropped
        if dropping and not self._dropping:
            self._telemetry.warn("the disk takes no events; training goes on without them")
        elif self._dropping and not dropping:
            self._telemetry.warn(f"events are written again; {self._dropped} were dropped")
        self._dropping, self._dropped = dropping, self._telemetry.dropped

    def gauges(self) -> dict[str, float]:
        """Everything worth a look, under the names that the dashboard knows."""
        ratio, learner = self._collector.ratio, self._learner
        process = process_gauges(self._collector.env.workers())
        stages = self._collector.stages.totals() | learner.stages.totals()
        rates = self._rates.update(
            {
                "env_steps": ratio.inserted,
                "updates": learner.updates,
                "cpu": process.pop("cpu_seconds"),
                **{f"stage/{name}": seconds for name, seconds in stages.items()},
            }
        )
        frames = self._collector.env.spec.frames_per_step
        values = {
            "rate/env_steps": rates["env_steps"],
            "rate/frames": rates["env_steps"] * frames,
            "rate/updates": rates["updates"],
            "cpu/percent": 100.0 * rates["cpu"] / self._cores,
            "ratio/target": ratio.ratio,
            "ratio/actual": self._actual_ratio(),
            "ratio/debt": ratio.debt,
            "policy/lag": float(learner.updates - max(0, self._collector.actor.version)),
            "opt/skipped": float(learner.skipped),
            "replay/gb": self._collector.replay.bytes / 1e9,
            **self._disk(),
            **process,
            **{f"replay/{n}": v for n, v in self._collector.replay.stats().items()},
            **{name: share for name, share in rates.items() if name.startswith("stage/")},
        }
        with suppress(RuntimeError):  # a GPU that does not answer
            values |= gpu_gauges(learner.trainer.device)
        return values

    def _disk(self) -> dict[str, float]:
        """Free space, if the disk says."""
        try:
            return {"disk/free_gb": shutil.disk_usage(self._run_dir.path).free / 1e9}
        except OSError:
            return {}

    def _actual_ratio(self) -> float:
        """Replayed steps per agent step since the prefill of this process."""
        ratio = self._collector.ratio
        trained_on = ratio.steps_since_start
        return ratio.sampled / trained_on if trained_on else 0.0

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
                    "stop": lambda: self._stop.request("asked through the run directory"),
                    "checkpoint": self._saver.ask,
                    "film": self._filmer.ask,
                }
                asks[other]()
                trouble = ""
        answer = "refused" if trouble else "accepted"
        self._telemetry.emit(Controlled(request.command, answer, trouble))

    def _pause(self, command: str) -> None:
        """Hold both sides of the pipeline, or let them go on."""
        ratio, pause = self._collector.ratio, command == "pause"
        if ratio.paused == pause:
            reason = "the run is paused already" if pause else "the run is not paused"
            self._telemetry.emit(Controlled(command, "refused", reason))
            return
        ratio.paused = pause
        self._telemetry.emit(Controlled(command, "done"))
        self._telemetry.enter(ratio.phase)
