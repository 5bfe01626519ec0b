"""The learner: draws sequences, updates the agent, writes latents back, publishes weights.

`Learner.step` does one whole update and always runs in the learner thread, which alone owns
the trainer. `learn` is the coroutine around it: it waits for the limiter and turns reports
into events.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dreamer_async.agent.batch import Batch, Noise
from dreamer_async.agent.normalize import Ranks
from dreamer_async.agent.policy import compute_types
from dreamer_async.agent.trainer import Trainer, Update
from dreamer_async.config import Config
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.fast.cuda.backend import CUDA
from dreamer_async.fast.cuda.updates import Updates
from dreamer_async.fast.place import Place
from dreamer_async.parallel.group import explained
from dreamer_async.replay.replay import Replay
from dreamer_async.run.aio import OwnedThread
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.ranks.team import UPDATE, Team
from dreamer_async.run.staging import Staging
from dreamer_async.run.telemetry import Stages, Telemetry
from dreamer_async.run.weights import SLOTS, PolicyWeights
from dreamer_async.store.checkpoint_layout import LEARNER_GENERATOR, TRAINER, keyed, under
from dreamer_async.store.events import Metrics


class Diverged(RuntimeError):
    """Too many updates in a row were not finite."""


class Report(NamedTuple):
    """What one call of `Learner.step` has to say."""

    update: int
    skipped: int
    """Non-finite updates so far; they changed nothing."""
    values: dict[str, float] | None
    """Mean metrics since the last report, when a report is due."""


@dataclass
class _Pending:
    """An update whose results have not been read back yet."""

    update: Update
    staging: Staging
    env: np.ndarray
    start: np.ndarray
    generation: int


class Learner:
    """Owns the trainer; every method but the constructor runs in the learner thread."""

    def __init__(
        self,
        spec: EnvSpec,
        config: Config,
        replay: Replay,
        place: Place,
        team: Team | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        """`ranks` is what an update exchanges with the rest of the `team`."""
        train, device = config.train, place.device
        self.place = place
        self.team = team or Team()
        self.trainer = Trainer(spec, config, device, place.precision, place.backend, ranks)
        self.accelerated: Updates | None = None
        """Updates that can be compiled and recorded; on CPUs there are native functions instead."""
        if train.compile and place.backend is CUDA:
            self.accelerated = Updates(self.trainer)
        self.update = self.accelerated or self.trainer.update
        self.replay = replay
        self.stages = Stages()
        self.updates = 0
        self.skipped = 0
        self._generator = torch.Generator(device).manual_seed(train.seed + 1)
        self._seed = train.seed
        self.compiles = self.accelerated is not None
        """Whether `warm_up` is worth calling."""
        self._metrics_seconds = train.metrics_seconds
        self._skip_limit = train.skip_limit
        # Reading results back would wait for the GPU, so there it happens one update later.
        # In lockstep it is immediate everywhere: a checkpoint between two updates then
        # changes nothing.
        self._on_gpu = device.type == "cuda"
        self._late = self._on_gpu and not train.sync
        live, slots = self.trainer.parameters_of_policy(), SLOTS if self._late else 1
        self.weights = PolicyWeights(live, slots, compute_types(self.trainer.agent))
        self._staging = [Staging(replay.spec, train.batch_size, device) for _ in range(2)]
        self._pending: _Pending | None = None
        self._metrics = MetricMeans()
        self.failure: Exception | None = None
        """What stopped a change of the state half-way; nothing of it is worth saving any more."""
        self._streak = 0
        self._next_report = 0.0
        self._newest: Staging | None = None
        self._copies: dict[str, Tensor] = {}

    def warm_up(self) -> str:
        """Compile by running one update on what is staged, and put the state back afterwards.

        Returns what could not be done, for people; mostly nothing. Updates then go on without it.
        Raises what would end them, too: a full memory, a broken device.
        """
        with self._changing():
            return "; ".join(self._warm_up())

    def _warm_up(self) -> list[str]:
        assert self.accelerated is not None, "nothing is compiled here"
        before = self.state()  # on the host: the device may have no room for a second state
        batch = self._staging[0].batch()
        noise = self.trainer.draw_noise(torch.Generator().manual_seed(0))
        try:
            return self.accelerated.warm_up(batch, noise, self.team.peers)
        finally:
            self.trainer.load_state_dict(under(before, TRAINER))

    def step(self) -> Report:
        """Do one update; raises Diverged after too many non-finite ones in a row."""
        with self._changing():
            return self._step()

    def _step(self) -> Report:
        staging = self._staging[self.updates % 2]
        with self.stages.measure("sample"):
            self.replay.sample(staging.buffers)
        self._newest = staging
        with self.stages.measure("transfer"):
            batch = staging.batch()
        noise: Noise = self.trainer.draw_noise(self._generator)
        with self.stages.measure("update"):
            update = self.update(batch, noise)
            self.updates += 1
            self.weights.publish(self.trainer.parameters_of_policy(), self.updates)
        buffers = staging.buffers
        previous = self._pending
        staging.take_back(update)
        self._pending = _Pending(
            update, staging, buffers.env.copy(), buffers.start.copy(), buffers.generation
        )
        if self._late:
            self._settle(previous)
        else:
            self.settle()
        return Report(self.updates, self.skipped, self._due_metrics())

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Remember what stops a change of the state half-way: whoever waited may be gone."""
        try:
            yield
        except Exception as error:
            self.failure = explained(error)
            raise self.failure from error

    def settle(self) -> None:
        """Read back the last update's results; call before a checkpoint."""
        pending, self._pending = self._pending, None
        self._settle(pending)

    def publish(self) -> None:
        """Publish the present weights, after a restore."""
        self.weights.publish(self.trainer.parameters_of_policy(), self.updates)

    def last_batch(self) -> Batch | None:
        """The batch of the newest update, on the device; None before the first."""
        return None if self._newest is None else self._newest.batch()

    def state(self) -> dict[str, Tensor]:
        """Copies of everything the next update depends on, which the next call overwrites.

        The learner waits while they are made; into memory that was never touched they take up to
        ten times as long, hence the same memory each time. That of a GPU is copied into pinned
        memory, which it writes by itself, and waited for once.
        """
        self.settle()
        for key, tensor in keyed(TRAINER, self.trainer.state_dict()).items():
            if key not in self._copies:
                self._copies[key] = torch.empty(
                    tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda
                )
            self._copies[key].copy_(tensor.detach(), non_blocking=True)
        if self._on_gpu:
            with self._gpu_wait():
                torch.cuda.current_stream().synchronize()
        return self._copies | {LEARNER_GENERATOR: self._generator.get_state()}

    def load_state(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Restore `state()`; raises ValueError naming the first tensor that does not fit."""
        self.trainer.load_state_dict(under(tensors, TRAINER))
        self._restore_generator(tensors[LEARNER_GENERATOR], int(counters["updates"]))
        self.updates = int(counters["updates"])
        self.skipped = int(counters["skipped"])
        self.publish()

    def restore_generator(self, state: Tensor) -> None:
        """Go on with the random numbers of a state; with others if there is none that fits."""
        self._restore_generator(state, self.updates)

    def _restore_generator(self, state: Tensor, updates: int) -> None:
        """Go on with the same random numbers; on another kind of device with others."""
        if state.numel() == self._generator.get_state().numel():
            self._generator.set_state(state)
        else:
            self._generator.manual_seed(self._seed + 1 + updates)

    def _settle(self, pending: _Pending | None) -> None:
        if pending is None:
            return
        self._metrics.add(pending.update.metrics, pending.update.finite)
        with self._gpu_wait():
            result = pending.staging.results()
        if result.finite:
            self._streak = 0
            with self.stages.measure("write_latents"):
                self.replay.write_latents(
                    pending.env,
                    pending.start,
                    pending.generation,
                    result.deter,
                    result.stoch,
                )
            return
        self.skipped += 1
        self._streak += 1
        if self._streak >= self._skip_limit:
            raise Diverged(f"{self._streak} updates in a row were not finite")

    def _due_metrics(self) -> dict[str, float] | None:
        if time.monotonic() < self._next_report:
            return None
        self._next_report = time.monotonic() + self._metrics_seconds
        with self._gpu_wait():
            return self._metrics.take()

    def _gpu_wait(self) -> AbstractContextManager[None]:
        """Measure how long the learner's thread waits for the GPU; a CPU is never behind."""
        return self.stages.measure("gpu_wait") if self._on_gpu else nullcontext()


class MetricMeans:
    """Means over the finite updates since the last `take`, kept on the device until then.

    `opt/finite` alone is a share of all of them.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._added = 0
        self._sum: Tensor | None = None
        self._count: Tensor | None = None

    def add(self, metrics: dict[str, Tensor], finite: Tensor) -> None:
        """Count the scalars of one update, unless it was not `finite` (a scalar, too)."""
        self._names = list(metrics)
        self._added += 1
        values = torch.stack([value.detach().float() for value in metrics.values()])
        values = torch.where(finite, values, 0.0)
        count = finite.float()
        self._sum = values if self._sum is None else self._sum + values
        self._count = count if self._count is None else self._count + count

    def take(self) -> dict[str, float] | None:
        """Return the means and start anew; None when no finite update came in."""
        if self._sum is None or self._count is None or float(self._count) == 0:
            return None
        means = dict(zip(self._names, (self._sum / self._count).tolist(), strict=True))
        finite = float(self._count) / self._added
        self._sum, self._count, self._added = None, None, 0
        return means | ({"opt/finite": finite} if "opt/finite" in means else {})


async def learn(
    learner: Learner, ratio: TrainRatio, thread: OwnedThread, telemetry: Telemetry
) -> None:
    """Update whenever the limiter allows it, until cancelled."""
    while True:
        with learner.stages.measure("learner_wait"):
            await ratio.until_due()
        await learn_once(learner, ratio, thread, telemetry)


async def learn_once(
    learner: Learner, ratio: TrainRatio, thread: OwnedThread, telemetry: Telemetry
) -> None:
    """Do the one update that is due and report it."""
    ratio.sample()
    await ratio.notify()
    await _update(learner, ratio, thread, telemetry)


async def study(
    learner: Learner, ratio: TrainRatio, thread: OwnedThread, telemetry: Telemetry, updates: int
) -> None:
    """Update from what the replay holds until there are so many updates; a pause holds it up."""
    while learner.updates < updates:
        await ratio.running()
        await _update(learner, ratio, thread, telemetry)


async def _update(
    learner: Learner, ratio: TrainRatio, thread: OwnedThread, telemetry: Telemetry
) -> None:
    skipped = learner.skipped
    learner.team.tell(UPDATE)
    report = await thread.run(learner.step)
    if report.skipped > skipped:
        telemetry.warn(f"update {report.update} was not finite and was skipped")
    if report.values is not None:
        telemetry.emit(Metrics(report.update, ratio.inserted, report.values))
