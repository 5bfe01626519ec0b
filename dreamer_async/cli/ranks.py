"""Runs on several devices: the launch that made one, and the ranks that follow."""

from __future__ import annotations

import time
from pathlib import Path

from dreamer_async.config import ConfigError
from dreamer_async.parallel.world import World, launch_id, launched_seconds
from dreamer_async.store.json_file import read_json, write_json_atomic
from dreamer_async.store.run_dir import RunDir, list_runs
from dreamer_async.store.sizes import counted

LAUNCH = Path("ranks", "launch.json")
"""In a run that torchrun has made: which launch it was."""
CLOCKS_SECONDS = 60.0
"""By how much the clocks of machines that share a disk may differ."""


def remember_launch(run: RunDir) -> None:
    """Let a launch find the run that it has made, when torchrun starts its ranks anew."""
    if World.here().size > 1:
        path = run.path / LAUNCH
        path.parent.mkdir(exist_ok=True)
        write_json_atomic(path, {"launch": launch_id()})


def made_before(root: Path) -> RunDir | None:
    """The run that this launch made before its ranks were started anew; None in its first life."""
    if World.here().restarts == 0:
        return None
    since = time.time() - launched_seconds() - CLOCKS_SECONDS
    made = (run for run in list_runs(root) if _launch_of(run) == launch_id())
    return next((run for run in made if (run.path / LAUNCH).stat().st_mtime >= since), None)


def _launch_of(run: RunDir) -> str | None:
    try:
        found = read_json(run.path / LAUNCH)
    except (OSError, ValueError):
        return None
    return found.get("launch") if isinstance(found, dict) else None


def devices_of(run: RunDir, asked: int | None, directory: str, *, drop_replay: bool) -> int:
    """On how many devices a run is to continue; ConfigError where its replays would be lost.

    As many as it had, unless it is said: each rank's replay, in `directory` if that is given, is a
    share of the environments, and another number of ranks has no use for it.
    """
    had, ranks = run.shares(directory), World.here().size
    wanted = ranks if ranks > 1 else asked or had or 1
    again = World.here().restarts > 0  # in its first life this was refused, or asked for
    if had not in (0, wanted) and not (drop_replay or again):
        raise ConfigError(
            f"{run.name} has {counted(had, 'replay')}, and {counted(wanted, 'device')} would "
            "divide the environments in another way: add --drop-replay to start with empty ones"
        )
    return 1 if ranks > 1 else wanted


def follow_run() -> int:
    """Be one of the ranks that do what rank 0 says, whatever run it makes."""
    from dreamer_async.run.pipeline import follow_main

    return follow_main()
