"""Processes for replay/test_processes.py: a writer, readers, and writers made to be killed.

Every record says which step it is, so that anybody can check any of it.

    python ring_process.py write FOLDER SECONDS
    python ring_process.py read FOLDER SECONDS checked|naive      prints one JSON line
    python ring_process.py mother FOLDER                          a writer per input line
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_async.replay.layout import RingSpec, SampleBuffers
from dreamer_async.replay.replay import Replay, _Draw
from dreamer_async.replay.ring import Field

FRAME = (32, 32, 3)
PRIME = 251
SPEC = RingSpec(
    {
        "step": Field((), "int64"),
        "is_first": Field((), "bool"),
        "is_last": Field((), "bool"),
        "frame": Field(FRAME, "uint8"),
        "code": Field((), "int64"),
    },
    deter=64,
    stoch=32,
    num_envs=4,
    capacity=60,
    length=16,
)
ENVS = np.arange(SPEC.num_envs, dtype=np.int32)
FRAMES = np.broadcast_to(np.arange(PRIME, dtype=np.uint8)[:, None, None, None], (PRIME, *FRAME))
REFRESHED = 1000
"""What the learner adds to the latents that it writes back."""


PATIENCE = 120.0
"""Seconds after which a process gives up, however busy the machine."""


def paths(folder: Path) -> tuple[Path, Path]:
    return folder / "ring", folder / "latents"


def acknowledged(folder: Path) -> Path:
    """The file in which a writer notes how many steps per environment it has added."""
    return folder / "acknowledged"


def add(replay: Replay, step: int) -> None:
    """Append step number `step` to every environment."""
    code = ENVS.astype(np.int64) * 1_000_000_000 + step
    flag = np.full(len(ENVS), step % 7 == 0)
    fields = {
        "step": np.full(len(ENVS), step),
        "is_first": flag,
        "is_last": np.zeros(len(ENVS), bool),
        "frame": FRAMES[(code % PRIME)],
        "code": code,
    }
    deter = np.full((len(ENVS), SPEC.deter), step % 1000, np.float16)
    stoch = np.full((len(ENVS), SPEC.stoch), step % 100, np.uint8)
    replay.add(ENVS, fields, deter, stoch)


def learn(replay: Replay, out: SampleBuffers) -> None:
    """Sample windows and write latents back as a learner does."""
    replay.sample(out)
    steps = out.start[:, None] + 1 + np.arange(SPEC.length - 1)
    deter = np.repeat((steps % 1000 + REFRESHED)[..., None], SPEC.deter, 2).astype(np.float16)
    stoch = np.repeat((steps % 100 + 100)[..., None], SPEC.stoch, 2).astype(np.uint8)
    replay.write_latents(out.env, out.start, out.generation, deter, stoch)


def wrong_windows(out: SampleBuffers) -> np.ndarray:
    """Return [B] which windows are not, in every byte, what was added at their place."""
    steps = out.start[:, None] + np.arange(SPEC.length)
    code = out.env[:, None].astype(np.int64) * 1_000_000_000 + steps
    frames = out.fields["frame"].reshape(*code.shape, -1)
    good = (out.fields["step"] == steps) & (out.fields["code"] == code)
    good &= (frames == (code % PRIME).astype(np.uint8)[..., None]).all(-1)
    good[:, 1:] &= out.fields["is_first"][:, 1:] == (steps[:, 1:] % 7 == 0)
    return ~good.all(1)


def wrong_contexts(out: SampleBuffers, lost: np.ndarray) -> np.ndarray:
    """Return [B] which contexts are neither as added nor as refreshed nor lost."""
    deter, stoch = out.deter.astype(np.int64), out.stoch.astype(np.int64)
    start = out.start[:, None]
    fresh = (deter == start % 1000).all(1) & (stoch == start % 100).all(1)
    refreshed = (deter == start % 1000 + REFRESHED).all(1) & (stoch == start % 100 + 100).all(1)
    zero = lost & ~deter.any(1) & ~stoch.any(1)
    return ~(fresh | refreshed | zero)


def count_wrong(replay: Replay) -> tuple[int, int]:
    """Read every complete window of the ring; return (wrong windows, wrong contexts)."""
    oldest, windows = replay._cursors.windows()
    env = np.repeat(np.arange(SPEC.num_envs), windows)
    start = np.concatenate([o + np.arange(n) for o, n in zip(oldest, windows, strict=True)])
    out, rows = SampleBuffers.allocate(SPEC, len(env)), np.arange(len(env))
    draw = _Draw(env, start, 0)
    replay._copy(out, rows, draw)
    lost = replay._read_context(out, rows, draw)
    return int(wrong_windows(out).sum()), int(wrong_contexts(out, lost).sum())


class Naive(Replay):
    """A reader that trusts `head` and does not look again after copying."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cursors.reserved = self._cursors.head

    def _settle(self, draw: _Draw) -> np.ndarray:
        return super()._settle(draw) & False


