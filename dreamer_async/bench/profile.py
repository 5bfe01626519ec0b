"""Where the time of an update goes, by stage and by operation, and a trace of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from dreamer_async.agent.trainer import STAGE
from dreamer_async.bench.learner import ready
from dreamer_async.config import Config
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.machine.device import choose_device, wait_for

UPDATES = 3
"""Updates that are recorded."""
OPERATIONS = 15
"""Operations that are listed, the costliest first."""


def profile(config: Config, spec: EnvSpec, trace: Path) -> dict[str, Any]:
    """Record some updates into `trace` (for chrome://tracing or Perfetto).

    Returns {"trace", "stages", "operations"}: seconds per update by name. The seconds of a stage
    are the processor's, or the GPU's where there is one.
    """
    device = choose_device(config.train.device)
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    recording = torch.profiler.profile(activities=activities)
    with ready(config, spec) as (subject, _), recording as recorded:
        for _ in range(UPDATES):
            subject.step()
        wait_for(device)
    recorded.export_chrome_trace(str(trace))
    rows = recorded.key_averages()
    gpu = device.type == "cuda"
    whole = {row.key: row.device_time_total if gpu else row.cpu_time_total for row in rows}
    own = {row.key: row.self_device_time_total if gpu else row.self_cpu_time_total for row in rows}
    stages = {key.removeprefix(STAGE): t for key, t in whole.items() if key.startswith(STAGE)}
    operations = {key: t for key, t in own.items() if not key.startswith(STAGE)}
    return {
        "trace": str(trace),
        "stages": _per_update(stages),
        "operations": dict(list(_per_update(operations).items())[:OPERATIONS]),
    }


def _per_update(microseconds: dict[str, float]) -> dict[str, float]:
    """Seconds per update, largest first."""
    ordered = sorted(microseconds.items(), key=lambda item: -item[1])
    return {name: spent / 1e6 / UPDATES for name, spent in ordered}
