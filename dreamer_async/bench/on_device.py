"""What a GPU does in an update: its own time, how many kernels, and how busy they keep it."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from dreamer_async.bench.timing import Timing, timing
from dreamer_async.machine.device import wait_for
from dreamer_async.machine.device_errors import raise_if_fatal
from dreamer_async.run.learner import Learner

ROUNDS = 30
"""Updates that are timed, one behind the other."""
PROFILED = 3


class Span(NamedTuple):
    """One kernel or copy, in microseconds."""

    start: float
    end: float


def updates_alone(subject: Learner) -> Timing:
    """Time updates by events on the GPU, without sampling, transfers and results."""
    batch = subject.last_batch()
    assert batch is not None, "the learner has not done an update"
    noise = subject.trainer.draw_noise(torch.Generator().manual_seed(0))
    stream = torch.cuda.current_stream(subject.trainer.device)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(ROUNDS + 1)]
    events[0].record(stream)
    for event in events[1:]:
        subject.update(batch, noise)
        event.record(stream)
    events[-1].synchronize()
    times = [a.elapsed_time(b) / 1e3 for a, b in pairwise(events)]
    detail: dict[str, float] = {}
    try:
        detail = summary(_profiled(subject))
    except RuntimeError as error:  # a machine may keep its counters to itself
        raise_if_fatal(error)
    return timing("learner", "update alone, on the device", "s/update", times[1:], **detail)


def _profiled(subject: Learner) -> list[Span]:
    """What the GPU did during some updates."""
    batch = subject.last_batch()
    assert batch is not None
    noise = subject.trainer.draw_noise(torch.Generator().manual_seed(0))
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(PROFILED):
            subject.update(batch, noise)
        wait_for(subject.trainer.device)
    return [
        Span(event.time_range.start, event.time_range.end)
        for event in recorded.events() or []
        if event.device_type == DeviceType.CUDA
    ]


def summary(spans: list[Span]) -> dict[str, float]:
    """Kernels per update, and the share of the time in which at least one was running."""
    if not spans:
        return {}
    spans = sorted(spans)
    busy, until = 0.0, spans[0].start
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    whole = until - spans[0].start
    return {"kernels": len(spans) / PROFILED, "share_busy": busy / whole if whole else 0.0}
