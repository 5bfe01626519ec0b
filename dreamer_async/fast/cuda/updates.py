"""Updates on a GPU: the functions that they are made of compiled, and the whole recorded.

The two time loops stay in Python: an unrolled graph takes most of an hour to compile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch

from dreamer_async.agent.actor_critic import ActorCriticLosses, Replayed
from dreamer_async.agent.batch import Batch, Noise
from dreamer_async.agent.normalize import ReturnRange
from dreamer_async.agent.states import RSSMState, Trajectory
from dreamer_async.agent.trainer import Behaviour, Regions, Trainer, Update, stage
from dreamer_async.fast.cuda import fused, scan
from dreamer_async.fast.cuda.backend import Dreams
from dreamer_async.fast.cuda.capture import CapturedUpdate, Recorder, cuda_graph
from dreamer_async.fast.cuda.low import Low
from dreamer_async.fast.cuda.optim import FlatLaProp
from dreamer_async.fast.cuda.rollout import Compiled, Imagination
from dreamer_async.fast.cuda.unfit import Unfit
from dreamer_async.machine.device_errors import first_line, raise_if_fatal

MAP_OPTIONS = {"realize_reads_threshold": 5}
"""Settings of inductor for what holds convolutions.

The gradient of norm and SiLU is used by sums over channels and over pixels and reads five tensors,
one too many for inductor, which would store it in float32 before them.
"""


class Peers(NamedTuple):
    """Other ranks of a run, which have to update in the same way; without them there are none."""

    apart: Callable[[], AbstractContextManager[None]] = nullcontext
    """In it updates exchange nothing, so that nobody waits for a rank that fails."""
    able: Callable[[bool], bool] = lambda able: able
    """From whether this rank is able to do something to whether all are; waits for all of them."""


ALONE = Peers()


class Updates:
    """The updates of a trainer, which change from interpreted to compiled to recorded ones.

    >>> updates = Updates(trainer)
    >>> updates.compile()
    >>> updates.capture(batch, noise)
    >>> updates(batch, noise).metrics["loss/total"]
    """

    def __init__(self, trainer: Trainer) -> None:
        optim, imagine = trainer.optim, trainer.imagine
        assert isinstance(optim, FlatLaProp), "the trainer has another backend"
        assert isinstance(imagine, Dreams), "the trainer has another backend"
        self.trainer = trainer
        self._optim: FlatLaProp = optim
        agent = trainer.agent
        self._parameters = nullcontext if agent.dtype == torch.float32 else Low(agent)
        self._loops: scan.Loops | None = None
        self._dreaming = self._usual = imagine.dreaming
        self._captured: CapturedUpdate | None = None

    def __call__(self, batch: Batch, noise: Noise) -> Update:
        """Take one training step; see `Trainer.update`."""
        return (self._captured or self.trainer.update)(batch, noise)

    def fuse_filtering(self, loops: scan.Loops | None) -> None:
        """Filter all steps at once from now on; None: one after the other. Undoes `compile`."""
        self._loops = loops
        self.interpret()

    def fuse_imagination(self, imagination: Imagination | None) -> None:
        """Imagine by something else from now on; None: step by step. Undoes `compile`."""
        self._dreaming = imagination or self._usual
        self.interpret()

    def interpret(self) -> None:
        """Take back `compile` and `capture`."""
        steps = scan.EAGER._replace(loops=self._loops)
        run = self.trainer.plain_regions()
        self._captured = None
        self._optim.interpret()
        self.trainer.regions = run._replace(
            parameters=self._parameters,
            observe=scan.filtering(self.trainer.agent.dyn, steps),
            behaviour=behaviour(self._dreaming, self._learn),
        )

    def compile(self, backend: str = "inductor") -> None:
        """Replace the regions by compiled ones."""
        compiled, maps = self._compilers(backend)
        run, steps = self.trainer.plain_regions(), scan.EAGER
        self._optim.compile(compiled)
        steps = scan.Steps(
            compiled(steps.forward),
            compiled(steps.backward),
            compiled(steps.weights),
            compiled(steps.prepare),
            compiled(steps.cast),
            self._loops,
        )
        self.trainer.regions = Regions(
            self._parameters,
            maps(run.encode),
            scan.filtering(self.trainer.agent.dyn, steps),
            maps(run.world_model_losses),
            behaviour(self._dreaming.compiled(compiled), compiled(self._learn)),
            compiled(run.total),
            compiled(run.finite),
            compiled(run.finish),
            compiled(run.metrics),
        )

    def _compilers(self, backend: str) -> tuple[Compiled, Compiled]:
        """What compiles a region, and what compiles one that may hold convolutions."""
        images = any(obs.is_image for obs in self.trainer.spec.obs.values())
        early = self.trainer.config.train.dependent_launch and launches_dependently()
        options = gpu_options(dependent_launch=early)
        one, other = (
            partial(
                torch.compile,
                dynamic=False,
                fullgraph=True,
                backend=backend,
                options=given if backend == "inductor" else None,
            )
            for given in (options, options | MAP_OPTIONS if images else options)
        )
        return one, other

    def _learn(
        self, trajectory: Trajectory, replayed: Replayed, moving: ReturnRange
    ) -> ActorCriticLosses:
        """Read imagined states and learn from them, which compiled is one region."""
        agent = self.trainer.agent
        return agent.actor_critic_losses(agent.read(trajectory), replayed, moving)

    def capture(self, batch: Batch, noise: Noise, record: Recorder | None = None) -> None:
        """Record the whole update, which is replayed from then on; takes a few training steps.

        Raises RuntimeError if it cannot be recorded; updates then go on as before.
        """
        record = record or partial(cuda_graph, device=self.trainer.device)
        self._captured = CapturedUpdate(self.trainer.update, batch, noise, record)

    @property
    def captured(self) -> bool:
        """Whether updates are replayed from a recording."""
        return self._captured is not None

    # -- warming up ------------------------------------------------------------------------------

    def warm_up(self, batch: Batch, noise: Noise, peers: Peers = ALONE) -> list[str]:
        """Do all that the settings ask for, by some training steps on a batch.

        Returns what could not be done, for people; mostly nothing. Updates then go on without it,
        on all ranks if one of them could not. Raises what would end them, too: a full memory, a
        broken device.
        """
        train, agent = self.trainer.config.train, self.trainer.agent
        problems = []
        if train.fused_filtering:
            make, use = partial(fused.filtering, agent.dyn, agent.dtype), self.fuse_filtering
            problems.append(self._fuse("filtering", make, use, batch, noise, peers))
        if train.fused_imagination:
            make, use = partial(fused.imagination, agent), self.fuse_imagination
            problems.append(self._fuse("imagination", make, use, batch, noise, peers))
        if train.dependent_launch and not launches_dependently():
            problems.append("kernels do not start early: this PyTorch has no triton.enable_pdl")
        problems.append(self._compile(batch, noise, peers))
        if train.capture:
            problems.append(self._record(batch, noise, peers))
        return list(filter(None, problems))

    def _fuse(
        self,
        part: str,
        make: Callable[[], Any],
        use: Callable[[Any], None],
        batch: Batch,
        noise: Noise,
        peers: Peers,
    ) -> str:
        reason = ""
        try:
            with peers.apart():
                use(make())
                self(batch, noise)
        except Unfit as error:
            reason = _words(error)
        return _agreed(f"{part} is not fused", reason, partial(use, None), peers)

    def _compile(self, batch: Batch, noise: Noise, peers: Peers) -> str:
        self.compile()
        reason = ""
        try:
            with peers.apart():
                self(batch, noise)
        except RuntimeError as error:
            raise_if_fatal(error)
            reason = _words(error)
        lacking = "updates are not compiled, which makes them slower"
        return _agreed(lacking, reason, self.interpret, peers)

    def _record(self, batch: Batch, noise: Noise, peers: Peers) -> str:
        if peers is not ALONE:
            self(batch, noise)  # the first exchange; others wait in it, so that nothing is caught
        reason = ""
        try:
            self.capture(batch, noise)
        except RuntimeError as error:
            raise_if_fatal(error)
            reason = _words(error)
        lacking = "updates are not recorded as a CUDA graph, which makes them slower"
        return _agreed(lacking, reason, self._forget, peers)

    def _forget(self) -> None:
        """Take back `capture`."""
        self._captured = None


def _agreed(lacking: str, reason: str, undo: Callable[[], None], peers: Peers) -> str:
    """Do without what one rank cannot do, this one for a `reason`; says so, for people."""
    if peers.able(not reason):
        return ""
    undo()
    return f"{lacking}: {reason or 'another rank cannot do it'}"


def _words(error: Exception) -> str:
    return first_line(error) or type(error).__name__


def behaviour(dreaming: Imagination, learn: Callable[..., ActorCriticLosses]) -> Behaviour:
    """Imagine by one thing and learn by another."""

    def behave(
        start: RSSMState, noise: Noise, replayed: Replayed, moving: ReturnRange
    ) -> tuple[Trajectory, ActorCriticLosses]:
        with stage("imagine"):
            trajectory = dreaming.imagine(start, noise.action, noise.prior)
        with stage("actor and critic losses"):
            return trajectory, learn(trajectory, replayed, moving)

    return behave


def gpu_options(*, dependent_launch: bool) -> dict[str, Any]:
    """Settings of inductor."""
    # Otherwise softmaxes over few classes (size1m) are spread over more kernels.
    options: dict[str, Any] = {"unroll_reductions_threshold": 1}
    return options | ({"triton.enable_pdl": True} if dependent_launch else {})


def launches_dependently() -> bool:
    """Whether this version of inductor knows programmatic dependent launch."""
    from torch._inductor import config

    return hasattr(config.triton, "enable_pdl")
