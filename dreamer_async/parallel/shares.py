"""What of a whole run is one rank's part; the config that a run keeps is that of all ranks."""

from __future__ import annotations

import os
from dataclasses import replace

from dreamer_async.config import Config, ConfigError
from dreamer_async.parallel.world import World

MOST_THREADS = 8
"""Of one learner: more were never seen to pay."""
SEEDS = 100_003
"""Between the seeds of two ranks; every part of a rank adds less to its own."""


def share(config: Config, world: World) -> Config:
    """The settings of one rank; those of the run where there is but one.

    Environments, sequences and room in the replay are divided, and the seed is another one, so that
    no rank sees or draws what another does. Raises ConfigError where something does not divide.
    """
    if world.size == 1:
        return config
    check(config, world.size)
    count, env, ring = world.size, config.env, config.replay
    train = replace(
        config.train,
        batch_size=config.train.batch_size // count,
        threads=config.train.threads or _threads(world.local_size),
        seed=(config.train.seed + world.rank * SEEDS) % 2**31,
    )
    return replace(
        config,
        env=replace(env, num_envs=env.num_envs // count, batch_size=env.batch_size // count),
        replay=replace(ring, capacity=ring.capacity // count, capacity_gb=ring.capacity_gb / count),
        train=train,
    )


def with_room(config: Config, steps: int) -> Config:
    """The settings of a rank whose replay is to hold so many steps; 0 leaves it to the file."""
    if not steps:
        return config
    return replace(config, replay=replace(config.replay, capacity=steps, capacity_gb=0.0))


def on_device(config: Config, kind: str, world: World) -> Config:
    """The settings of a rank that takes a GPU of its own, if `kind` is cuda."""
    if world.size == 1 or kind != "cuda":
        return config
    return replace(config, train=replace(config.train, device=f"cuda:{world.local_rank}"))


def check(config: Config, count: int) -> None:
    """Raise ConfigError where so many ranks cannot share a run."""
    if count == 1:
        return
    for key, value in {
        "env.num_envs": config.env.num_envs,
        "env.batch_size": config.env.batch_size,
        "train.batch_size": config.train.batch_size,
        "replay.capacity": config.replay.capacity,
    }.items():
        if value % count:
            raise ConfigError(
                f"{key}={value} is of the whole run and cannot be divided among {count} devices; "
                f"{_near(value, count)} would work"
            )
    if config.train.updates or config.replay.source:
        raise ConfigError("learning from recorded steps runs on one device, not on several")
    if config.env.suite == "session":
        raise ConfigError("a session learns on one device: its steps come from one program")
    if config.train.device.startswith("cuda:"):
        raise ConfigError(
            f"train.device={config.train.device} is one device of a run on {count}; use cuda, of "
            "which each rank takes another one, and choose them by CUDA_VISIBLE_DEVICES"
        )


def _threads(ranks: int) -> int:
    """Threads of each learner on a machine with so many ranks; a single one chooses itself."""
    return 0 if ranks == 1 else max(1, min(MOST_THREADS, len(os.sched_getaffinity(0)) // ranks))


def _near(value: int, count: int) -> str:
    """The multiples next to a value."""
    below = value // count * count
    return f"{below} or {below + count}" if below else str(count)
