"""Interpreters that we start run Python's modules and ours, never what lies beside the user."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import TINY

from dreamer_async.machine.interpreter import command, environment, python

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path for name in ("dreamer_async", "envs", "tui") for path in (ROOT / name).rglob("*.py")
]
CANARY = "import os\nopen(os.environ['CANARY'], 'a').write(__name__ + '\\n')\n"
SHADOWED = (
    *("json", "signal", "random", "socket", "selectors", "typing", "ctypes", "argparse", "asyncio"),
    *("numpy", "torch", "textual", "gymnasium", "envs", "tui", "dreamer_async", "sitecustomize"),
)
"""Modules of Python, of others and of ours that lie in the working directory."""


def starts(source: str) -> list[bool]:
    """Whether each command line of our interpreter in a source keeps the working directory out."""
    lists = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.List | ast.Tuple))
    words = ([ast.unparse(item) for item in node.elts] for node in lists)
    ours = (line for line in words if line[:1] == ["sys.executable"])
    return [line[1:2] in (["'-P'"], ["'-I'"], ["SAFE"]) for line in ours]


def test_every_interpreter_that_we_start_keeps_the_working_directory_out() -> None:
    found = {path: starts(path.read_text()) for path in SOURCES}
    assert {path.name for path, safe in found.items() if not all(safe)} == set()
    assert sum(map(len, found.values())) == 5, (
        "what dies with us, a worker, drawing, a pool with arguments, the rest"
    )


def test_the_gate_sees_one_that_does_not() -> None:
    assert starts("Popen([sys.executable, '-m', 'x'])") == [False]
    assert starts("Popen((sys.executable, '-P', '-c', 'x'))") == [True]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory full of modules whose import leaves a mark."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANARY", str(tmp_path / "dead"))
    monkeypatch.setenv("DREAMER_RUNS_DIR", str(tmp_path / "runs"))
    for name in SHADOWED:
        (tmp_path / f"{name}.py").write_text(CANARY)
    return tmp_path


def call(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the installed script would."""
    line = command("dreamer_async", *words)
    return subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.faults
def test_no_command_runs_what_lies_in_the_working_directory(here: Path) -> None:
    """All of them on one run, as each costs seconds."""
    settings = " ".join(f"-s {setting}" for setting in TINY)
    for line in (
        f"train gym --task CartPole-v1 --size tiny --device cpu --plain --steps 30 {settings}",
        "resume last --plain --steps 40",
        "eval last --episodes 1 --device cpu",
        "env check CartPole-v1 --episodes 1 --seconds 2",
        "bench env --suite classic --seconds 0.2 --envs 2",
        "watch last --screenshot x.svg",
        "runs rm last --yes",
    ):
        done = call(*line.split())
        assert done.returncode == 0, (line, done)
        assert not (here / "dead").exists(), (line, (here / "dead").read_text())


@pytest.mark.faults
def test_the_canaries_can_die(here: Path) -> None:
    words = [sys.executable, "-c", "import json, signal"]
    subprocess.run(words, env=dict(os.environ), check=False)
    assert "json" in (here / "dead").read_text()
    (here / "dead").unlink()
    done = subprocess.run(python("-c", "import json, signal"), check=True)
    assert done.returncode == 0 and not (here / "dead").exists()
