"""Experiment trackers over the event stream: TensorBoard, Weights & Biases, Trackio, MLflow.

All of them get the same: every number of the stream under its own name at the agent steps of the
run, `progress/frames` beside them, and now and then the newest film of the world model as a GIF. A
tracker runs in a thread of its own behind a bounded queue: one that is slow loses events, which are
counted, and one that hangs or fails is said so once; no run waits for it.

`TRACKERS` is the list. To add one, write a `Backend`.
"""

from __future__ import annotations

import importlib
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from dreamer_async.config import Config, to_dict
from dreamer_async.run import aio
from dreamer_async.run.films.film_gif import FilmGif
from dreamer_async.store.events import Episode, Evaluated, Event, Gauges, Metrics, RunStarted
from dreamer_async.store.run_dir import RunDir

FLUSH_SECONDS = 30
WAITING = 10_000
"""Most events that wait for a tracker; the rest is dropped."""
CLOSE_SECONDS = 60.0
"""How long the end of a run waits for a tracker to write what is left."""
PROJECT = "dreamer-async"
"""Where runs are filed, unless the tracker's own environment variable says otherwise."""


class Numbers(NamedTuple):
    """What one event says in numbers."""

    values: dict[str, float]
    """By name."""
    step: int
    """Agent steps of the run."""


class TrackerFailed(RuntimeError):
    """A tracker's own error, in its first line."""


class Backend(Protocol):
    """One tracker, used by one thread."""

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers of one step, which may come again and out of order."""
        ...

    def film(self, gif: bytes, step: int) -> None:
        """Log a moving picture."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class Tensorboard:
    """Event files in `tensorboard/` of the run."""

    def __init__(self, run: RunDir, config: Config) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.tracker("tensorboard")), flush_secs=FLUSH_SECONDS)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def film(self, gif: bytes, step: int) -> None:
        proto: Any = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        image = proto.Summary.Image(encoded_image_string=gif, colorspace=3)
        summary = proto.Summary(value=[proto.Summary.Value(tag="film", image=image)])
        self._writer._get_file_writer().add_summary(summary, step)

    def close(self) -> None:
        with suppress(Exception):  # a disk that refuses it has been reported
            self._writer.close()


def own_name(run: RunDir, folder: Path) -> str:
    """What a service knows a run by: no other run may have it, in another directory of runs either.

    It is made once and kept in the tracker's folder. One that was begun without has the run's name.
    """
    file = folder / "run_id"
    if not file.exists():
        new = not any(folder.iterdir())
        file.write_text(f"{run.name}-{secrets.token_hex(3)}" if new else run.name)
    return file.read_text().strip()


class Wandb:
    """Weights & Biases, offline with WANDB_MODE=offline; local files in `wandb/` of the run."""

    def __init__(self, run: RunDir, config: Config) -> None:
        self._wandb: Any = importlib.import_module("wandb")
        self._folder = run.tracker("wandb")
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=own_name(run, self._folder),
            name=run.name,
            dir=str(self._folder),
            config=flat(config),
            resume="allow",
            settings=self._wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("env_steps")
        self._run.define_metric("*", step_metric="env_steps")

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "env_steps": step})

    def film(self, gif: bytes, step: int) -> None:
        path = self._folder / "film.gif"
        path.write_bytes(gif)
        self._run.log({"film": self._wandb.Video(str(path), format="gif"), "env_steps": step})

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """Trackio, in its own folder (TRACKIO_DIR): `trackio show` lays all runs beside each other."""

    def __init__(self, run: RunDir, config: Config) -> None:
        self._trackio: Any = importlib.import_module("trackio")
        self._folder = run.tracker("trackio")
        self._run = self._trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=own_name(run, self._folder),
            config=flat(config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
        )

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def film(self, gif: bytes, step: int) -> None:
        path = self._folder / "film.gif"
        path.write_bytes(gif)
        self._run.log({"film": self._trackio.Video(str(path))}, step=step)

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """MLflow: the server of MLFLOW_TRACKING_URI, else a SQLite file in `mlflow/` of the run."""

    def __init__(self, run: RunDir, config: Config) -> None:
        mlflow: Any = importlib.import_module("mlflow")
        self._folder = run.tracker("mlflow")
        own = f"sqlite:///{self._folder / 'mlflow.db'}"
        given = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = mlflow.MlflowClient(tracking_uri=given or own)
        place = None if given else (self._folder / "films").as_uri()
        self._id = self._resumed() or self._new(run.name, place, config)
        self._entities: Any = importlib.import_module("mlflow.entities")

    def _resumed(self) -> str:
        """Id of the run that this one is, if it was tracked before."""
        file = self._folder / "run_id"
        return file.read_text().strip() if file.exists() else ""

    def _new(self, name: str, place: str | None, config: Config) -> str:
        """Make a run, with its settings: what a resume changes cannot be changed there."""
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(project)
        experiment = (
            known.experiment_id
            if known is not None
            else self._client.create_experiment(project, artifact_location=place)
        )
        created = self._client.create_run(experiment, run_name=name).info.run_id
        for key, value in flat(config).items():
            self._client.log_param(created, key, value)
        (self._folder / "run_id").write_text(created)
        return created

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(name, v, now, step) for name, v in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def film(self, gif: bytes, step: int) -> None:
        path = self._folder / f"film-{step:012d}.gif"
        path.write_bytes(gif)
        self._client.log_artifact(self._id, str(path), "films")
        path.unlink()

    def close(self) -> None:
        self._client.set_terminated(self._id)


