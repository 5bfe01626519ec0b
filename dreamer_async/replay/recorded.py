"""Filling an empty replay from what was recorded: another run's ring, or episodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from dreamer_async.config import Config, ConfigError, from_dict
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.replay.check import check_steps
from dreamer_async.replay.episodes import Episodes
from dreamer_async.replay.layout import Array, spans
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.ring import Field, RingFile, RingMismatch, stored_file_spec
from dreamer_async.replay.setup import stored
from dreamer_async.store.json_file import read_json
from dreamer_async.store.run_dir import RunDir

CHUNK = 1 << 12
"""Steps that are copied at once."""

Piece = Mapping[str, Array]
"""Steps in a row, as the replay stores them: {name: [N, *shape]}."""


class Recorded(Protocol):
    """Steps that were recorded, in one row for each environment of a replay."""

    steps: list[int]
    """Steps of each row, none of them empty."""

    def pieces(self, row: int) -> Iterator[Piece]:
        """The steps of one row, from the oldest on."""
        ...

    def check(self) -> None:
        """Look at what is cheap to look at; ConfigError for what cannot be learned from."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


def fill(replay: Replay, config: Config, spec: EnvSpec) -> str:
    """Copy what `replay.source` has recorded, the newest steps where not all fit; says what.

    Raises ConfigError (or RingMismatch) where the source has nothing for this run. The replay is
    empty until everything is there.
    """
    with closing(open_source(config, spec)) as source:
        replay.fill(_newest(source, replay.spec.capacity))
    try:
        check_steps(replay, spec, config.model.classes)
    except RingMismatch as error:
        raise ConfigError(f"{config.replay.source}: {error}") from None
    if not replay.windows:
        raise ConfigError(_too_short(config.replay.source, source, config))
    kept, there = replay.steps, sum(source.steps)
    part = f"the newest {kept:,} of {there:,}" if kept < there else f"{kept:,}"
    return f"{part} recorded steps of {config.replay.source} are in the replay"


def open_source(config: Config, spec: EnvSpec) -> Recorded:
    """What the run's replay is to be filled from; ConfigError if it is not there or no such."""
    if not config.replay.source:
        raise ConfigError("there is nothing recorded to learn from: the replay is empty")
    path = Path(config.replay.source)
    if not path.is_dir():
        raise ConfigError(f"{path} is neither a run nor a folder of episodes")
    is_run = RunDir(path).exists()
    source = RecordedRun(RunDir(path), spec) if is_run else Episodes(path, config, spec)
    if len(source.steps) != config.env.num_envs:
        source.close()
        raise ConfigError(
            f"{path} has the steps of {len(source.steps)} environments, so env.num_envs cannot be "
            f"{config.env.num_envs}"
        )
    return source


def check_length(config: Config, source: Recorded) -> None:
    """Refuse recorded steps in which there is not one window to learn from."""
    if max(source.steps) <= config.train.batch_length:
        raise ConfigError(_too_short(config.replay.source, source, config))


def _too_short(path: str, source: Recorded, config: Config) -> str:
    longest, length = max(source.steps), config.train.batch_length
    return (
        f"{path} has {longest:,} steps in a row, but a sequence takes {length + 1:,}; "
        f"choose a smaller -s train.batch_length"
    )


def _newest(source: Recorded, capacity: int) -> Iterator[tuple[int, Piece]]:
    """The last `capacity` steps of each row."""
    for row, steps in enumerate(source.steps):
        skip = max(0, steps - capacity)
        for piece in source.pieces(row):
            many = len(piece["is_first"])
            if skip < many:
                yield row, {name: values[skip:] for name, values in piece.items()}
            skip = max(0, skip - many)


class RecordedRun:
    """The steps in the ring of another run, in which nobody trains."""

    def __init__(self, run: RunDir, spec: EnvSpec) -> None:
        config = from_dict(read_json(run.config_path))
        self._path = run.replay_paths(config.replay.directory)[0]
        self._wanted = {n: field.describe() for n, field in stored(spec).items()}
        try:
            there = stored_file_spec(self._path)
            ring = RingFile.open(self._path, there, readonly=True)
        except FileNotFoundError:
            raise ConfigError(f"{run.name} has no replay to learn from any more") from None
        self._ring = ring
        found = {name.partition("/")[2]: a for name, a in there.arrays.items() if "/" in name}
        self._check({n: Field(f.shape[2:], f.dtype).describe() for n, f in found.items()})
        self._capacity = there.capacity
        self.capacity = there.num_envs * there.capacity
        """Steps that the ring has room for."""
        reserved, head = (cursor.tolist() for cursor in ring.arrays["cursors"])
        self._first = [max(0, begun - there.capacity) for begun in reserved]
        self._cursors = [reserved, head]
        self.steps = [end - first for first, end in zip(self._first, head, strict=True)]
        if not min(self.steps):
            raise ConfigError(f"{run.name} has environments in its replay that never stepped")

    def _check(self, found: Mapping[str, Any]) -> None:
        for name in [*self._wanted, *found]:
            if found.get(name) != self._wanted.get(name):
                raise ConfigError(
                    f"{self._path} has {found.get(name)} for {name!r}, this run needs "
                    f"{self._wanted.get(name)}"
                )

    def check(self) -> None:
        """The run looked at its steps when it stored them."""

    def close(self) -> None:
        """Unmap the ring."""
        self._ring.close()

    def pieces(self, row: int) -> Iterator[Piece]:
        """The steps of one environment; ConfigError if they are written meanwhile."""
        for first in range(0, self.steps[row], CHUNK):
            many = min(CHUNK, self.steps[row] - first)
            for slots, _ in spans(self._first[row] + first, many, self._capacity):
                yield {
                    name: self._ring.arrays[f"field/{name}"][row, slots] for name in self._wanted
                }
        if [cursor.tolist() for cursor in self._ring.arrays["cursors"]] != self._cursors:
            raise ConfigError(f"{self._path} was written while it was read; stop its run first")
