"""Record one update on the card; print nodes and memory as JSON: SUITE TASK SIZE [SETTING ...].

In a thread of its own, as in a run: the stream and the mode of a recording belong to threads.
"""

from __future__ import annotations

import ctypes
import json
import sys
from concurrent.futures import ThreadPoolExecutor

from dreamer_async.machine import process

process.before_torch()
process.prepare()

import torch  # noqa: E402

from dreamer_async import envs  # noqa: E402
from dreamer_async.agent import Batch, Trainer  # noqa: E402
from dreamer_async.config import Config, resolve  # noqa: E402
from dreamer_async.envs.spec import EnvSpec  # noqa: E402
from dreamer_async.fast.cuda.backend import CUDA  # noqa: E402
from dreamer_async.fast.cuda.updates import Updates  # noqa: E402
from dreamer_async.machine.device import set_arithmetic, use_own_stream  # noqa: E402
from dreamer_async.replay.setup import ring_spec  # noqa: E402
from dreamer_async.run.staging import Staging  # noqa: E402


def record(config: Config, spec: EnvSpec) -> dict[str, float]:
    """Do what a learner does before its first update; memory in GB of 10^9 bytes."""
    device = torch.device("cuda", 0)
    use_own_stream(device)
    set_arithmetic(device, "bfloat16")
    trainer = Trainer(spec, config, device, "bfloat16", CUDA)
    updates = Updates(trainer)
    batch: Batch = Staging(ring_spec(config, spec, 0), config.train.batch_size, device).batch()
    noise = trainer.draw_noise(torch.Generator().manual_seed(0))
    problems = updates.warm_up(batch, noise)
    assert updates.captured and not problems, problems
    updates(batch, noise)
    runtime = ctypes.CDLL("libcudart.so.13")
    runtime.fake_peak.restype = ctypes.c_size_t
    return {
        "parameters": trainer.optim.size,
        "tensors_gb": torch.cuda.memory_allocated(device) / 1e9,
        "reserved_gb": torch.cuda.memory_reserved(device) / 1e9,
        "peak_gb": torch.cuda.max_memory_allocated(device) / 1e9,
        "taken_gb": runtime.fake_peak(0) / 1e9,
    }


def main() -> None:
    suite, task, size, *settings = sys.argv[1:]
    config, spec = resolve(suite, task, size=size, overrides=settings), envs.spec(suite, task)
    with ThreadPoolExecutor(1, "learner") as pool:
        print(json.dumps(pool.submit(record, config, spec).result()))


main()
