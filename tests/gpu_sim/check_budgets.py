"""How many nodes a recorded update has and what it holds, within what `budgets.toml` allows."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.gpu_sim.card import COMPILING_S, PROBES, Card

BUDGETS = tomllib.loads(Path(__file__).with_name("budgets.toml").read_text())
LEAST_NODES = 500
"""A recording of fewer would not be a whole update."""
BATCH = "train.batch_size=16", "train.batch_length=64"


@pytest.mark.parametrize("name", BUDGETS)
def test_an_update_stays_within_its_budget(card: Card, name: str) -> None:
    budget = BUDGETS[name]
    done = card.call(
        str(PROBES / "record.py"),
        *budget["task"],
        *BATCH,
        patience=COMPILING_S,
        FAKE_VRAM_GB=budget["card"],
    )
    assert done.code == 0, done.output
    found: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    nodes = card.nodes().total()
    print(f"\n{name}: {nodes:,} nodes, {found}")
    assert not done.broken
    assert any(node.startswith("triton ") for node in card.nodes()), "nothing was compiled"
    assert LEAST_NODES < nodes <= budget["nodes"], card.nodes().most_common(10)
    assert found["reserved_gb"] <= budget["held"], found
    assert found["tensors_gb"] < found["taken_gb"] <= budget["taken"], found
