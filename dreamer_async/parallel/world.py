"""Which process of how many this is, as torchrun says in the environment."""

from __future__ import annotations

import math
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
    return f"{socket.gethostname()}:{os.getppid()}:{_launcher_began()}"


def launched_seconds() -> float:
    """How long ago the launcher, our parent, was started; infinite where the system does not tell.

    An id that somebody gave is that of earlier launches, too.
    """
    try:
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - int(_launcher_began()) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return math.inf


def _launcher_began() -> str:
    """When it was started, in ticks since the machine was; `?` where the system does not tell."""
    try:
        fields = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return "?"
    return fields[19] if len(fields) > 19 else "?"
