"""The replay under real processes: torn windows, and kills at any instant."""

from __future__ import annotations

import json
import os
import platform
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ring_process import SPEC, acknowledged, add, count_wrong, paths

from dreamer_async.replay.replay import Replay

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("FAULT_KILLS", "20"))
SAMPLES = int(os.environ.get("FAULT_SAMPLES", "0"))

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="other processors may show stores of another process in another order",
)


@contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start ring_process.py and make sure that it ends."""
    script = str(Path(__file__).parents[1] / "ring_process.py")
    child = subprocess.Popen(
        [sys.executable, script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def fresh_ring(folder: Path) -> None:
    """Make a ring that has wrapped once."""
    with Replay.create(*paths(folder), SPEC, seed=0) as replay:
        for step in range(2 * SPEC.capacity):
            add(replay, step)


def stress(folder: Path, seconds: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run a writer and three readers; return what two careful and one naive of them saw."""
    fresh_ring(folder)
    kinds = ["checked", "checked", "naive"]
    with (
        process("write", folder, 1000),
        process("read", folder, seconds, kinds[0]) as a,
        process("read", folder, seconds, kinds[1]) as b,
        process("read", folder, seconds, kinds[2]) as c,
    ):
        careful = [json.loads(child.communicate(timeout=600)[0]) for child in (a, b)]
        return careful, json.loads(c.communicate(timeout=600)[0])


def check_stress(careful: list[dict[str, Any]], naive: dict[str, Any]) -> None:
    for seen in careful:
        assert seen["windows"] > 100, "the reader has read something"
        assert seen["added"] > 1000, "the writer was writing meanwhile"
        assert seen["wrong"] == seen["contexts"] == 0
    assert naive["wrong"] > 0, "the test can see torn windows"


@pytest.mark.faults
def test_readers_in_other_processes_never_see_torn_windows(tmp_path: Path) -> None:
    check_stress(*stress(tmp_path, 1.0))


@pytest.mark.faults
@pytest.mark.slow
def test_readers_never_see_torn_windows_for_longer(tmp_path: Path) -> None:
    careful, naive = stress(tmp_path, 10.0)
    check_stress(careful, naive)
    seconds, windows = 10.0, sum(seen["windows"] for seen in careful)
    for again in range(1, 60):  # until there are FAULT_SAMPLES, some minutes for a million
        if windows >= SAMPLES:
            break
        (tmp_path / str(again)).mkdir()
        more, naive = stress(tmp_path / str(again), 3 * seconds)
        check_stress(more, naive)
        careful += more
        windows += sum(seen["windows"] for seen in more)
    print(f"{windows:,} windows, none torn")
    assert windows >= SAMPLES
    assert sum(seen["torn"] for seen in careful) > 0, "windows were drawn anew"


@pytest.mark.faults
def test_a_killed_writer_leaves_no_wrong_step(tmp_path: Path) -> None:
    """kill -9 at random instants of adding, sampling and writing latents, FAULT_KILLS times.

    No published step is wrong or lost, whatever the kill interrupted. Opening with
    `reserved = head`, as if nothing had been begun, is shown to let spoiled steps back in; there
    are more kills until it does.
    """
    fresh_ring(tmp_path)
    chance = random.Random(0)
    let_in = 0
    with process("mother", tmp_path) as mother:
        for kill in range(100 * KILLS):
            if kill >= KILLS and let_in:
                break
            kind = "deliberate" if kill % 4 else "plain"
            kill_one_writer(mother, kind, chance.uniform(0.0, 0.06))
            with Replay.open(*paths(tmp_path), SPEC, seed=kill, readonly=True) as replay:
                assert count_wrong(replay) == (0, 0)
                assert replay._cursors.head.min() >= acknowledged_steps(tmp_path)
                begun = replay._cursors.reserved > replay._cursors.head
            let_in += forgetful(tmp_path, begun)
    assert let_in > 0, "the mistake would have been seen"


def kill_one_writer(mother: subprocess.Popen[str], kind: str, seconds: float) -> None:
    """Let the mother start a writer and kill it after some time."""
    assert mother.stdin is not None
    assert mother.stdout is not None
    print(kind, file=mother.stdin, flush=True)
    pid = int(mother.stdout.readline())
    if kind == "deliberate":
        assert mother.stdout.readline() == "begun\n"
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    assert mother.stdout.readline() == "dead\n"


def acknowledged_steps(folder: Path) -> int:
    path = acknowledged(folder)
    data = path.read_bytes() if path.exists() else b""
    return struct.unpack("<q", data)[0] if data else 0


def forgetful(folder: Path, begun: np.ndarray) -> bool:
    """Tell whether forgetting what a killed writer had begun lets a spoiled step back in."""
    if not begun.any():
        return False
    with Replay.open(*paths(folder), SPEC, seed=0, readonly=True) as replay:
        replay._cursors.reserved = replay._cursors.head
        return count_wrong(replay) != (0, 0)
