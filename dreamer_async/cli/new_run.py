"""What comes before every new run, whoever asks for it: room on the disk, and its directory."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from dreamer_async.config import Config, ConfigError, to_dict
from dreamer_async.config.schema import shown
from dreamer_async.run import checkpoint_room
from dreamer_async.store.directory import existing
from dreamer_async.store.run_dir import LONGEST_LABEL, RUN_NAME, RunDir


def check_room(config: Config, root: Path) -> str:
    """Refuse what the disk has no room for before anything is created; returns a warning.

    A replay whose size is not chosen takes no more than half of what is free.
    """
    place, runs = map(existing, (Path(config.replay.directory or root), root))
    chosen = config.replay.capacity or config.replay.capacity_gb
    if not chosen and shutil.disk_usage(runs).free / 2 >= checkpoint_room.PLENTY:
        return ""
    from dreamer_async import envs
    from dreamer_async.replay.setup import check_room

    replay = check_room(config, envs.spec_of(config.env), place)
    beside = replay if place.stat().st_dev == runs.stat().st_dev else 0
    if shutil.disk_usage(runs).free - beside >= checkpoint_room.PLENTY:
        return ""
    return checkpoint_room.room_for_new(config, runs, beside)


def create_run(
    root: Path,
    label: str | None,
    config: Config,
    *,
    named: bool = False,
    trackers: Sequence[str] = (),
) -> tuple[RunDir, list[str]]:
    """Make a run's directory, and say what killed commands had left behind and is deleted now.

    The label is that of its task unless there is one; with `named` it is the whole name. A tracker
    follows a run that has its folder. ConfigError for a label that would have to be changed.
    """
    from dreamer_async.store.removal import sweep

    if label is not None and not (RUN_NAME.fullmatch(label) and len(label) <= LONGEST_LABEL):
        raise ConfigError(
            f"--name {shown(label)}: use up to {LONGEST_LABEL} letters (a to z), digits, . _ and "
            "-, and begin with a letter or a digit"
        )
    swept = list(sweep(root))
    try:
        now = None if named else time.time
        label = label or f"{config.env.suite}-{config.env.task}"
        run = RunDir.create(root, label, config=to_dict(config), now=now)
    except OSError as error:
        text = f"cannot create a run in {root}: {error.strerror}"
        raise OSError(error.errno, text) from error
    for tracker in trackers:
        run.tracker(tracker).mkdir()
    return run, swept
