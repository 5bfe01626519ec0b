"""The numbers of a run as TensorBoard event files, under the names of the event stream.

Needs the extra `tensorboard`. The files lie in `tensorboard/` of the run; the step of every
number is the agent steps of the run, and `progress/frames` are its environment frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dreamer_async.store.events import Episode, Evaluated, Event, Gauges, Metrics, RunStarted

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FLUSH_SECONDS = 30


class TensorBoard:
    """Writes metrics, gauges, episodes and evaluations; other events are not numbers."""

    def __init__(self, directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._frames_per_step = 1
        self._open = partial(SummaryWriter, str(directory), flush_secs=FLUSH_SECONDS)
        self._writer: SummaryWriter | None = None

    def show(self, event: Event) -> None:
        """Write the numbers of one event."""
        match event:
            case RunStarted():
                self._frames_per_step = event.frames_per_step
            case Metrics():
                self._write(event.values, event.env_steps)
            case Gauges():
                frames = float(event.env_steps * self._frames_per_step)
                self._write({**event.values, "progress/frames": frames}, event.env_steps)
            case Episode():
                values = {"episode/score": event.score, "episode/length": float(event.length)}
                self._write(values, event.env_steps)
            case Evaluated() if event.scores:
                mean = sum(event.scores) / len(event.scores)
                self._write({"evaluation/mean": mean}, event.env_steps)
            case _:
                pass

    def close(self) -> None:
        """Write what is left and close the file; a disk that refuses it has been reported."""
        if self._writer is not None:
            with suppress(Exception):
                self._writer.close()

    def _write(self, values: Mapping[str, float | None], step: int) -> None:
        """Write, into a file that is made now: whoever listens hears of a disk that refuses."""
        if self._writer is None:
            self._writer = self._open()
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
