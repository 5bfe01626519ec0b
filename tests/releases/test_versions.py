"""The oldest and the newest PyTorch that we allow: installed, trained with, and compared.

Each gets an environment of its own with our wheel: gigabytes and minutes, so that only
`just versions` runs this. VERSIONS_DIR names a folder that keeps the environments. A version that
pip cannot have is skipped; whatever fails afterwards fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from dreamer_async.store.events import RunFinished, RunStarted
from dreamer_async.store.run_dir import RunDir
from tests.tiny_run import AS_OPTIONS, read

pytestmark = pytest.mark.versions
ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
(BOUNDS,) = (line for line in PROJECT["dependencies"] if line.startswith("torch>"))
OLDEST, LIMIT = re.findall(r"2\.\d+", BOUNDS)
NEWEST = f"2.{int(LIMIT[2:]) - 1}"
ALONE = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
"""Nothing that is called finds this tree, unless it is told where it is."""
COMPARED = ("agent/test_oracle_agent.py", "fast/test_native.py", "fast/test_compile.py")
"""Recorded numbers of the official code by all backends, native functions, compiled updates."""


class Place(NamedTuple):
    """A virtual environment with one PyTorch, and where its commands run."""

    python: Path
    folder: Path
    torch: str

    def call(self, *words: str | Path) -> str:
        """What Python prints there."""
        done = run(self.python, *words, here=self.folder)
        assert done.returncode == 0, (words, done.stdout[-3000:], done.stderr[-3000:])
        return done.stdout

    def command(self, *words: str) -> str:
        """What our command prints there."""
        return self.call(self.python.with_name("dreamer-async"), *words)


def run(*words: str | Path, here: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)),
        cwd=here,
        env=ALONE | {"DREAMER_RUNS_DIR": str(here / "runs")},
        capture_output=True,
        text=True,
        timeout=3600,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "build", "--outdir", folder, ROOT, here=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module", params=[OLDEST, NEWEST], ids="torch {}".format)
def place(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    """An environment with the wheel and the oldest or the newest PyTorch."""
    kept = os.environ.get("VERSIONS_DIR")
    venv = (Path(kept) if kept else tmp_path_factory.mktemp("venv")) / request.param
    python = venv.absolute() / "bin" / "python"
    if not python.exists():
        assert run(sys.executable, "-m", "venv", venv, here=ROOT).returncode == 0
    pip = python, "-m", "pip", "install", "--quiet"
    got = run(*pip, f"torch=={request.param}.*", here=venv)
    if got.returncode:
        pytest.skip(f"pip has no torch {request.param}: {got.stderr.strip().splitlines()[-1]}")
    ours = run(*pip, "--force-reinstall", "--no-deps", wheel, here=venv)
    rest = run(*pip, wheel, "pytest", "hypothesis", "pillow", here=venv)
    assert (ours.returncode, rest.returncode) == (0, 0), ours.stderr + rest.stderr
    said = run(python, "-c", "import torch; print(torch.__version__)", here=venv).stdout.strip()
    assert said.startswith(f"{request.param}."), said
    return Place(python, tmp_path_factory.mktemp("runs"), said)


def test_it_trains_goes_on_and_learns_from_what_was_recorded(place: Place) -> None:
    small = "--size", "tiny", "--device", "cpu", "--plain"
    place.command("train", "toy", *small, "--steps", "200", *AS_OPTIONS)
    place.command("resume", "last", "--plain", "--steps", "300")
    place.command("eval", "last", "--episodes", "1", "--device", "cpu")
    (trained,) = map(RunDir, (place.folder / "runs").iterdir())
    place.command("learn", trained.name, "--updates", "5", "--plain", "--device", "cpu")
    (learned,) = (path for path in (place.folder / "runs").iterdir() if path != trained.path)
    for directory in (trained, RunDir(learned)):
        events = read(directory)
        assert all(event.native for event in events if isinstance(event, RunStarted))
        ends = [event.reason for event in events if isinstance(event, RunFinished)]
        assert ends == ["completed"] * len(ends) and ends
    saved = max(trained.checkpoints.iterdir()) / "manifest.json"
    assert f'"{place.torch}"' in saved.read_text()


def test_it_compiles(place: Place) -> None:
    assert re.search(r"^ok\s+compile\b", place.command("doctor", "--compile"), re.M)


@pytest.mark.parametrize("tests", COMPARED)
def test_it_computes_what_was_recorded(place: Place, tests: str) -> None:
    """By the tests of this tree, with its code."""
    words = "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--rootdir", ROOT
    said = place.call(*words, "-c", ROOT / "pyproject.toml", ROOT / "tests" / tests)
    assert re.search(r"\d+ passed", said), said
