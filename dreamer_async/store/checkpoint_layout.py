"""What a checkpoint calls things: the tensors of each owner, and the counters of the manifest.

    trainer/agent.*      parameters, with those of the slow critic
    trainer/*            what else the trainer has: moments, the return scale
    learner/generator    random numbers of the updates
    policy/*             carries by environment, and policy/generator: random numbers of acting
    episodes/*           scores and lengths of the running episodes
    env/*                the environments themselves

The last three are there where nothing was in flight: of runs in lockstep. Owners name their
tensors as they like; nobody but this file spells what stands in front of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dreamer_async.config.schema import LARGEST, decode, shown

TRAINER = "trainer/"
AGENT = f"{TRAINER}agent."
POLICY = "policy/"
EPISODES = "episodes/"
ENV = "env/"

COUNTED = "counted"
"""Key of the steps of each replay that are in `env_steps`, in a manifest and of each other rank."""
MOST_RINGS = 64
"""Replays of one rank whose counted steps are kept: those that it used last."""

LEARNER_GENERATOR = "learner/generator"
POLICY_GENERATOR = f"{POLICY}generator"


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors of one owner and drop the prefix from their names."""
    return {n[len(prefix) :]: tensor for n, tensor in tensors.items() if n.startswith(prefix)}


def keyed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the prefix of their owner in front of the names of tensors; `under` undoes it."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def counted_steps(kept: Mapping[str, Any]) -> dict[str, int]:
    """How many steps of each replay of a rank are counted, {identity of its ring: steps}.

    The one that was used last comes last, and earlier versions have kept no other. `kept` is a
    manifest, or what it holds of another rank. Raises ValueError where no run can have counted
    like that.
    """
    if COUNTED not in kept:
        replay = kept["replay"]
        return {str(replay["ring"]): kept.get("replay_steps", sum(map(int, replay["heads"])))}
    counted = kept[COUNTED]
    if not isinstance(counted, Mapping):
        raise ValueError(f"{COUNTED}: expected an object, got {shown(counted)}")
    for ring, steps in counted.items():
        if type(steps) is not int or not 0 <= steps <= LARGEST:
            raise ValueError(f"{COUNTED}: {shown(steps)} steps of {shown(ring)} cannot be")
    return dict(counted)


def with_counted(counted: Mapping[str, int], ring: str, steps: int) -> dict[str, int]:
    """The same once so many steps of a ring, the one in use, are counted."""
    others = [(other, then) for other, then in counted.items() if other != ring]
    return dict([*others, (ring, steps)][-MOST_RINGS:])


@dataclass(frozen=True)
class Counters:
    """The part of a manifest that says where the run stood."""

    env_steps: int
    updates: int
    skipped: int
    ratio_started: bool
    ratio_debt: float
    """Replayed steps that were due."""
    replay_steps: int
    """Steps that the ring had ever seen."""
    torch: str
    threads: int
    native: str | None = None
    """Library of native functions, empty where PyTorch computed; None in older checkpoints."""

    @classmethod
    def read(cls, manifest: Mapping[str, Any]) -> Counters:
        """Take the counters out of a manifest; raises ValueError that names the wrong one."""
        counters = decode(cls, manifest, extra=True)
        for name, value in vars(counters).items():
            if isinstance(value, int) and not 0 <= value <= LARGEST:
                raise ValueError(f"{name} {shown(value)} cannot be")
        return counters
