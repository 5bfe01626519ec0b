"""Whether the disk has room for checkpoints, asked before a run begins.

Counting parameters takes torch, which takes seconds to import: it is left out where there is room
in any case.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from dreamer_async.config import Config
from dreamer_async.store.run_dir import bytes_of
from dreamer_async.store.sizes import in_words

PLENTY = 64e9
"""Free bytes with which nothing needs to be counted: size400m takes 6.5 GB a time."""
FLOAT_BYTES = 4


class CheckpointSpaceError(OSError):
    """Not one checkpoint would fit the disk."""

    def __str__(self) -> str:
        """Say it without the error number that OSError would add."""
        return str(self.strerror)


def check_room(directory: Path, size: float, count: int, replay: float = 0.0) -> str:
    """Raise CheckpointSpaceError if there is no room for one checkpoint of `size` bytes.

    `replay` bytes are still to be taken on the same disk. Returns a warning if fewer than `count`
    fit, which are kept or written at one time; else nothing.
    """
    free = shutil.disk_usage(directory).free - replay
    behind = " beside the replay" if replay else ""
    left = f"{in_words(max(0.0, free))} are free{behind}"
    needs = f"a checkpoint takes {in_words(size)} at {directory}, where {left}"
    advice = "free some, or take another --runs-dir or a smaller --size"
    if free < size:
        raise CheckpointSpaceError(errno.ENOSPC, f"{needs}: nothing could be saved; {advice}")
    if free < count * size:
        return f"{needs}: too little for the {count} that a run sometimes has; {advice}"
    return ""


def room_for_new(config: Config, directory: Path, replay: float) -> str:
    """`check_room` for a run that is to be made below an existing directory."""
    count = config.train.keep_checkpoints + 1
    return check_room(directory, checkpoint_bytes(config), count, replay)


def room_to_resume(config: Config, checkpoints: Path) -> str:
    """`check_room` for a run that goes on beside the checkpoints that it has."""
    if shutil.disk_usage(checkpoints).free >= PLENTY:
        return ""
    sizes = [_size(path) for path in checkpoints.glob("step-*") if path.is_dir()]
    more = config.train.keep_checkpoints + 1 - len(sizes)
    size = max(sizes, default=0) or checkpoint_bytes(config)
    return check_room(checkpoints, size, max(1, more))


def checkpoint_bytes(config: Config) -> int:
    """Parameters, two moments of each, and the slow critic."""
    import torch

    from dreamer_async import envs
    from dreamer_async.agent.actor_critic import Agent

    spec = envs.spec_of(config.env)
    with torch.device("meta"):
        agent = Agent(spec, config.model, config.loss)
    return FLOAT_BYTES * sum(p.numel() * (3 if p.requires_grad else 1) for p in agent.parameters())


def _size(path: Path) -> int:
    """Bytes that a checkpoint takes on the disk: a file of holes, made elsewhere, takes none."""
    return sum(bytes_of(file) for file in path.iterdir())
