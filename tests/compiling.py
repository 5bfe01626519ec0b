"""Kernels compiled for cards that are not here, in a process where nothing interprets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SHARED = {80: 166_912, 90: 232_448, 120: 101_376}
"""Bytes of shared memory that a program may have, by compute capability."""


def compiled_apart(script: str, capability: int, *words: str) -> dict[str, list[int]]:
    """What each kernel takes, by name: the lines that a script of this folder prints."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name(script), str(capability), *words],
        env={**os.environ, "TRITON_INTERPRET": "0"},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: [*map(int, taken)] for name, *taken in map(str.split, done.stdout.splitlines())}
