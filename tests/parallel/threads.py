"""Ranks as threads of one process, whose sums gloo makes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from dreamer_async.parallel.group import Group, Sum

T = TypeVar("T")


def on_ranks(count: int, work: Callable[[Group], T]) -> list[T]:
    """Let each of so many ranks do some work; what they return, or the first error."""
    store = dist.HashStore()
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def rank(number: int) -> None:
        torch.set_num_threads(1)
        try:
            results[number] = work(Group(number, count, gloo(store, number, count)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(count)]


def gloo(store: dist.Store, rank: int, count: int) -> Sum:
    """The sum over the threads that share a store."""
    group = dist.ProcessGroupGloo(store, rank, count, timedelta(seconds=60))
    return lambda tensor: group.allreduce([tensor]).wait()  # type: ignore[attr-defined]
