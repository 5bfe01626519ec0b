"""Memory that the trainer shares with its worker processes: one row per environment.

The file behind it has no name, so that nothing is left behind however its users die, and its
pages are allocated at once, so that full memory is an error here and not a SIGBUS later. It is not
`multiprocessing.shared_memory`: there, on Python 3.11, the first process to exit removes the
segment of all.

Legend: E environments.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs.spec import EnvSpec

ALIGNMENT = 64


class Block:
    """Columns of every field of a row, [E, *] each, in shared memory."""

    def __init__(self, spec: EnvSpec, num_envs: int, fd: int) -> None:
        """Map the file `fd` (empty, or the block of another process), which becomes ours."""
        self.fd = fd
        layout = _layout(spec)
        sizes = [_aligned(num_envs * _bytes(shape, dtype)) for shape, dtype in layout.values()]
        size = max(mmap.PAGESIZE, sum(sizes))
        if os.fstat(fd).st_size < size:
            os.posix_fallocate(fd, 0, size)
        memory = mmap.mmap(fd, size)
        self._columns: dict[str, NDArray[Any]] = {}
        offset = 0
        for (name, (shape, dtype)), step in zip(layout.items(), sizes, strict=True):
            count = num_envs * math.prod(shape)
            column = np.frombuffer(memory, dtype, count, offset)
            self._columns[name] = column.reshape(num_envs, *shape)
            offset += step
        self.obs = {name: self._columns[f"obs/{name}"] for name in spec.obs}

    def __getitem__(self, name: str) -> NDArray[Any]:
        """One of action, reward, terminated and truncated."""
        return self._columns[name]

    def close(self) -> None:
        """Close the file; the memory goes when the last column does."""
        os.close(self.fd)
        self._columns, self.obs = {}, {}


def anonymous_file() -> int:
    """Open an empty file without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("dreamer-async-envs")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _layout(spec: EnvSpec) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each field of one row."""
    obs = {f"obs/{name}": (entry.shape, entry.dtype) for name, entry in spec.obs.items()}
    log = {f"log/{name}": ((), "float64") for name in spec.log}
    return (
        obs
        | log
        | {
            "action": (spec.action.shape, spec.action.dtype),
            "reward": ((), "float32"),
            "terminated": ((), "bool"),
            "truncated": ((), "bool"),
        }
    )


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
