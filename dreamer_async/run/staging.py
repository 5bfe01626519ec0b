"""Batches on their way to the device, and what an update found on its way back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamer_async.agent.batch import Batch
from dreamer_async.fast.cuda.capture import Update
from dreamer_async.replay.layout import RingSpec, SampleBuffers

_STEP_FIELDS = frozenset({"action", "reward", "is_first", "is_last", "is_terminal"})


class Results(NamedTuple):
    """What of an update the host needs, in its memory."""

    finite: bool
    deter: NDArray[np.float16]
    """[B, T, D]."""
    stoch: NDArray[np.uint8]
    """[B, T, S] classes."""


class Staging:
    """One preallocated batch: numpy arrays for the replay, tensors for the update.

    With a GPU the host side is pinned and copied on a stream of its own, both ways, so that the
    copies run beside the updates before and after; two stagings take turns.
    """

    def __init__(self, spec: RingSpec, batch_size: int, device: torch.device) -> None:
        self.buffers = SampleBuffers.allocate(spec, batch_size)
        self._copies: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.buffers = _pinned(self.buffers)
            self._copies = torch.cuda.Stream(device)
        fields = {name: torch.from_numpy(array) for name, array in self.buffers.fields.items()}
        obs = {name: fields.pop(name) for name in list(fields) if name not in _STEP_FIELDS}
        self._host = Batch(
            obs=obs,
            deter=torch.from_numpy(self.buffers.deter),
            stoch=torch.from_numpy(self.buffers.stoch),
            **fields,
        )
        self._batch = self._host.map(lambda tensor: tensor.to(device))
        self._update: Update | None = None
        self._results: list[Tensor] = []
        self._arrived: torch.cuda.Event | None = None

    def batch(self) -> Batch:
        """Return the sampled batch on the device; the last one returned must have been used."""
        if self._copies is not None:
            with torch.cuda.stream(self._copies):
                for there, here in zip(self._batch.tensors(), self._host.tensors(), strict=True):
                    there.copy_(here, non_blocking=True)
            torch.cuda.current_stream().wait_stream(self._copies)
        return self._batch

    def take_back(self, update: Update) -> None:
        """Let the results of an update come to the host as soon as it is done.

        Asking for them later on the learner's stream would wait for the next update, too.
        """
        self._update = update  # its tensors must not be used again before they were copied
        tensors = [update.finite, update.deter, update.stoch]
        if self._copies is None:
            self._results = tensors
            return
        if not self._results:
            self._results = [torch.empty_like(x, device="cpu").pin_memory() for x in tensors]
        self._copies.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._copies):
            for here, there in zip(self._results, tensors, strict=True):
                here.copy_(there, non_blocking=True)
            self._arrived = torch.cuda.Event(blocking=True)  # waiting for it takes no processor
            self._arrived.record()

    def results(self) -> Results:
        """Wait for the results of the update that was last taken back; they stay until the next."""
        assert self._update is not None, "no update was taken back"
        if self._arrived is not None:
            self._arrived.synchronize()
        self._update = None
        finite, deter, stoch = self._results
        return Results(bool(finite), deter.numpy(), stoch.numpy())


def _pinned(buffers: SampleBuffers) -> SampleBuffers:
    pin = lambda array: torch.from_numpy(array).pin_memory().numpy()  # noqa: E731
    buffers.fields = {name: pin(array) for name, array in buffers.fields.items()}
    buffers.deter, buffers.stoch = pin(buffers.deter), pin(buffers.stoch)
    return buffers
