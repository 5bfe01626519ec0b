"""Where the checks find their card."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.gpu_sim.card import Card


@pytest.fixture
def card(tmp_path: Path) -> Card:
    """One simulated card, in the folder that `python -m tests.gpu_sim` has set up."""
    folder = os.environ.get("GPU_SIM_DIR")
    assert folder, "run these checks with `just gpu-sim`"
    return Card(Path(folder), tmp_path)
