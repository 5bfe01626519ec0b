"""Weights on their way from the learner to the policy.

One buffer and one lock: the learner copies in after an update, the policy copies out before
acting when the version changed. Neither waits for an update or for a policy step, only for
the other's copy. On a GPU the copies are ordered by events across the two streams.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

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
            self._copy(self._buffer, weights)
            self.version = version

    def fetch(self, into: Mapping[str, Tensor]) -> int:
        """Copy the weights out and return their version; called by the policy."""
        with self._lock:
            self._copy(into, self._buffer)
            return self.version

    @torch.no_grad()
    def _copy(self, target: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
        if self._copied is not None:
            self._copied.wait()
        torch._foreach_copy_(list(target.values()), [source[name] for name in target])
        if next(iter(target.values())).is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()
