"""What ranks compute together: the mean gradient, the returns of all, equal weights to begin with,
and what each of them is able to do.

Everything goes through sums over all ranks in buffers of fixed place and size, and the host reads
none of them, so that a CUDA graph can record it. A rank's loss is the mean over its own sequences,
and all have as many: so the mean over ranks is the mean over the whole batch.

Legend: N ranks, M metrics, R imagined rows of one rank, H horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from weakref import WeakValueDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from dreamer_async.agent.normalize import Ranks
from dreamer_async.parallel.link import RankLost

Sum = Callable[[Tensor], object]
"""Replaces a tensor by its sum over all ranks, element by element, the same bits on each."""
SIGNS = ("gloo", "NCCL", "Connection closed", "Connection reset", "ProcessGroup")
"""Words of torch about a rank that does not answer."""


class Group:
    """Exchanges what one update needs of all ranks.

    >>> trainer = Trainer(spec, config, ranks=Group(rank, count, all_reduce()).ranks)
    """

    def __init__(self, rank: int, count: int, add_up: Sum) -> None:
        """This rank, of `count`; `add_up` is called equally often, in the same order, by each."""
        self.rank, self.count = rank, count
        self._add_up = add_up
        self._apart = False
        self._buffer: Tensor | None = None
        self._number = next(_numbers)
        _groups[self._number] = self

    @property
    def ranks(self) -> Ranks:
        """What a trainer is given."""
        return Ranks(self.gather, self.combine)

    def gather(self, values: Tensor) -> Tensor:
        """Values [R, H] of every rank, one behind the other: [N R, H]."""
        everybody = values.new_zeros(self.count, *values.shape)
        everybody[self.rank] = values
        sum_over_ranks(everybody, self._number)  # to zeros: no digit changes
        return everybody.flatten(0, 1)

    @torch.no_grad()
    def combine(
        self, grads: list[Tensor], metrics: dict[str, Tensor]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The mean gradient, and the metrics of all batches as one, by one sum over all ranks.

        The next call overwrites what this one returned.
        """
        sizes = [grad.numel() for grad in grads]
        flat, table = self._parts(sum(sizes), len(metrics), grads[0].device)
        parts = zip(flat.split(sizes), grads, strict=True)
        means = [part.view(grad.shape) for part, grad in parts]
        torch._foreach_copy_(means, grads)
        table.zero_()
        table[self.rank] = torch.stack([value.float() for value in metrics.values()])
        assert self._buffer is not None
        self.add_up(self._buffer)
        flat /= self.count
        return means, of_all(dict(zip(metrics, table.unbind(1), strict=True)))

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all ranks, or leave it as it is inside of `apart`."""
        if not self._apart:
            self._add_up(tensor)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Exchange nothing for a while: a rank that fails meanwhile keeps no other one waiting.

        Updates have the same shapes and other numbers.
        """
        self._apart = True
        try:
            yield
        finally:
            self._apart = False

    def able(self, able: bool, device: torch.device | str = "cpu") -> bool:
        """Whether all ranks are able to do something; waits for what each says of itself."""
        votes = torch.full((), float(able), device=device)
        with in_our_words():
            self._add_up(votes)
        return int(votes) == self.count

    def _parts(self, gradients: int, metrics: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The one buffer: room for all gradients in a row, and a table [N, M]."""
        if self._buffer is None:
            self._buffer = torch.zeros(gradients + self.count * metrics, device=device)
        flat, table = self._buffer.split([gradients, self.count * metrics])
        return flat, table.view(self.count, metrics)


@torch.library.custom_op("dreamer_async::sum_over_ranks", mutates_args=("tensor",))
def sum_over_ranks(tensor: Tensor, group: int) -> None:
    """`Group.add_up` for compiled regions, which call it as it is.

    A compiler that looked inside would build in the exchange, or that there is none.
    """
    _groups[group].add_up(tensor)


_numbers = count()
_groups: WeakValueDictionary[int, Group] = WeakValueDictionary()
"""Of this process; compiled regions know them by number."""


def of_all(metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """Metrics over all batches, from those of each rank's, {name: [N]}; equally many values each.

    What ends in /min, /max and /std is that of all values; anything else is a mean.
    """
    return {name: _one(name, values, metrics) for name, values in metrics.items()}


def _one(name: str, values: Tensor, metrics: dict[str, Tensor]) -> Tensor:
    stem, _, kind = name.rpartition("/")
    if kind == "min":
        return values.amin()
    if kind == "max":
        return values.amax()
    if kind == "std":
        means = metrics[f"{stem}/mean"]
        return (values.square().mean() + means.var(correction=0)).sqrt()
    return values.mean()


# -- torch.distributed ------------------------------------------------------------------------


def all_reduce(group: dist.ProcessGroup | None = None) -> Sum:
    """The sum by gloo or NCCL, which both give every rank the same bits."""
    return partial(dist.all_reduce, group=group)


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Let tensors, of the same shapes everywhere, become those of rank 0."""
    with torch.no_grad(), in_our_words():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


@contextmanager
def in_our_words() -> Iterator[None]:
    """Raise errors as `explained` has them."""
    try:
        yield
    except RuntimeError as error:
        raise explained(error) from error


def explained(error: Exception) -> Exception:
    """Say in our words that another rank does not answer; any other error as it is."""
    text = str(error)
    if isinstance(error, RankLost):
        return error
    if isinstance(error, RuntimeError) and any(sign in text for sign in SIGNS):
        said = text.splitlines()[0].rpartition("] ")[2].partition(". ")[0]
        return RankLost(f"another rank does not answer any more ({said[:200]})")
    return error
