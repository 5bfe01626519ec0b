"""What a part of a run asks of the other ranks, and that there are none.

`Team` is one process by itself. `lead.Lead` is rank 0 of several, `follower.Follower` any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from dreamer_async.agent.normalize import Ranks
from dreamer_async.agent.trainer import Trainer
from dreamer_async.config import Config
from dreamer_async.fast.cuda.updates import ALONE, Peers
from dreamer_async.parallel.world import World
from dreamer_async.run.aio import OwnedThread
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.ranks.arithmetic import Arithmetic
from dreamer_async.store.events import Episode
from dreamer_async.store.run_dir import RunDir

UPDATE, SAVE, COLLECT = "update", "save", "collect"
"""Orders: one update; a copy of the state; in lockstep, the next steps."""


class Notes(Protocol):
    """Whoever counts finished episodes."""

    def finished(self, episode: Episode) -> None:
        """Count one."""
        ...


class Team:
    """Nobody to tell anything, nobody to wait for."""

    world = World()
    broken = False
    """Whether a rank is gone, so that nothing can be done together any more."""
    peers: Peers = ALONE
    """Whom this rank's updates have to agree with; known once it has joined by `exchange`."""

    async def meet(self, config: Config, run_dir: RunDir, *, resume: bool) -> None:
        """Wait until all ranks are there, and tell them what to run."""

    def replay_home(self, run_dir: RunDir) -> RunDir:
        """Where the replay of this rank lies."""
        return run_dir

    def ratio(self, ratio: float, cost: int, *, waits: bool) -> TrainRatio:
        """The limiter, for updates that cost so many replayed steps in the whole run."""
        return TrainRatio(ratio, cost, waits=waits)

    async def room(self, steps: int) -> int:
        """How many steps this rank's replay is to hold, of those that fit the whole run."""
        return steps

    async def common(self, arithmetic: Arithmetic) -> str:
        """Why all ranks do without native functions; empty where each computes with what it has.

        Raises ConfigError where they cannot compute alike.
        """
        return ""

    def exchange(self, device: torch.device) -> Ranks:
        """What an update exchanges; in the learner's thread, which waits for all ranks."""
        return Ranks()

    def same_weights(self, trainer: Trainer) -> None:
        """Take over the state of rank 0's trainer; in the learner's thread."""

    def tell(self, order: str) -> int:
        """Say what the learner's thread does next, in the moment in which it is told itself.

        So all ranks do the same in the same order. Returns the number of the order.
        """
        return 0

    async def begin(self, others: list[Mapping[str, Any]], updates: int, skipped: int) -> int:
        """Let the others take up what a checkpoint holds of them; returns the steps they add."""
        return 0

    async def stored(self) -> None:
        """In lockstep, wait until all ranks have stored what they collected."""

    async def others(
        self, number: int, own: Mapping[str, Tensor], thread: OwnedThread
    ) -> dict[str, Any]:
        """What a manifest says of the other ranks, and of all together."""
        return {}

    async def failed(self) -> None:
        """Wait until another rank fails, and raise that."""
        await asyncio.Event().wait()

    async def cause(self, error: BaseException) -> BaseException:
        """What made a rank fail that does not answer any more, if it has said so; else `error`."""
        return error

    async def watch(self) -> None:
        """As `failed`, and tell the others what they need to know meanwhile."""
        await self.failed()

    def gauges(self, own: Mapping[str, float]) -> Mapping[str, float]:
        """What the other ranks' gauges add to this one's, or change."""
        return {}

    def take_notes(self, notes: Notes) -> None:
        """Hand episodes of other ranks on."""

    async def end(self, code: int, reason: str) -> None:
        """Let the others end as this one does."""


def of_all_ranks(values: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Gauges of a run from those of its ranks, rank 0's included, and a few of each rank."""
    merged: dict[str, float] = {}
    for name in SUMS:
        merged |= {name: sum(v.get(name, 0.0) for v in values.values())}
    for name in MEANS:
        merged |= {name: sum(v.get(name, 0.0) for v in values.values()) / len(values)}
    for rank, gauges in values.items():
        merged[f"rank/{rank}/env_steps"] = gauges.get("rate/own_steps", 0.0)
        if (waits := gauges.get("stage/learner_wait")) is not None:  # in lockstep nobody measures
            merged[f"rank/{rank}/busy"] = min(1.0, max(0.0, 1.0 - waits))
        merged[f"rank/{rank}/lag"] = gauges.get("policy/lag", 0.0)
    return merged


SUMS = (
    *("replay/gb", "replay/steps", "replay/windows", "replay/torn", "replay/online_queue"),
    *("replay/sampled", "replay/online_served", "replay/online_dropped", "replay/contexts_lost"),
    "replay/sample_age",  # each counts in steps of its own environments
    *("memory/rss_gb", "memory/workers_gb", "cpu/percent"),
)
MEANS = ("replay/fill",)
