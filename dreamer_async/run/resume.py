"""Where a run begins: a stopped or killed one at its newest checkpoint that verifies, with its
replay; a new one, if it is told to, with the weights of another run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dreamer_async.config import Config, changed, from_dict
from dreamer_async.config.schema import shown
from dreamer_async.machine.device import cpu_threads
from dreamer_async.replay.setup import check_directory
from dreamer_async.run.learner import Learner
from dreamer_async.run.run_state import RunState
from dreamer_async.store import checkpoint
from dreamer_async.store.checkpoint import CheckpointError
from dreamer_async.store.checkpoint_layout import AGENT, Counters, under
from dreamer_async.store.events import Resumed
from dreamer_async.store.json_file import read_json
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sizes import in_words

WORLD_MODEL = ("enc", "dyn", "dec", "rew", "con")
"""Parts of an agent that know nothing of its behaviour."""
NAMED = 8
"""Tensors that are named one by one."""


class Resumption(NamedTuple):
    """Where a run goes on."""

    resumed: Resumed
    warnings: list[str]
    """Settings that changed, and what keeps a lockstep run from going on bit for bit."""

    def ahead(self, steps: int, updates: float) -> Resumption:
        """The same where other ranks' rings are so many steps, worth `updates`, ahead, too."""
        at, lost = self.resumed.env_steps + steps, self.resumed.lost_updates
        resumed = replace(self.resumed, env_steps=at, lost_updates=lost + updates)
        return self._replace(resumed=resumed)


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
    differences = _differences(config, Counters.read(found.manifest), state.library)
    another = _another_ring(run_dir, config, state)
    warnings = [*edited, *differences, *another]
    return Resumption(_resumed(path, state, lost, found.skipped), warnings)


def drop_other_layout(run_dir: RunDir, config: Config, ranks: int) -> str:
    """Delete replays that so many ranks cannot use, and say so; mostly there are none.

    Every rank's ring holds its share of the environments, so that another number of ranks needs
    other rings. Raises CheckpointError, with nothing deleted, where no checkpoint verifies, and
    ConfigError where the directory of the replays is not there.
    """
    check_directory(config)
    directory = config.replay.directory
    there = run_dir.shares(directory)
    whole = run_dir.replay_paths(directory)[0].exists()
    if there in (0, ranks) and not (whole and ranks > 1):
        return ""
    checkpoint.to_resume(run_dir.checkpoints)
    freed = run_dir.free_replay(directory)
    return (
        f"the replay of {there} rank{'s' * (there > 1)} was dropped ({in_words(freed)}): "
        f"{ranks} divide{'s' * (ranks == 1)} the environments in another way"
    )


def begin_with(path: Path, parts: str, learner: Learner) -> list[str]:
    """Take over weights of a run or a checkpoint; says what was taken and what was not.

    What has no match of the same shape stays as random as it is, and so do the moments of the
    optimiser and the scale of returns. Runs in the learner's thread. Raises CheckpointError where
    nothing verifies or nothing fits.
    """
    found = (
        checkpoint.read(path) if (path / checkpoint.MANIFEST).exists() else checkpoint.need(path)
    )
    there, own = under(found.tensors, AGENT), under(learner.trainer.state_dict(), "agent.")
    wanted = [name for name in own if parts == "all" or name.split(".")[0] in WORLD_MODEL]
    taken = [name for name in wanted if _fits(own[name], there.get(name))]
    if not any(own[name].dim() > 1 for name in taken):  # biases of one number fit anything
        raise CheckpointError(f"{found.path}: none of its weights fits the networks of this run")
    with torch.no_grad():
        for name in taken:
            own[name].copy_(there[name])
    learner.publish()
    fresh = [name for name in wanted if name not in set(taken)]
    unused = [name for name in there if name not in own]
    of = "the world model" if parts == "world_model" else "all networks"
    lines = [f"began with {len(taken)} of the {len(wanted)} tensors of {of}, from {found.path}"]
    if fresh:
        shapes = ", ".join(_difference(name, own[name], there.get(name)) for name in fresh[:NAMED])
        lines.append(f"random as in a new run: {shapes}{_more(fresh)}")
    if unused:
        lines.append(
            "not taken, as no weight of this run has the name: "
            f"{', '.join(unused[:NAMED])}{_more(unused)}"
        )
    return lines


def _fits(mine: Tensor, other: Tensor | None) -> bool:
    return other is not None and mine.shape == other.shape and mine.dtype == other.dtype


def _difference(name: str, mine: Tensor, other: Tensor | None) -> str:
    there = "none there" if other is None else f"{list(other.shape)} there"
    return f"{name} ({list(mine.shape)}, {there})"


def _more(names: list[str]) -> str:
    return f" and {len(names) - NAMED} more" if len(names) > NAMED else ""


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


def _another_ring(run_dir: RunDir, config: Config, state: RunState) -> list[str]:
    """What became of the replay of the checkpoint where the run goes on with another one."""
    if not state.other_ring:
        return []
    if not state.earlier_ring:
        return _elsewhere(run_dir, config)
    return [
        f"the replay at {_rings(run_dir, config)} is an earlier one of the run, not that of the "
        "checkpoint: the run goes on with it, and without what it has collected in others since"
    ]


def _elsewhere(run_dir: RunDir, config: Config) -> list[str]:
    """What became of a replay outside of the run, whose name has the run's name and place."""
    if not config.replay.directory:
        return []
    return [
        f"the replay of the checkpoint is not at {_rings(run_dir, config)}: the run goes on with "
        "another one. If you have moved or renamed the run, the old one is still there under the "
        "old name: to continue with it, stop the run and give its files (.ring and .latents) the "
        "new name, in place of the files that have it now, whose steps stay counted; or delete it"
    ]


def _rings(run_dir: RunDir, config: Config) -> str:
    """Where the replay is expected, or that of each rank."""
    homes = sorted(run_dir.ranks(), key=lambda rank: int(rank.name)) or [run_dir]
    return ", ".join(str(home.replay_paths(config.replay.directory)[0]) for home in homes)


def _differences(config: Config, counters: Counters, library: str) -> list[str]:
    """What makes the next updates differ from those of a run that had not been stopped."""
    compared = (
        ("torch", counters.torch, str(torch.__version__)),
        ("threads", counters.threads, cpu_threads(config)),
        ("native functions", counters.native, library),
    )
    return [
        f"saved with {name} {shown(was)}, continued with {now or 'none'}: "
        "the last digits will differ"
        for name, was, now in compared
        if config.train.sync and was is not None and was != now
    ]
