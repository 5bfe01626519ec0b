"""A trained agent in three lines: load it, and ask it for actions.

agent = dreamer_async.load("runs/20260101-120000-atari-pong")
carry = None
action, carry = agent.act(obs, carry)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dreamer_async import envs
from dreamer_async.agent.policy import Policy, PolicyCarry
from dreamer_async.config import Config, from_dict
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.fast.place import take_place
from dreamer_async.run import hub
from dreamer_async.store import checkpoint
from dreamer_async.store.checkpoint_layout import AGENT, Counters, under


class SavedAgent:
    """The policy of a checkpoint.

    Observations are {key: array} with the keys, shapes and types of `spec.obs`, one
    observation without a batch axis or N with one. As in training, actions are sampled.
    """

    def __init__(self, found: checkpoint.Checkpoint, device: str = "auto", seed: int = 0) -> None:
        self.path, self.skipped = found.path, found.skipped
        try:
            self.config: Config = from_dict(found.manifest.get("config"))
            counters = Counters.read(found.manifest)
            self.spec: EnvSpec = envs.spec_of(self.config.env)
        except ValueError as error:
            raise checkpoint.CheckpointError(f"{found.path.name}: {error}") from error
        self.env_steps, self.updates = counters.env_steps, counters.updates
        place = take_place(replace(self.config.train, device=device))
        self.policy = Policy(self.spec, self.config, place.device, place.precision, place.backend)
        self.generator = torch.Generator().manual_seed(seed)
        self._load_weights(found)

    def initial(self, num_envs: int) -> PolicyCarry:
        """The carry before a first observation, for a batch of this many environments."""
        return self.policy.initial(num_envs)

    def act(
        self,
        obs: Mapping[str, ArrayLike],
        carry: PolicyCarry | None = None,
        is_first: ArrayLike | None = None,
    ) -> tuple[NDArray[np.generic], PolicyCarry]:
        """Return actions and the next carry; `carry` None starts an episode.

        Pass `is_first` (bool, one per row) to start single rows of a batch anew. Raises
        ValueError for observations that do not fit.
        """
        rows, single = self._rows(obs)
        count = len(next(iter(rows.values())))
        first = np.zeros(count, bool) if is_first is None else np.atleast_1d(is_first).astype(bool)
        if carry is None:
            carry, first = self.initial(count), np.ones(count, bool)
        acted, carry = self.policy.act(rows, first, carry, self.generator)
        return (acted.action[0] if single else acted.action), carry

    def _rows(self, obs: Mapping[str, Any]) -> tuple[dict[str, NDArray[np.generic]], bool]:
        rows, batched = {}, set()
        for name, spec in self.spec.obs.items():
            if name not in obs:
                raise ValueError(
                    f"observation {name!r} is missing; needed: {sorted(self.spec.obs)}"
                )
            array = np.asarray(obs[name], spec.dtype)
            batched.add(array.ndim == len(spec.shape) + 1)
            if array.shape[array.ndim - len(spec.shape) :] != spec.shape:
                raise ValueError(f"observation {name!r} has shape {array.shape}, not {spec.shape}")
            rows[name] = array
        if len(batched) != 1:
            raise ValueError("either all observations have a batch axis or none has")
        single = not batched.pop()
        return {name: a[None] if single else a for name, a in rows.items()}, single

    def _load_weights(self, found: checkpoint.Checkpoint) -> None:
        """Copy the policy's part of the trainer's state; raises CheckpointError if it lacks any."""
        try:
            self.policy.load(under(found.tensors, AGENT))
        except (ValueError, RuntimeError) as error:
            raise checkpoint.CheckpointError(f"{found.path.name}: {error}") from error


def load(
    path: str | Path, device: str = "auto", seed: int = 0, *, best: bool = False
) -> SavedAgent:
    """Load the agent of a run directory or of one checkpoint.

    Of a run it is the newest valid checkpoint, with `best` the one with the highest mean score of
    the 20 training episodes before it. Raises CheckpointError when nothing valid is there.
    """
    path = hub.local(path)
    if (path / checkpoint.MANIFEST).exists():
        return SavedAgent(checkpoint.read(path), device, seed)
    return SavedAgent(checkpoint.need(path, of_best=best), device, seed)
