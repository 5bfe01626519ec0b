"""Runs on several devices: what is refused before they start, and the ranks that follow."""

from __future__ import annotations

from dreamer_async.config import Config, ConfigError
from dreamer_async.parallel.shares import check
from dreamer_async.parallel.world import World


def check_devices(config: Config, kind: str, devices: int) -> None:
    """Raise ConfigError where a run cannot be shared among so many devices of a kind."""
    world = World.here()
    if devices > 1 and world.size > 1:
        raise ConfigError(
            f"torchrun has started {world.size} ranks already: leave out --devices, or torchrun"
        )
    here = devices if world.size == 1 else world.local_size
    check(config, max(devices, world.size))
    if kind != "cuda" or here == 1:
        return
    import torch

    if (there := torch.cuda.device_count()) < here:
        raise ConfigError(
            f"{here} ranks want a GPU each, and there {'is' if there == 1 else 'are'} {there}; "
            f"try --devices {there}, or --device cpu"
        )


def follow_run() -> int:
    """Be one of the ranks that do what rank 0 says, whatever run it makes."""
    from dreamer_async.run.pipeline import follow_main

    return follow_main()
