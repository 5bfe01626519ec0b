"""How long one update takes: sampling, copies, losses, gradients, optimiser, write-back."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dreamer_async.bench.memory import filled_replay
from dreamer_async.bench.on_device import updates_alone
from dreamer_async.bench.timing import Timing, timed, timing
from dreamer_async.config import Config
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.fast.place import take_place
from dreamer_async.machine.device import (
    choose_device,
    cpu_threads,
    use_cpu_threads,
    use_device,
    wait_for,
)
from dreamer_async.run.learner import Learner


def learner(config: Config, spec: EnvSpec, seconds: float) -> list[Timing]:
    """Time whole updates on made-up experience, and what comes before the first."""
    device = choose_device(config.train.device)
    gpu = device.type == "cuda"
    with ready(config, spec) as (subject, first):
        # On a GPU as in training: a step waits for the results of the update before.
        times = timed(subject.step, seconds)
        shares = subject.stages.totals()
        alone = [updates_alone(subject)] if gpu else []
    whole = sum(shares.values())
    detail = {f"share_{name}": spent / whole for name, spent in shares.items()}
    detail["peak_gb"] = peak_memory(device) / 1e9
    if gpu:
        detail["held_gb"] = torch.cuda.memory_reserved(device) / 1e9
    batch = f"{config.train.batch_size}x{config.train.batch_length}"
    how = how_updates_are_made(subject)
    return [
        timing("learner", f"update {batch}, {how}", "s/update", times, **detail),
        *alone,
        timing("learner", f"everything up to the first update, {how}", "s", [first]),
    ]


def how_updates_are_made(subject: Learner) -> str:
    """In a word."""
    if subject.accelerated is not None:
        return "captured" if subject.accelerated.captured else "compiled"
    return "native" if subject.place.library else "eager"


@contextmanager
def ready(config: Config, spec: EnvSpec) -> Iterator[tuple[Learner, float]]:
    """A learner on made-up experience that has done one update, and the seconds it took."""
    use_cpu_threads(cpu_threads(config))
    place = take_place(config.train)
    use_device(place.device)
    with filled_replay(config, spec) as replay:
        began = time.perf_counter()
        subject = Learner(spec, config, replay, place)
        if subject.compiles and (problem := subject.warm_up()):
            print(problem, file=sys.stderr)
        subject.step()
        wait_for(place.device)
        yield subject, time.perf_counter() - began


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: on the GPU by tensors, on the CPU by the whole process.

    What a GPU has to have room for is what the allocator keeps reserved, `held_gb`.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
