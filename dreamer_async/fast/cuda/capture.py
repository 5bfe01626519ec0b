"""A whole update, recorded once and replayed: one launch instead of thousands.

On a GPU an update is thousands of small kernels, and starting them one by one from Python takes
many times longer than running them. What is recorded is a fixed list of operations on fixed
buffers: it reads its batch and noise from buffers of its own and changes the state of the
trainer in place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from dreamer_async.agent.batch import Batch, Noise
from dreamer_async.agent.trainer import Update

T = TypeVar("T")

WARM_UPS = 2
"""Runs before the recording: libraries choose their kernels and allocate in the first."""

Relaunch = Callable[[], None]
Recorder = Callable[[Callable[[], None]], Relaunch]
"""Runs some work at least once and returns what runs it again on the same buffers."""

RECORDING = threading.RLock()
"""Whoever records, or waits for a whole device as compilers do, holds this: a device must not be
waited for while one of its streams is recorded, by any thread."""


def alone(work: Callable[[], T]) -> T:
    """Do something during which nobody else may record."""
    with RECORDING:
        return work()


def cuda_graph(work: Callable[[], None], device: torch.device | None = None) -> Relaunch:
    """Record work on a CUDA device as a graph; on the current one if its device is not given.

    Only this thread is kept from calls that would break a recording: others may go on using
    the device. Raises RuntimeError if the work waits for the device, and what the work raises.
    """
    with RECORDING, torch.cuda.device(device):
        return _record(work)


def _record(work: Callable[[], None]) -> Relaunch:
    current = torch.cuda.current_stream()
    stream = torch.cuda.Stream(priority=current.priority)  # which the recorded kernels keep
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            work()
    graph = torch.cuda.CUDAGraph()
    problem: Exception | None = None
    try:
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            try:
                work()
            except Exception as error:
                problem = error
                raise
    except RuntimeError as error:
        torch.cuda.set_stream(current)  # where ending a recording fails, the old stream stays away
        raise (problem or error) from None  # the first problem is the cause of others
    current.wait_stream(stream)
    return graph.replay


class CapturedUpdate:
    """Calls like the update that it was made from, for batches of one shape and type."""

    def __init__(
        self,
        update: Callable[[Batch, Noise], Update],
        batch: Batch,
        noise: Noise,
        record: Recorder = cuda_graph,
    ) -> None:
        """Record; this runs the update on the given batch a few times."""
        self._batch, self._noise = batch.map(torch.clone), noise.map(torch.clone)
        self._names: list[str] = []
        self._results: list[Tensor] = []

        def work() -> None:
            metrics, *rest = update(self._batch, self._noise)
            self._names = list(metrics)
            self._results = [torch.stack([m.float() for m in metrics.values()]), *rest]

        self._relaunch = record(work)

    def __call__(self, batch: Batch, noise: Noise) -> Update:
        """Update; the results are copies, as the next call writes into the same buffers."""
        inputs = zip(
            [*self._batch.tensors(), *self._noise], [*batch.tensors(), *noise], strict=True
        )
        for own, given in inputs:
            assert own.shape == given.shape and own.dtype == given.dtype, (own.shape, given.shape)
            own.copy_(given, non_blocking=True)
        self._relaunch()
        metrics, deter, stoch, finite = (result.clone() for result in self._results)
        return Update(dict(zip(self._names, metrics.unbind(), strict=True)), deter, stoch, finite)
