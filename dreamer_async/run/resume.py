"""How a stopped or killed run goes on: from its newest checkpoint that verifies, and its replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from dreamer_async.config import Config, changed, from_dict
from dreamer_async.config.schema import shown
from dreamer_async.machine.device import cpu_threads
from dreamer_async.run.run_state import RunState
from dreamer_async.store import checkpoint
from dreamer_async.store.checkpoint_layout import Counters
from dreamer_async.store.events import Resumed
from dreamer_async.store.json_file import read_json
from dreamer_async.store.run_dir import RunDir


class Resumption(NamedTuple):
    """Where a run goes on."""

    resumed: Resumed
    warnings: list[str]
    """Settings that changed, and what keeps a lockstep run from going on bit for bit."""


def go_on(run_dir: RunDir, config: Config, state: RunState) -> Resumption:
    """Bring back the newest checkpoint that verifies and what the ring holds, in memory.

    Runs in the learner's thread. Raises CheckpointError when checkpoints exist and none verifies,
    or the newest that does holds something else than this run needs; nothing on disk is changed.
    """
    found = checkpoint.to_resume(run_dir.checkpoints)
    if found is None:
        return Resumption(_resumed("", state, state.start_anew()), [])
    lost = state.load(found)
    path = str(found.path.relative_to(run_dir.path))
    edited = _edited(run_dir, config, found.manifest)
    differences = _differences(config, Counters.read(found.manifest))
    return Resumption(_resumed(path, state, lost, found.skipped), [*edited, *differences])


def _resumed(path: str, state: RunState, lost: float, skipped: tuple[str, ...] = ()) -> Resumed:
    return Resumed(path, *state.position, lost, skipped)


def _edited(run_dir: RunDir, config: Config, manifest: Mapping[str, Any]) -> list[str]:
    """What stands in config.json, and is used, but not where the checkpoint was saved."""
    try:
        saved, stored = from_dict(manifest["config"]), from_dict(read_json(run_dir.config_path))
    except (OSError, KeyError, ValueError):
        return []
    asked = changed(stored, config)  # this command says something else again
    return [
        f"{key} is {shown(now)} in config.json and was {shown(was)} when the "
        "checkpoint was saved: config.json counts"
        for key, (was, now) in changed(saved, stored).items()
        if key not in asked
    ]


def _differences(config: Config, counters: Counters) -> list[str]:
    """What makes the next updates differ from those of a run that had not been stopped."""
    now = {"torch": str(torch.__version__), "threads": cpu_threads(config)}
    return [
        f"saved with {name} {shown(was)}, goes on with {value}: the last digits will differ"
        for name, value in now.items()
        if config.train.sync and (was := getattr(counters, name)) != value
    ]
