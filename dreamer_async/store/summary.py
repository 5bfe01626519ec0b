"""What `dreamer-async runs` says about the runs on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer_async.config import Config, ConfigError, changed, from_dict, resolve
from dreamer_async.store.episodes import episodes_of
from dreamer_async.store.events import (
    MAX_LINE,
    EventReader,
    Gauges,
    PhaseChanged,
    Record,
    RunFinished,
    RunStarted,
    read_events,
)
from dreamer_async.store.json_file import read_json
from dreamer_async.store.run_dir import RunDir, bytes_of
from dreamer_async.store.sizes import in_words

REASONS = ("completed", "stopped", "failed")
"""How a run says that it ended."""
RECENT = 20
"""Episodes that the shown return is the mean of."""
LAST_BYTES = 4 * MAX_LINE
"""Of a stream, in which its newest episodes are looked for first."""


@dataclass(frozen=True)
class Summary:
    """One line of `runs list`."""

    name: str
    path: str
    suite: str
    task: str
    size: str
    state: str
    """A phase while someone trains in it; else completed, stopped, failed, killed or new."""
    env_steps: int
    """Agent steps so far."""
    frames: int
    """Environment frames so far: agent steps times the action repeat."""
    steps: int
    """Planned agent steps."""
    updates: int
    recent_return: float | None
    """Mean score of the last episodes, None before the first."""
    bytes_on_disk: int
    owner: dict[str, Any] | None
    """Who trains in it now: pid, host, since."""


def load_config(run: RunDir) -> Config:
    """Read a run's config; raises ConfigError that names the file."""
    try:
        return from_dict(read_json(run.config_path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{run.name}: {error}") from None


def summarize(run: RunDir) -> Summary:
    """Sum a run up from its config and the last few MB of its events."""
    config, owner = load_config(run), run.owner()
    records = last_records(run)
    longer = _bytes(run) > LAST_BYTES and not config.train.updates
    if longer and not episodes_of(records):  # a pause, or long episodes
        records = last_records(run, 16 * LAST_BYTES)
    state, env_steps, updates = _state(records, running=owner is not None)
    scores = [episode.score for episode in episodes_of(records)][-RECENT:]
    known = [score for score in scores if score is not None]
    return Summary(
        name=run.name,
        path=str(run.path),
        suite=config.env.suite,
        task=config.env.task,
        size=config.size,
        state=state,
        env_steps=env_steps,
        frames=env_steps * _frames_per_step(run),
        steps=config.train.steps,
        updates=updates,
        recent_return=sum(score / len(known) for score in known) if known else None,
        bytes_on_disk=disk_usage(run, config.replay.directory),
        owner=owner,
    )


def last_records(run: RunDir, most: int = LAST_BYTES) -> list[Record]:
    """The records of the last few MB of the stream: a run of weeks has some GB of them."""
    size = _bytes(run)
    return read_events(run.events_path, max(0, size - most))[0] if size else []


def _bytes(run: RunDir) -> int:
    """Of the whole stream, 0 before there is one."""
    try:
        return run.events_path.lstat().st_size
    except FileNotFoundError:
        return 0


def _frames_per_step(run: RunDir) -> int:
    """The action repeat, which one of a run's first events tells; 1 before it began."""
    for record in EventReader(run.events_path).read(MAX_LINE):
        if isinstance(record.event, RunStarted):
            return record.event.frames_per_step
    return 1


def _state(records: list[Record], *, running: bool) -> tuple[str, int, int]:
    """State, agent steps and updates; killed: nobody holds the run and it did not finish."""
    state, env_steps, updates = ("starting" if running else "new"), 0, 0
    for record in records:
        event = record.event
        if isinstance(event, Gauges | PhaseChanged | RunFinished):
            env_steps, updates = event.env_steps, event.updates
        if isinstance(event, Gauges) and state in ("starting", "new"):
            # only the end of a long stream is read, and the phase stands before it
            state = "training" if running else "killed"
        if isinstance(event, RunStarted):
            state = "starting" if running else "killed"
        elif isinstance(event, PhaseChanged):
            state = event.phase if running else "killed"
        elif isinstance(event, RunFinished) and not running:
            state = event.reason if event.reason in REASONS else "ended"
    return state, env_steps, updates


def disk_usage(run: RunDir, replay_directory: str = "") -> int:
    """Bytes that a run takes, its replay elsewhere included; files may vanish meanwhile."""
    files = {Path(d) / name for d, _, names in os.walk(run.path) for name in names}
    for each in (run, *run.ranks()):
        files |= set(each.replay_paths(replay_directory))
    return sum(map(bytes_of, files))


def chosen_settings(config: Config) -> dict[str, Any]:
    """Settings that differ from those of the suite and size alone, as dotted keys."""
    env = config.env
    plain = resolve(env.suite, env.task, size=config.size)
    return {key: new for key, (_, new) in changed(plain, config).items()}


def table(summaries: Sequence[Summary]) -> list[str]:
    """Lines of `runs list`, a header first."""
    if not summaries:
        return ["no runs yet; start one with `dreamer-async train toy`"]
    width = max(len(summary.name) for summary in summaries)
    head = f"{'state':10} {'size':9} {'agent steps':>13} {'frames':>13} {'return':>9} {'disk':>9}"
    rows = [f"{'run':{width}}  {head}"]
    for row in summaries:
        score = "-" if row.recent_return is None else f"{row.recent_return:.2f}"
        rows.append(
            f"{row.name:{width}}  {row.state:10} {row.size:9} {row.env_steps:>13,} "
            f"{row.frames:>13,} {score:>9} "
            f"{in_words(row.bytes_on_disk):>9}"
        )
    return rows
