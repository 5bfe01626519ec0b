"""What is read off a running run once a second: rates, stage shares, fill levels."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from dreamer_async.envs.vector import VectorEnv
from dreamer_async.machine.gpu import gpu_gauges
from dreamer_async.replay.replay import Replay
from dreamer_async.run.collector import Player
from dreamer_async.run.learner import Learner
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.telemetry import Rates, Stages, process_gauges


class RunGauges:
    """Reads the parts of one run."""

    def __init__(
        self,
        directory: Path,
        env: VectorEnv,
        player: Player,
        replay: Replay,
        ratio: TrainRatio,
        learner: Learner,
        collecting: Stages,
    ) -> None:
        """`directory` is on the disk whose free space counts."""
        self._directory = directory
        self._env = env
        self._player = player
        self._replay = replay
        self._ratio = ratio
        self._learner = learner
        self._collecting = collecting
        self._rates = Rates()
        self._cores = len(os.sched_getaffinity(0))

    def read(self) -> dict[str, float]:
        """Everything worth a look, under the names that the dashboard knows."""
        ratio, learner = self._ratio, self._learner
        process = process_gauges(self._env.workers())
        stages = self._collecting.totals() | learner.stages.totals()
        rates = self._rates.update(
            {
                "env_steps": ratio.inserted,
                "own_steps": ratio.own or 0,
                "updates": learner.updates,
                "cpu": process.pop("cpu_seconds"),
                **{f"stage/{name}": seconds for name, seconds in stages.items()},
            }
        )
        values = {
            "rate/env_steps": rates["env_steps"],
            "rate/frames": rates["env_steps"] * self._env.spec.frames_per_step,
            "rate/updates": rates["updates"],
            **({} if ratio.own is None else {"rate/own_steps": rates["own_steps"]}),
            "cpu/percent": 100.0 * rates["cpu"] / self._cores,
            "ratio/target": ratio.ratio,
            **self._actual_ratio(),
            "ratio/debt": ratio.debt,
            **self._lag(),
            "opt/skipped": float(learner.skipped),
            "replay/gb": self._replay.bytes / 1e9,
            **self._disk(),
            **process,
            **{f"replay/{n}": v for n, v in self._replay.stats().items()},
            **{name: share for name, share in rates.items() if name.startswith("stage/")},
        }
        with suppress(RuntimeError):  # a GPU that does not answer
            values |= gpu_gauges(learner.trainer.device)
        return values

    def _disk(self) -> dict[str, float]:
        """Free space, if the disk says."""
        try:
            return {"disk/free_gb": shutil.disk_usage(self._directory).free / 1e9}
        except OSError:
            return {}

    def _actual_ratio(self) -> dict[str, float]:
        """Replayed steps per agent step since the prefill of this process; none before, and none
        of a run that learns without environments.
        """
        trained_on = self._ratio.steps_since_start
        return {"ratio/actual": self._ratio.sampled / trained_on} if trained_on else {}

    def _lag(self) -> dict[str, float]:
        """Updates that the acting policy is behind; nothing before it acts in this process."""
        version = self._player.version
        return {"policy/lag": float(self._learner.updates - version)} if version >= 0 else {}
