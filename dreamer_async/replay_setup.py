"""How large the replay of a run is, where it lives, and opening it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dreamer_async.config import Config, ConfigError
from dreamer_async.replay import Field, Replay, RingSpec, default_capacity, memory_limit, ring_bytes
from dreamer_async.run_dir import RunDir
from envs.spec import EnvSpec

CONTEXT = 1
"""Steps in front of each trained sequence whose latents start the model (spec: replay context)."""


def open_replay(config: Config, spec: EnvSpec, run_dir: RunDir, *, resume: bool) -> Replay:
    """Create the ring, or open the one that a stopped run left behind.

    Raises ReplaySpaceError (needed and free bytes) before anything was allocated, and
    RingMismatch when the ring on disk belongs to other settings.
    """
    ring, latents = paths(config, run_dir)
    options = {"seed": config.train.seed + 3, "online": config.replay.online}
    if resume and ring.exists():
        return Replay.open(ring, latents, _as_on_disk(config, spec, ring), **options)
    ring.parent.mkdir(parents=True, exist_ok=True)
    return Replay.create(ring, latents, ring_spec(config, spec, _steps_that_fit(config, spec, ring)), **options)


def paths(config: Config, run_dir: RunDir) -> tuple[Path, Path]:
    """Where the ring and its latents live."""
    if not config.replay.directory:
        return run_dir.replay_path, run_dir.latents_path
    folder = Path(config.replay.directory) / run_dir.name
    return folder / run_dir.replay_path.name, folder / run_dir.latents_path.name


def ring_spec(config: Config, spec: EnvSpec, capacity: int) -> RingSpec:
    """Describe the ring: `capacity` steps over all environments, rounded up per environment."""
    length = config.train.batch_length + CONTEXT
    per_env = -(-capacity // config.env.num_envs)
    if per_env < length:
        raise ConfigError(
            f"replay.capacity {capacity} leaves {per_env} steps for each of "
            f"{config.env.num_envs} environments; at least {length} are needed"
        )
    fields = {name: Field(obs.shape, obs.dtype) for name, obs in spec.obs.items()}
    fields |= {
        "action": Field(spec.action.shape, spec.action.dtype),
        "reward": Field((), "float32"),
        "is_first": Field((), "bool"),
        "is_last": Field((), "bool"),
        "is_terminal": Field((), "bool"),
    }
    model = config.model
    return RingSpec(fields, model.deter, model.stoch, config.env.num_envs, per_env, length)


def _steps_that_fit(config: Config, spec: EnvSpec, ring: Path) -> int:
    """Resolve the capacity: given in steps, given in GB, or as much as makes sense here."""
    least = config.env.num_envs * 1024
    probe = ring_spec(config, spec, max(least, config.env.num_envs * (config.train.batch_length + 1)))
    per_step = -(-sum(ring_bytes(probe)) // (probe.capacity * probe.num_envs))
    wanted = config.replay.capacity or None
    if config.replay.capacity_gb:
        by_size = int(config.replay.capacity_gb * 1e9 / per_step)
        wanted = min(wanted, by_size) if wanted else by_size
    if wanted:
        return wanted
    planned = max(config.train.steps, least)
    return default_capacity(planned, per_step, shutil.disk_usage(_existing(ring)).free, memory_limit())


def _as_on_disk(config: Config, spec: EnvSpec, ring: Path) -> RingSpec:
    """Take the capacity from the file: free disk and memory may have changed since."""
    probe = ring_spec(config, spec, config.env.num_envs * (config.train.batch_length + CONTEXT))
    stored = Replay.stored_spec(ring)
    return RingSpec(
        probe.fields, probe.deter, probe.stoch, probe.num_envs, stored.capacity, probe.length
    )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return Path(os.fspath(path))
