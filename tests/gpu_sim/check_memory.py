"""A card without room ends a run with 71 and words that help, in every phase of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dreamer_async.store import exit_codes
from dreamer_async.store.run_dir import RunDir
from tests.gpu_sim.card import (
    INTERPRETED,
    PATIENCE_S,
    Card,
    Ended,
    ending,
    trainer,
    updates,
    wait_until,
)

SIZE1M = (
    "model.deter=512", "model.hidden=64", "model.units=64", "model.stoch=32",
    "train.batch_size=16", "train.batch_length=64", "loss.imagine_length=15",
)  # fmt: skip
"""An update that takes 0.2 GB in tensors, which is more than the smallest piece of an allocator."""
CONTEXT_GB = 0.5
"""What is taken on a card before the first tensor."""


def check_words(done: Ended, run: RunDir, *, saved: bool) -> None:
    """The exit code, what would help, and whether a checkpoint is there, as one line says."""
    assert done.code == exit_codes.MEMORY, done.output
    last = done.output.strip().splitlines()[-1]
    assert last.startswith("error: out of memory"), done.output
    assert "--size" in last and "train.batch_size" in last
    assert any(run.checkpoints.glob("step-*")) == saved
    assert bool(re.search(r"\bno checkpoint", last)) == (not saved), last
    assert ending(run).exit_code == exit_codes.MEMORY
    assert "Traceback" not in done.output


PHASES: dict[str, dict[str, Any]] = {
    "start": {"FAKE_VRAM_GB": CONTEXT_GB},
    "warm-up": {"FAKE_VRAM_GB": CONTEXT_GB + 0.1},
    "capture": {"FAKE_FULL": "capture"},
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_card_that_is_too_small_ends_a_run(card: Card, phase: str) -> None:
    run = card.run("train.device=cuda", "train.steps=1000000", *SIZE1M)
    done = card.call(*trainer(run), **PHASES[phase], **INTERPRETED)
    check_words(done, run, saved=False)
    assert updates(run) == 0
    assert bool(done.lines("BEGIN capture")) or phase != "capture", "it was full earlier"


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "not saved"])
def test_a_card_that_others_fill_later_ends_a_run(card: Card, saved: bool, tmp_path: Path) -> None:
    """Without PyTorch's cache, updates that are not recorded ask for memory every time."""
    every = "0.5" if saved else "1e9"
    run = card.run("train.device=cuda", "train.compile=false", "train.steps=1000000",
                   f"train.checkpoint_seconds={every}")  # fmt: skip
    taken = tmp_path / "taken"
    process = card.start(*trainer(run), FAKE_TAKEN=taken, PYTORCH_NO_CUDA_MEMORY_CACHING=1)
    wait_until(process, lambda: updates(run) > 2)
    if saved:
        wait_until(process, lambda: any(run.checkpoints.glob("step-*")))
    taken.write_text("1000")
    check_words(card.end(process, PATIENCE_S), run, saved=saved)
