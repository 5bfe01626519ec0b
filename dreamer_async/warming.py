"""Compiling beside the training, so that the first update need not wait for it.

The compiler runs in a process of its own and leaves its kernels in the cache on disk. Until then
updates are eager; afterwards the trainer compiles too, which only reads the cache. Compiling in
another thread of the trainer would hold its interpreter for most of the time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import envs
from dreamer_async import process
from dreamer_async.agent.update import Trainer
from dreamer_async.config import Config, from_dict, to_dict
from dreamer_async.device import cpu_threads, use_cpu_threads
from dreamer_async.learner import Staging, compile_for
from dreamer_async.place import take_place
from dreamer_async.replay_setup import ring_spec

NICENESS = 10
"""The updates come first where cores are few."""
COMMAND = (sys.executable, "-m", "dreamer_async.warming")


async def warm(config: Config) -> str:
    """Fill the cache for a config; returns why that failed, or nothing. Cancelling ends it."""
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(*COMMAND, stdin=pipe, stdout=null, stderr=pipe)
    try:
        _, words = await child.communicate(json.dumps(to_dict(config)).encode())
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode == 0:
        return ""
    lines = words.decode(errors="replace").strip().splitlines()
    return f"the compiler's process ended with {child.returncode}: {(lines or ['no word'])[-1]}"


def compile_once(trainer: Trainer, config: Config) -> None:
    """Compile and run one update on zeros, with the shapes and types of the training."""
    ring = ring_spec(config, trainer.spec, 0)
    compile_for(trainer, Staging(ring, config.train.batch_size, trainer.device).batch())


def main(data: Any) -> None:
    """Be the process that compiles; what it must know before torch loads, it inherits."""
    process.die_with_parent()
    process.prepare()
    os.nice(NICENESS)
    config = from_dict(data)
    use_cpu_threads(cpu_threads(config))  # the kernels depend on it
    place = take_place(config.train)
    spec = envs.spec(config.env.suite, config.env.task)
    compile_once(Trainer(spec, config, place.device, place.precision), config)


if __name__ == "__main__":
    main(json.load(sys.stdin))
