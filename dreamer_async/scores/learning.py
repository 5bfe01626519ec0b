"""Learning curves of runs as CSV: returns of episodes, and the losses beside them.

A file has lines of `#`, which say what made each run, a header, and one row per point. A row holds
either the return of an episode or the losses around one update; the other columns are empty. Many
points are averaged in groups of neighbours, so that a run takes some 20 kB however long it was.
"""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from dreamer_async.config import Config, ConfigError, changed, resolve
from dreamer_async.store.episodes import kept
from dreamer_async.store.events import (
    Clock,
    Episode,
    EventReader,
    Gauges,
    Metrics,
    Resumed,
    RunStarted,
)
from dreamer_async.store.run_dir import RunDir

RECONSTRUCTION = "loss/reconstruction"
"""Sum over the observation keys."""
LOSSES = (
    *("loss/reward", "loss/cont", "loss/dyn", RECONSTRUCTION, "loss/critic", "loss/replay_critic"),
    *("policy/entropy", "return/S", "value/mean"),
)
"""What is kept of an update."""
NO_KEYS = frozenset(
    f"loss/{name}"
    for name in ("reward", "cont", "dyn", "rep", "actor", "critic", "replay_critic", "total")
)
"""Losses that reconstruct nothing."""
WHERE = ("step", "frames", "update", "hours")
"""Agent steps, environment frames, updates and hours of training of a point."""
COLUMNS = ("run", "task", "group", "seed", *WHERE, "return", *LOSSES)
MOST_POINTS = 200
"""Of the returns of a run, and of its losses."""

Point = dict[str, float]
"""{column: value} of a row, from WHERE on."""


@dataclass(frozen=True)
class Curve:
    """What is drawn of one run."""

    run: str
    task: str
    """suite/task."""
    group: str
    """Runs of one group differ by their seed only."""
    seed: int
    points: list[Point] = field(default_factory=list)
    """In the order of the file."""

    def column(self, name: str, over: str) -> tuple[list[float], list[float]]:
        """One column over another, where both are given."""
        kept = [(p[over], p[name]) for p in self.points if name in p and over in p]
        return [x for x, _ in kept], [y for _, y in kept]


def read_curve(run: RunDir, config: Config, group: str = "") -> Curve:
    """Gather what a run has seen so far; ConfigError if it never started."""
    episodes, updates = list[tuple[int, Point]](), list[Point]()
    repeat, update = 0, 0
    reader, clock = EventReader(run.events_path), Clock()
    while records := reader.read():
        for record in records:
            clock.tick(record.mono, record.generation)
            hours = clock.ran / 3600  # what a resume plays again counts twice: it takes its time
            match record.event:
                case RunStarted() as event:
                    repeat = event.frames_per_step
                case Resumed() as event:
                    episodes = [(at, _held(p, event)) for at, p in kept(episodes, event)]
                    updates = [p for p in updates if p["update"] <= event.updates]
                    update = event.updates
                case Gauges() as event:
                    update = event.updates
                case Episode() as event if event.score is not None:
                    point = _point(event.env_steps, update, hours)
                    episodes.append((event.env_steps, point | {"return": event.score}))
                case Metrics() as event if losses := _losses(event.values):
                    update = event.update
                    point = _point(event.env_steps, update, hours)
                    updates.append(point | losses)
    if repeat < 1:
        raise ConfigError(f"{run.name} has not begun: it has no curve")
    points = [*thinned([point for _, point in episodes]), *thinned(updates)]
    for point in points:
        point["frames"] = point["step"] * repeat
    env = config.env
    group = group or ("lockstep" if config.train.sync else "overlapped")
    return Curve(run.name, f"{env.suite}/{env.task}", group, config.train.seed, points)


def _point(step: int, update: int, hours: float) -> Point:
    return {"step": float(step), "update": float(update), "hours": hours}


def _held(point: Point, resumed: Resumed) -> Point:
    """An episode of a run that goes on with weights of before it ended."""
    return point | {"update": min(point["update"], float(resumed.updates))}


def _losses(values: Mapping[str, float | None]) -> Point:
    """What is kept of the metrics of one update; empty if they are of something else."""
    known = {name: value for name, value in values.items() if value is not None}
    keys = [value for name, value in known.items() if name[:5] == "loss/" and name not in NO_KEYS]
    kept = {name: known[name] for name in LOSSES if name in known}
    return kept | ({RECONSTRUCTION: sum(keys)} if kept and keys else {})


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Means over equal groups of neighbours, so that there are at most `most` of them."""
    groups = np.array_split(np.arange(len(points)), min(most, len(points)) or 1)
    return [_mean([points[i] for i in group]) for group in groups if len(group)]


def _mean(points: Sequence[Point]) -> Point:
    names = dict.fromkeys(name for point in points for name in point)
    values = {name: [point[name] for point in points if name in point] for name in names}
    return {name: float(np.mean(known)) for name, known in values.items()}


def command(config: Config) -> str:
    """The command line of a run, its preset left out; of `learn`, what it has from its source."""
    env, usual = config.env, resolve(config.env.suite, config.env.task, size=config.size)
    differs = {key: value for key, (_, value) in changed(usual, config).items()}
    words = ["train", env.suite, "--task", env.task]
    if config.train.updates:
        words = ["learn", config.replay.source, "--updates", str(config.train.updates)]
        known = {"replay.source", "train.updates"}
        differs = {k: v for k, v in differs.items() if k not in known and k[:4] != "env."}
    settings = [word for key, value in differs.items() for word in ("-s", f"{key}={_text(value)}")]
    return shlex.join(["dreamer-async", *words, "--size", config.size, *settings])


def _text(value: Any) -> str:
    return json.dumps(dict(value)) if isinstance(value, Mapping) else str(value)


def write_curves(file: TextIO, curves: Iterable[Curve], notes: Iterable[str]) -> None:
    """Write curves as CSV under lines of notes."""
    file.writelines(f"# {note}\n" for note in notes)
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(COLUMNS)
    for curve in curves:
        known = (curve.run, curve.task, curve.group, curve.seed)
        for point in curve.points:
            rows.writerow([*known, *(_number(point.get(name)) for name in COLUMNS[len(known) :])])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}" if abs(value) < 1e4 else f"{value:.0f}"


def read_curves(path: Path) -> list[Curve]:
    """Read what `write_curves` wrote; ValueError with the file and line of anything else."""
    curves: dict[tuple[str, ...], Curve] = {}
    with path.open(newline="", encoding="utf-8") as file:
        lines = ((number, line) for number, line in enumerate(file, 1) if line[:1] != "#")
        for number, line in lines:
            cells = next(csv.reader([line]))
            if not curves and tuple(cells) == COLUMNS:
                continue
            try:
                _take(curves, cells)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    return list(curves.values())


def _take(curves: dict[tuple[str, ...], Curve], cells: list[str]) -> None:
    """Add a row to the curve of its run."""
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{len(cells)} columns instead of {len(COLUMNS)}: {', '.join(COLUMNS)}")
    run, task, group, seed, *values = cells
    key = (run, task, group, seed)
    if key not in curves:
        curves[key] = Curve(run, task, group, int(seed))
    named: Any = zip(COLUMNS[4:], values, strict=True)
    curves[key].points.append({name: float(value) for name, value in named if value})
