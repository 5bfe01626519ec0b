"""A run on two GPUs: sums by NCCL, inside the recorded update. Part of `just gpu-check`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from dreamer_async.machine.interpreter import command, environment
from dreamer_async.store import checkpoint, events
from dreamer_async.store.run_dir import list_runs

pytestmark = pytest.mark.gpu


def test_two_ranks_record_their_updates_and_hold_the_same_weights(tmp_path: Path) -> None:
    """Every save compares the weights; it is refused, and the run ends, where they differ."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    words = command(
        *("dreamer_async", "train", "toy", "--task", "seek", "--size", "size1m"),
        *("--devices", "2", "--device", "cuda", "--steps", "4000", "--plain"),
        *("--runs-dir", tmp_path, "-s", "train.checkpoint_seconds=5"),
    )
    done = subprocess.run(
        words, env=environment(), capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    [run] = list_runs(tmp_path)
    seen = [record.event for record in events.read_events(run.events_path)[0]]
    [started] = [event for event in seen if isinstance(event, events.RunStarted)]
    assert started.ranks == 2 and started.compiled and started.device.startswith("cuda")
    warned = [event.message for event in seen if isinstance(event, events.Warned)]
    assert not [text for text in warned if "not recorded" in text or "not compiled" in text]
    saved, _ = checkpoint.newest(run.checkpoints)
    assert saved is not None and saved.manifest["updates"] > 100
