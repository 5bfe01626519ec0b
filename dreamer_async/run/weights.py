"""Weights on their way from the learner to the policy.

The learner copies in after an update, the policy copies out before it acts. On a CPU one slot is
enough: a lock orders the copies, and nobody waits for more than the other's copy. On a GPU an
update is enqueued long before it is done, and whoever read its weights would wait for all of it. So
there the learner writes a slot that nobody needs, and the policy takes the newest that is complete,
which is at most a few updates old:

    slot   1 complete, older     <- the learner writes here next
           2 complete, newest    <- the policy reads here
           3 behind an update in flight
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

SLOTS = 3
"""Enough that reading, writing and waiting for an update need not share one."""

Load = Callable[[Mapping[str, Tensor]], object]


class Mark(Protocol):
    """A place in the work of a device, like a CUDA event that was recorded."""

    def query(self) -> bool:
        """Whether everything before it is done."""
        ...

    def wait(self) -> None:
        """Let what the calling thread enqueues from now on wait for it."""
        ...


class PolicyWeights:
    """The newest weights that the policy may use, with the update they came from.

    With one slot readers wait for the newest weights, with `SLOTS` they take what is complete.
    Weights are kept in `types`, where these say something: those that readers compute in.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        slots: int = 1,
        types: Mapping[str, torch.dtype] | None = None,
        mark: Callable[[], Mark] | None = None,
    ) -> None:
        on_gpu = next(iter(weights.values())).is_cuda
        self._mark = mark or (_event if on_gpu else _Done)
        kept = {name: (types or {}).get(name, tensor.dtype) for name, tensor in weights.items()}
        self._groups = [[n for n in kept if kept[n] == dtype] for dtype in set(kept.values())]
        """Names by type: one call copies tensors of one type fast."""
        self._spare = [
            _Slot({n: torch.empty_like(x, dtype=kept[n]) for n, x in weights.items()})
            for _ in range(slots)
        ]
        self._slots: list[_Slot] = []
        """Those that hold something, in the order in which they were written."""
        self._lock = threading.Lock()
        self.version = -1
        """The update that was published last; on a GPU it may not be done."""

    def publish(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Copy the weights in; called by the learner."""
        with self._lock:
            slot = self._writable()
            for mark in slot.reads:
                mark.wait()
            with torch.no_grad():
                for names in self._groups:
                    own = [slot.weights[name] for name in names]
                    torch._foreach_copy_(own, [weights[name] for name in names])
            slot.version, slot.written, slot.reads = version, self._mark(), []
            self._slots.append(slot)
            self.version = version

    def fetch(self, load: Load, have: int | None = None) -> int:
        """Let `load` copy the weights out and return their version; called by the policy.

        Nothing is loaded if they are the version that the caller already has.
        """
        with self._lock:
            slot = self._readable()
            if slot.version != have:
                slot.written.wait()
                load(slot.weights)
                slot.reads = [mark for mark in slot.reads if not mark.query()] + [self._mark()]
            return slot.version

    def _readable(self) -> _Slot:
        """The newest that is complete; else the one that will be first."""
        assert self._slots, "nothing was published"
        complete = (slot for slot in reversed(self._slots) if slot.written.query())
        return next(complete, self._slots[0])

    def _writable(self) -> _Slot:
        """Take away the oldest that is neither needed nor read, else what no reader has seen.

        That is the newest in flight: older ones are complete sooner. Where all are being read, the
        learner has to wait for a copy.
        """
        if self._spare:
            return self._spare.pop()
        needed = self._readable()
        place = self._slots.index(needed)
        older, newer = self._slots[:place], self._slots[place + 1 :]
        free = [slot for slot in older if not slot.in_use()]
        slot = next(iter(free or newer[-1:] or older or [needed]))
        self._slots.remove(slot)
        return slot


class _Slot:
    """One copy of the weights, who wrote it and who reads it."""

    version: int
    written: Mark

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights
        self.reads: list[Mark] = []

    def in_use(self) -> bool:
        return not all(mark.query() for mark in self.reads)


class _Done:
    """The mark of a device that is never behind."""

    def query(self) -> bool:
        return True

    def wait(self) -> None:
        pass


def _event() -> Mark:
    event = torch.cuda.Event()
    event.record()
    return event
