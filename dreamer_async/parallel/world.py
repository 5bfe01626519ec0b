"""Which process of how many this is, as torchrun says in the environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

RANK, SIZE = "RANK", "WORLD_SIZE"


class World(NamedTuple):
    """The ranks of a run: its processes, counted over all machines."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Which one of this machine."""
    local_size: int = 1
    """How many there are on this machine."""
    restarts: int = 0
    """How often the launcher has started them anew."""

    @property
    def leads(self) -> bool:
        """Whether this is the rank that writes what a run leaves behind."""
        return self.rank == 0

    @staticmethod
    def here(environment: Mapping[str, str] | None = None) -> World:
        """What the environment says; one process by itself where no launcher has set it."""
        given = os.environ if environment is None else environment
        if "TORCHELASTIC_RUN_ID" not in given:  # Slurm, MPI and others use names like RANK, too
            return World()
        names = RANK, SIZE, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"
        return World(*(int(given[name]) for name in names))


def launch_id(environment: Mapping[str, str] | None = None) -> str:
    """What tells this launch from others, and stays the same when its ranks are started anew.

    torchrun has an id of its own only where somebody gave it one: elsewhere it is the launcher
    itself, our parent.
    """
    given = os.environ if environment is None else environment
    named = given.get("TORCHELASTIC_RUN_ID", "none")
    if named != "none":
        return named
    launcher = os.getppid()
    try:
        fields = Path(f"/proc/{launcher}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        fields = []
    since = fields[19] if len(fields) > 19 else "?"
    return f"{socket.gethostname()}:{launcher}:{since}"
