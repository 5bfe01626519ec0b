"""What a checkpoint holds of a run: taken from the parts of the run, and put back into them.

A checkpoint is newer or older than the replay ring: the ring is an mmapped file and survives
kill -9 up to its last step, a checkpoint is a moment in the past. So env_steps grows by what
the ring holds beyond the checkpoint, the limiter's debt comes from the checkpoint, and the
updates that those extra steps had paid for are forgiven and counted.

Nor is the ring always that of the checkpoint: a run that moves between machines, or whose disk was
away, may come back to an earlier one. So a checkpoint says of every ring that the run has had how
many of its steps are in env_steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamer_async.agent.trainer import check_state
from dreamer_async.envs.vector import VectorEnv
from dreamer_async.replay.capacity import steps_holding
from dreamer_async.replay.replay import Replay
from dreamer_async.run.collector import Collector, Player
from dreamer_async.run.learner import Learner
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.telemetry import Position
from dreamer_async.store.checkpoint import Checkpoint, CheckpointError
from dreamer_async.store.checkpoint_layout import (
    COUNTED,
    ENV,
    EPISODES,
    LEARNER_GENERATOR,
    POLICY,
    POLICY_GENERATOR,
    Counters,
    counted_steps,
    keyed,
    under,
    with_counted,
)


class RunState:
    """The parts of a run whose state a checkpoint holds, in the order in which it comes back."""

    def __init__(
        self,
        learner: Learner,
        replay: Replay,
        ratio: TrainRatio,
        env: VectorEnv,
        player: Player,
        collector: Collector,
        *,
        lockstep: bool,
        recorded: bool = False,
        only_learns: bool = False,
    ) -> None:
        """`recorded`: the steps in a replay without a checkpoint are none of this run's own;
        `only_learns`: nor are any others."""
        self._learner = learner
        self._replay = replay
        self._ratio = ratio
        self._env = env
        self._player = player
        self._collector = collector
        self._lockstep = lockstep
        self._recorded = recorded
        self._only_learns = only_learns
        self.other_ring = False
        """Whether the checkpoint that was loaded was made with another replay."""
        self.earlier_ring = False
        """Whether the replay is then one that the run has had before."""
        self._counted: dict[str, int] = {}
        """Steps of each replay that were counted before this process, see `counted_steps`."""
        self.others: list[Mapping[str, Any]] = []
        """What the checkpoint that was loaded holds of other ranks."""

    @property
    def position(self) -> Position:
        """Where the run stands."""
        return Position(self._ratio.inserted, self._learner.updates)

    @property
    def library(self) -> str:
        """The native functions that updates are made with, see `Place`."""
        return self._learner.place.library

    # -- taking ------------------------------------------------------------------------------

    def counters(self) -> dict[str, Any]:
        """The part of the manifest that says where the run stands."""
        return {
            "env_steps": self._ratio.inserted,
            "score": self._collector.score,
            "updates": self._learner.updates,
            "skipped": self._learner.skipped,
            "ratio_started": self._ratio.started,
            "ratio_debt": self._ratio.debt,
            "replay_steps": self._replay.steps,
            **self.kept_of_replay(),
        }

    def kept_of_replay(self) -> dict[str, Any]:
        """What a checkpoint keeps of this rank's replay beside its files, as JSON."""
        replay = self._replay
        counted = with_counted(self._counted, replay.identity, replay.steps)
        return {"replay": replay.state(), COUNTED: counted}

    def learned(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """What the learner knows, and its own counters then; in the learner's thread."""
        tensors = self._learner.state()
        return tensors, {"updates": self._learner.updates, "skipped": self._learner.skipped}

    def acting(self) -> dict[str, Tensor]:
        """In lockstep nothing is in flight, so that acting can be continued exactly too."""
        snapshot = self._env.snapshot() if self._lockstep else None
        if snapshot is None:
            return {}
        env = {name: torch.from_numpy(np.array(array)) for name, array in snapshot.items()}
        return keyed(ENV, env) | self._own()

    def _own(self) -> dict[str, Tensor]:
        """What acting depends on besides the environments and the weights."""
        return keyed(POLICY, self._player.state()) | keyed(EPISODES, self._collector.state())

    # -- putting back ------------------------------------------------------------------------

    def load(self, found: Checkpoint) -> float:
        """Go on from a checkpoint, with what the ring holds; returns the updates that are lost.

        Runs in the learner's thread. Raises CheckpointError if it holds something else than this
        run needs.
        """
        try:
            counters = Counters.read(found.manifest)
            _check_generator(found.tensors, LEARNER_GENERATOR)
            self._learner.load_state(found.tensors, found.manifest)
            lost, exact = self._load_counters(counters, found.manifest)
            self.others = found.manifest.get("ranks", [])
            acts = self._lockstep and not self._only_learns
            if acts and not lost and exact and POLICY_GENERATOR in found.tensors:
                self._load_acting(found.tensors)
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{found.path.name}: {error}") from error
        return lost

    def start_anew(self) -> float:
        """A run that was killed before its first checkpoint keeps its replay; as `load`."""
        ratio, replay = self._ratio, self._replay
        if self._recorded:
            return 0.0
        ratio.inserted = replay.steps
        if replay.windows < self._collector.prefill:
            return 0.0
        ratio.start()
        return self._beyond_prefill() * ratio.ratio / ratio.cost

    def _beyond_prefill(self) -> int:
        """Steps after those that completed the prefill: each of them had made one more window."""
        spec = self._replay.spec
        before = steps_holding(self._collector.prefill, spec.num_envs, spec.length)
        return max(0, self._replay.steps - before)

    def load_replay(self, kept: Mapping[str, Any]) -> int:
        """Go on from `kept_of_replay`; returns how many steps of the ring were not counted yet.

        Negative where a power failure has left the ring behind its checkpoint. Raises ValueError
        if what was kept is damaged.
        """
        replay, then = self._replay, kept["replay"]
        same_ring = replay.load_state(then)
        self._counted = counted_steps(kept)
        self.other_ring = not same_ring and any(then["heads"])
        self.earlier_ring = not same_ring and replay.identity in self._counted
        return replay.steps - self._counted.get(replay.identity, 0)

    def _load_counters(self, counters: Counters, kept: Mapping[str, Any]) -> tuple[float, bool]:
        """Restore replay cursors and limiter; return the updates that are forgiven, and whether
        the ring ends where acting did when the checkpoint was made.

        Forgiven is what steps that were not counted had paid for, and a debt larger than any that
        this run can get into (the batch was larger, or somebody wrote it there).
        """
        ratio, replay = self._ratio, self._replay
        beyond = self.load_replay(kept)
        # Where a run takes no steps of its own, those of a new ring are recorded ones.
        fresh = 0 if self._only_learns else max(0, beyond)
        ratio.inserted = counters.env_steps + fresh
        most = ratio.bound + self._env.num_envs * ratio.ratio
        debt = min(max(0.0, counters.ratio_debt), most)
        if replay.windows >= self._collector.prefill:
            ratio.start(debt if counters.ratio_started else None)
        forgiven = max(0.0, counters.ratio_debt - debt)
        paid = fresh if counters.ratio_started else min(fresh, self._beyond_prefill())
        exact = not beyond and not self.earlier_ring
        return (paid * ratio.ratio + forgiven) / ratio.cost, exact

    def _load_acting(self, tensors: Mapping[str, Tensor]) -> None:
        own = self._own()
        check_state(own, {n: t for n, t in tensors.items() if n.startswith((POLICY, EPISODES))})
        _check_generator(tensors, POLICY_GENERATOR)
        self._env.restore({name: tensor.numpy() for name, tensor in under(tensors, ENV).items()})
        self._player.load_state(under(tensors, POLICY))
        self._collector.load_state(under(tensors, EPISODES))
        self._collector.running = True


def _check_generator(tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise ValueError if a state is none; that of a GPU's generator is known by its type alone."""
    state, scratch = tensors[name], torch.Generator()
    if state.dtype != torch.uint8 or state.dim() != 1:
        raise ValueError(f"{name} is no state of a generator, but {state.dtype} {state.shape}")
    if state.numel() != scratch.get_state().numel():
        return
    try:
        scratch.set_state(state)
    except RuntimeError as error:
        raise ValueError(f"{name} is no state of a generator ({error})") from error
