"""Weights on their way from the learner to the policy.

One buffer and one lock: the learner copies in after an update, the policy copies out before
acting when the version changed. Neither waits for an update or for a policy step, only for
the other's copy. On a GPU the copies are ordered by events across the two streams.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class PublishedWeights:
    """The newest weights that the policy may use, with the update they came from."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._buffer = {name: tensor.detach().clone() for name, tensor in weights.items()}
        self._lock = threading.Lock()
        self._copied: torch.cuda.Event | None = None
        self.version = -1

    def publish(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Copy the weights in; called by the learner."""
        with self._lock:
            self._after_last_copy()
            with torch.no_grad():
                torch._foreach_copy_(
                    list(self._buffer.values()), [weights[name] for name in self._buffer]
                )
            self._mark_copied()
            self.version = version

    def fetch(self, load: Callable[[Mapping[str, Tensor]], None]) -> int:
        """Let `load` copy the weights out and return their version; called by the policy."""
        with self._lock:
            self._after_last_copy()
            load(self._buffer)
            self._mark_copied()
            return self.version

    def _after_last_copy(self) -> None:
        if self._copied is not None:
            self._copied.wait()

    def _mark_copied(self) -> None:
        if next(iter(self._buffer.values())).is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()
