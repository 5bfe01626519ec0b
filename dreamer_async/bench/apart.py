"""Measuring in a process of its own: another thread count, memory of its own, nothing warm."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from dreamer_async.config import Config, to_dict
from dreamer_async.envs.children import bound
from dreamer_async.machine.interpreter import command, environment


class BenchError(RuntimeError):
    """A measured process failed; the message has its last words."""


def measure_apart(
    config: Config, part: str, seconds: float, patience: float | None = None
) -> dict[str, Any]:
    """First result of `results_apart`."""
    return results_apart(config, part, seconds, patience)[0]


def results_apart(
    config: Config, part: str, seconds: float, patience: float | None = None
) -> list[dict[str, Any]]:
    """Results of `bench.measure`; raises BenchError if it fails or takes too long."""
    given = json.dumps({"config": to_dict(config), "part": part, "seconds": seconds})
    words = bound(command("dreamer_async.bench"))
    try:
        done = subprocess.run(
            words,
            input=given,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=patience,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{part} took more than {patience} s") from None
    if done.returncode:
        raise BenchError(f"{part} failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)["results"]