def flat(config: Config) -> dict[str, Any]:
    """Settings by their dotted names, as trackers show them."""
    found: dict[str, Any] = {}
    for key, value in to_dict(config).items():
        found |= (
            {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        )
    return found


TRACKERS: dict[str, Callable[[RunDir, Config], Backend]] = {
    "tensorboard": Tensorboard,
    "wandb": Wandb,
    "trackio": Trackio,
    "mlflow": Mlflow,
}
"""By the words of `--log`, which are also the names of extras and of folders of a run."""


def numbers_of(event: Event, frames_per_step: int, *, by_updates: bool = False) -> Numbers | None:
    """The numbers of an event: metrics, gauges, episodes and evaluations; None of others."""
    match event:
        case Metrics():
            values: Mapping[str, float | None] = event.values
        case Gauges():
            frames = float(event.env_steps * frames_per_step)
            updates = float(event.updates)
            values = {**event.values, "progress/frames": frames, "progress/updates": updates}
        case Episode():
            values = {"episode/score": event.score, "episode/length": float(event.length)}
        case Evaluated() if event.scores:
            values = {"evaluation/mean": sum(event.scores) / len(event.scores)}
        case _:
            return None
    known = {name: value for name, value in values.items() if value is not None}
    return Numbers(known, _updates(event) if by_updates else event.env_steps)


def _updates(event: Metrics | Gauges | Episode | Evaluated) -> int:
    """How many updates there were, where an event says so."""
    if isinstance(event, Metrics):
        return event.update
    return 0 if isinstance(event, Episode) else event.updates


class Tracker:
    """A listener that hands events to a backend in a thread of its own."""

    def __init__(
        self,
        name: str,
        open_backend: Callable[[], Backend],
        film: Callable[[], tuple[bytes, int] | None] = lambda: None,
        waiting: int = WAITING,
    ) -> None:
        """`film` gives a new film and its step, if there is one; asked after every gauges event."""
        self.name = name
        self.dropped = 0
        """Events for which there was no room."""
        self.warn: Callable[[str], None] = lambda message: None
        """Tells people something, on the event loop."""
        self._open, self._film = open_backend, film
        self._queue: queue.Queue[Numbers | None] = queue.Queue(waiting)
        self._failure: Exception | None = None
        self._ended = False
        self._frames_per_step = 1
        self._by_updates = False
        """Whether the run learns without environments, so that only updates tell how far it is."""
        self._thread: threading.Thread | None = None

    def show(self, event: Event) -> None:
        """Queue the numbers of an event; raises, once, what made the backend fail."""
        if self._failure is not None:
            raise self._failure
        if isinstance(event, RunStarted):
            self._frames_per_step = event.frames_per_step
            self._by_updates = event.updates > 0
        numbers = numbers_of(event, self._frames_per_step, by_updates=self._by_updates)
        if numbers is None:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(numbers)
        except queue.Full:
            self.dropped += 1
            if self.dropped == 1:
                self.warn(f"{self.name} does not keep up: events beyond its queue are dropped")

    def end(self) -> None:
        """Tell the backend that nothing follows; the oldest event makes room if there is none."""
        if self._ended or self._thread is None:
            return
        self._ended = True
        with suppress(queue.Full, queue.Empty):
            if self._queue.full():
                self._queue.get_nowait()
                self.dropped += 1
            self._queue.put_nowait(None)

    def close(self, seconds: float = CLOSE_SECONDS) -> str:
        """Let the backend write what is left; what was lost, in words, or nothing."""
        if self._thread is None:
            return ""
        self.end()
        self._thread.join(seconds)
        lost = self.dropped + self._queue.qsize()
        if self._thread.is_alive():
            aio.leave(self._thread)
            return f"{self.name} did not end in {seconds:g} s; up to {lost:,} events are lost"
        return f"{self.name} lost {lost:,} events" if lost else ""

    def _serve(self) -> None:
        """Work until told to end or until the backend fails."""
        try:
            backend = self._open()
            while (numbers := self._queue.get()) is not None:
                backend.numbers(*numbers)
                if "progress/frames" in numbers.values and (film := self._film()) is not None:
                    backend.film(*film)
            backend.close()
        except Exception as error:  # whatever a library raises: it is told and ends the tracking
            first = str(error).strip().partition("\n")[0]
            self._failure = TrackerFailed(first or type(error).__name__)


class Trackers:
    """All trackers of a run: those whose folders it has."""

    def __init__(self, run: RunDir, config: Config) -> None:
        names = [name for name in TRACKERS if run.tracker(name).is_dir()]
        self.listeners = [
            Tracker(name, partial(TRACKERS[name], run, config), FilmGif(run.film_path))
            for name in names
        ]

    def follow(self, warn: Callable[[str], None]) -> None:
        """Let them tell people of what they drop."""
        for listener in self.listeners:
            listener.warn = warn

    def close(self) -> list[str]:
        """Close all within CLOSE_SECONDS; what was lost, in words."""
        deadline = time.monotonic() + CLOSE_SECONDS
        for listener in self.listeners:
            listener.end()
        left = (max(0.0, deadline - time.monotonic()) for _ in self.listeners)
        closed = [each.close(seconds) for each, seconds in zip(self.listeners, left, strict=True)]
        return [said for said in closed if said]
