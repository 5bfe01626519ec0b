"""Updates and acting steps stay on one device and never wait for it, seen without a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_device import plugin

TESTS = Path(__file__).parents[1]


def test_updates_and_acting_steps_stay_on_the_device() -> None:
    """All of `fake_device/checks.py`, in a process that never saw the real PyTorch alone."""
    if why := plugin.missing():
        pytest.skip(why)
    plugin.build(plugin.torch_folder())
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-p", "fake_device.plugin", str(TESTS / "fake_device/checks.py")],
        env={**os.environ, "PYTHONPATH": paths}, cwd=TESTS.parent, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert passed and int(passed[1]) > 15 and "skipped" not in done.stdout, done.stdout
