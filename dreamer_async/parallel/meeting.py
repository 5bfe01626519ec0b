"""Where ranks find each other: the store that torchrun gives them, and the group that adds up."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from dreamer_async.parallel.group import Group, all_reduce, in_our_words
from dreamer_async.parallel.world import World

LONGEST_WAIT = timedelta(minutes=30)
"""For another rank in a sum: it may compile meanwhile."""


class Lead(NamedTuple):
    """Where rank 0 listens."""

    host: str
    port: int
    token: str


class Meeting:
    """The store of one launch; made once a process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._store: Any = next(iter(dist.rendezvous("env://")))[0]
        self._key = f"dreamer_async/lead/{world.restarts}"  # the store outlives the ranks
        self._token = ""
        self.host = os.environ["MASTER_ADDR"]

    def announce(self, lead: Lead) -> None:
        """Say where rank 0 listens."""
        self._token = lead.token
        self._store.set(self._key, json.dumps(lead))

    def find(self) -> Lead:
        """Wait until rank 0 has said where it listens."""
        self._store.set_timeout(LONGEST_WAIT)
        lead = Lead(*json.loads(self._store.get(self._key)))
        self._token = lead.token
        return lead

    def join(self, device: torch.device) -> Group:
        """Make the group that adds up, by NCCL between GPUs, else by gloo; all ranks at once."""
        with in_our_words():
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=dist.PrefixStore(f"dreamer_async/{self._token}", self._store),
                rank=self.world.rank,
                world_size=self.world.size,
                timeout=LONGEST_WAIT,
                device_id=device if device.type == "cuda" else None,
            )
        return Group(self.world.rank, self.world.size, all_reduce())
