"""`dreamer-async bench`: how fast each part of a run is here, alone and together.

    learner   one update        policy    one acting step    env   one agent step
    replay    one batch, one step                            pipeline  a run against its learner
    dashboard its start, a long history, a chart, following, and a trainer beside it (`pairs`)
    scaling   several ranks against one process with as many threads, or several GPUs against one

Everything is a median over several times, with the smallest and the largest.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamer_async.bench.timing import Timing
from dreamer_async.config import Config, TrainConfig, changed, resolve
from dreamer_async.machine import process

if TYPE_CHECKING:
    from dreamer_async.envs.spec import EnvSpec

PARTS = ("ceilings", "env", "replay", "policy", "learner", "pipeline")
"""In the order in which `all` measures them."""
ALONE = ("dashboard", "scaling")
"""Only measured when asked for: history takes a gigabyte of disk, ranks the whole machine."""


def measure(config: Config, part: str, seconds: float, pairs: int = 0) -> dict[str, Any]:
    """Measure one part, or `all`, for about `seconds` each; the result is JSON.

    `pairs` of turns of a trainer, with and without a dashboard, belong to the dashboard.
    """
    import torch

    from dreamer_async import envs
    from dreamer_async.machine.device import choose_device, choose_precision, cpu_threads

    spec = envs.spec_of(config.env)
    train = config.train
    device = choose_device(train.device)
    load = os.getloadavg()[0]  # of the last minute, before there is any of ours
    chosen = PARTS if part == "all" else (part,)
    results = [asdict(row) for name in chosen for row in _run(name, config, spec, seconds, pairs)]
    return {
        "task": f"{config.env.suite}/{config.env.task}",
        "size": config.size,
        "differs": differs(config),
        "sees": _sees(spec),
        "load": load,
        "device": _device_name(device),
        "precision": choose_precision(train.precision, device, native=train.wants_native),
        "threads": cpu_threads(config),
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor(),
        "torch": torch.__version__,
        "native": _library(chosen, device, train),
        "results": results,
    }


def _run(part: str, config: Config, spec: EnvSpec, seconds: float, pairs: int) -> list[Timing]:
    # Each part is imported alone: some need packages that others do not.
    match part:
        case "ceilings":
            from dreamer_async.bench.ceilings import ceilings

            return ceilings(config, seconds)
        case "env":
            from dreamer_async.bench.environment import environment

            return environment(config, seconds)
        case "replay":
            from dreamer_async.bench.memory import memory

            return memory(config, spec, seconds)
        case "policy":
            from dreamer_async.bench.policy import policy

            return policy(config, spec, seconds)
        case "learner":
            from dreamer_async.bench.learner import learner

            return learner(config, spec, seconds)
        case "pipeline":
            from dreamer_async.bench.pipeline import pipeline

            return pipeline(config, seconds)
        case "dashboard":
            from dreamer_async.bench.dashboard import dashboard

            return dashboard(config, seconds, pairs)
        case "scaling":
            from dreamer_async.bench.scaling import scaling

            return scaling(config, seconds)
        case _:
            raise AssertionError(part)


def differs(config: Config) -> list[str]:
    """Settings of the networks and losses that are not those of the size."""
    plain = resolve(config.env.suite, config.env.task, size=config.size)
    return [key for key in changed(plain, config) if key.startswith(("model.", "loss."))]


def _sees(spec: EnvSpec) -> str:
    """What there is to encode, as speeds measured elsewhere name it."""
    images = ["x".join(map(str, obs.shape)) for obs in spec.obs.values() if obs.is_image]
    return " and ".join(images) or "vectors"


def _library(parts: Sequence[str], device: Any, train: TrainConfig) -> str:
    """The library of native functions that parts computed with; none is built just to name it."""
    from dreamer_async.fast.native.load import load

    used = device.type == "cpu" and train.wants_native and {"policy", "learner"} & set(parts)
    return load().name if used else ""


def _device_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def processor() -> str:
    """The processor's name, with the instructions that decide how fast products are."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    facts = dict(line.split("\t: ", 1) for line in lines if "\t: " in line)
    facts = {name.strip(): text for name, text in facts.items()}
    flags = process.processor_flags()
    fast = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags]
    return f"{facts.get('model name', platform.machine())} ({fast[0] if fast else 'no AVX2'})"