class Deliberate(Replay):
    """A writer that takes its time between two columns, where kills are interesting."""

    def _put(self, *args: Any, **kwargs: Any) -> None:
        end = time.perf_counter() + 50e-6
        while time.perf_counter() < end:
            pass
        super()._put(*args, **kwargs)


def write(folder: Path, seconds: float) -> None:
    """Add flat out."""
    with Replay.open(*paths(folder), SPEC, seed=0, online=False) as replay:
        step, end = replay.steps // SPEC.num_envs, time.monotonic() + seconds
        while time.monotonic() < end:
            add(replay, step)
            step += 1


def read(folder: Path, seconds: float, kind: str) -> dict[str, Any]:
    """Sample flat out and count what is wrong, on a busy machine for longer than asked for.

    A reader that checks goes on until it has seen some windows and the writer has written much,
    a naive one until it has seen a torn window.
    """
    reader = Naive if kind == "naive" else Replay
    out = SampleBuffers.allocate(SPEC, 8)
    count, wrong, contexts = 0, 0, 0
    with reader.open(*paths(folder), SPEC, seed=os.getpid(), readonly=True) as replay:
        before, began, added, enough = replay.steps, time.monotonic(), 0, False
        while (spent := time.monotonic() - began) < seconds or (not enough and spent < PATIENCE):
            replay.sample(out)
            count += len(out.env)
            wrong += int(wrong_windows(out).sum())
            contexts += int(wrong_contexts(out, np.zeros(len(out.env), bool)).sum())
            added = replay.steps - before
            enough = wrong > 0 if kind == "naive" else count > 100 and added > 1000
        torn = replay.stats()["torn"]
    return {"windows": count, "wrong": wrong, "contexts": contexts, "torn": torn, "added": added}


def mother(folder: Path) -> None:
    """For every line (plain or deliberate) fork a writer, say its pid, wait for its death."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            doomed(folder, Deliberate if line.strip() == "deliberate" else Replay)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("dead", flush=True)


def doomed(folder: Path, kind: type[Replay]) -> None:
    """Add and learn until somebody kills this process (or nobody does for long).

    A deliberate writer says when it has begun; on a busy machine that can take a while.
    """
    acknowledge = os.open(acknowledged(folder), os.O_WRONLY | os.O_CREAT, 0o600)
    replay = kind.open(*paths(folder), SPEC, seed=os.getpid())
    out = SampleBuffers.allocate(SPEC, 2)
    step, end = int(replay._cursors.head[0]), time.monotonic() + PATIENCE
    if kind is Deliberate:
        print("begun", flush=True)
    while time.monotonic() < end:
        add(replay, step)
        step += 1
        os.pwrite(acknowledge, struct.pack("<q", step), 0)
        if step % 3 == 0 and replay.windows > 8:
            learn(replay, out)
    os._exit(1)


def main(command: str, folder: str, *rest: str) -> None:
    match command:
        case "write":
            write(Path(folder), float(rest[0]))
        case "read":
            print(json.dumps(read(Path(folder), float(rest[0]), rest[1])))
        case "mother":
            mother(Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
