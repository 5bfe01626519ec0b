"""How large the replay of a run is, where it lives, and opening it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from dreamer_async.config import Config, ConfigError
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.replay.capacity import (
    capacity_per_env,
    default_capacity,
    memory_limit,
    steps_holding,
)
from dreamer_async.replay.check import check_steps
from dreamer_async.replay.layout import RingSpec, ring_bytes
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.ring import Field, check_space
from dreamer_async.store.run_dir import RunDir

CONTEXT = 1
"""Steps in front of each trained sequence whose latents start the model (replay context)."""


def open_replay(config: Config, spec: EnvSpec, run_dir: RunDir, *, resume: bool) -> Replay:
    """Create the ring, or open the one that a stopped run left behind, without a claim to it.

    Nothing on the disk is changed (a ring that was created goes again) before `claim`. Raises
    ReplaySpaceError (needed and free bytes) with nothing left behind, RingMismatch when the ring
    on disk belongs to other settings or holds what no step can be, and, with `resume`, ConfigError
    as `check_directory`.
    """
    if resume:
        check_directory(config)
    ring, latents = run_dir.replay_paths(config.replay.directory)
    run_dir.path.mkdir(parents=True, exist_ok=True)  # a rank's says that it has a ring elsewhere
    seed, online = config.train.seed + 3, config.replay.online
    if resume and ring.exists():
        on_disk = stored_ring_spec(config, spec, ring)
        replay = Replay.open(ring, latents, on_disk, seed=seed, online=online, claim=False)
        try:
            check_steps(replay, spec, config.model.classes)
        except BaseException:
            replay.close()
            raise
        return replay
    ring.parent.mkdir(parents=True, exist_ok=True)
    wanted = ring_spec(config, spec, steps_to_keep(config, spec, ring.parent))
    return Replay.create(ring, latents, wanted, seed=seed, online=online, claim=False)


def room_of(config: Config, spec: EnvSpec, run_dir: RunDir, *, resume: bool) -> int:
    """Steps that the replay of a whole run is to hold, where several rings share them.

    With `resume`, raises ConfigError as `check_directory`.
    """
    if resume:
        check_directory(config)
    ring, _ = run_dir.replay_paths(config.replay.directory)
    if resume and ring.exists():
        return 0  # the file knows
    ring.parent.mkdir(parents=True, exist_ok=True)
    return steps_to_keep(config, spec, ring.parent)


def check_directory(config: Config) -> None:
    """Refuse to continue where the directory of the replay is gone, as its disk is; ConfigError.

    A run that made it anew would continue without what it has collected.
    """
    directory = config.replay.directory
    if directory and not Path(directory).is_dir():
        raise ConfigError(
            f"the directory of the replay, {Path(directory).absolute()}, does not exist: mount its "
            "disk, or make the directory to continue with an empty replay"
        )


def check_room(config: Config, spec: EnvSpec, directory: Path) -> int:
    """Bytes of a new replay; ReplaySpaceError if an existing directory's disk has too few."""
    wanted = sum(ring_bytes(ring_spec(config, spec, steps_to_keep(config, spec, directory))))
    check_space(directory / "replay.ring", wanted)
    return wanted


def stored_ring_spec(config: Config, spec: EnvSpec, ring: Path) -> RingSpec:
    """Describe an existing ring; the capacity is the file's, whatever would fit today."""
    return replace(ring_spec(config, spec, 0), capacity=Replay.stored_spec(ring).capacity)


def prefill_windows(config: Config) -> int:
    """Complete windows in the replay before the first update (official: batch x length items)."""
    return config.train.batch_size * config.train.batch_length


def prefill_steps(config: Config) -> int:
    """Agent steps over all environments before the first update."""
    train = config.train
    length = train.batch_length + CONTEXT
    return steps_holding(prefill_windows(config), config.env.num_envs, length)


def ring_spec(config: Config, spec: EnvSpec, steps: int) -> RingSpec:
    """Describe a ring for `steps` over all environments, or as few as training can start with."""
    length = config.train.batch_length + CONTEXT
    per_env = capacity_per_env(steps, config.env.num_envs, length, prefill_windows(config))
    model = config.model
    return RingSpec(stored(spec), model.deter, model.stoch, config.env.num_envs, per_env, length)


def stored(spec: EnvSpec) -> dict[str, Field]:
    """What is stored of a step, beside its latents."""
    return {
        **{name: Field(obs.shape, obs.dtype) for name, obs in spec.obs.items()},
        "action": Field(spec.action.shape, spec.action.dtype),
        "reward": Field((), "float32"),
        "is_first": Field((), "bool"),
        "is_last": Field((), "bool"),
        "is_terminal": Field((), "bool"),
    }


def steps_to_keep(config: Config, spec: EnvSpec, directory: Path) -> int:
    """Resolve the capacity: given in steps, in GB, or as much as makes sense here."""
    per_step = bytes_per_step(config, spec)
    bounds = [config.replay.capacity] if config.replay.capacity else []
    if config.replay.capacity_gb:
        bounds.append(int(config.replay.capacity_gb * 1e9 / per_step))
    if bounds:
        return min(bounds)
    free = shutil.disk_usage(directory).free
    return default_capacity(config.train.steps, per_step, free, memory_limit())


def bytes_per_step(config: Config, spec: EnvSpec) -> int:
    """Size of one stored step with its latents, rounded up."""
    many = ring_spec(config, spec, 1_000_000)
    return -(-sum(ring_bytes(many)) // (many.capacity * many.num_envs))
