"""Pools that draw in software take turns: one thread of this process draws at a time.

Mesa's renderer in software (llvmpipe) looks through the scenes of all contexts of a process for
those that still read a texture, while another thread frees its own (seen in Mesa 22.3.6: a pool of
two threads ended its process by a segmentation fault after minutes, one of eight within two). One
thread draws nearly as fast, because the renderer has threads of its own: 56 images of 64x64 a
second where eight threads make 65, on two cores.

A pool steps whenever it likes between `send` and `recv`. So actions wait here until `recv`, which
lets the pool make one batch of rows while all other pools wait.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs.raw_pool import RawPool, RawRows

DRAWING = threading.Lock()
"""Held by the thread of this process that draws in software."""


class TurnPool(RawPool):
    """A pool of one thread that steps, and so draws, inside `recv` alone."""

    steps_ahead = False

    def __init__(self, pool: Any, batch_size: int) -> None:
        super().__init__(pool)
        self._batch_size = batch_size
        self._asked: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        """Environments with their actions, or None for a reset."""

    def async_reset(self) -> None:
        for env in self.pool.all_env_ids.tolist():
            self._asked.put((env, None))

    def send(self, action: NDArray[Any], env_id: NDArray[np.int32]) -> None:
        for env, each in zip(env_id.tolist(), action, strict=True):
            self._asked.put((env, each))

    def recv(self) -> RawRows:
        asked = dict(self._asked.get() for _ in range(self._batch_size))  # each of them once
        resets = [env for env, action in asked.items() if action is None]
        steps = {env: action for env, action in asked.items() if action is not None}
        with DRAWING:
            if resets:
                self.pool._reset(np.array(resets, np.int32))
            if steps:
                super().send(np.stack([*steps.values()]), np.array([*steps], np.int32))
            return super().recv()

    def free(self) -> None:
        with DRAWING:
            super().free()
