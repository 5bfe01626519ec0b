"""Our packages collide with nobody's, in the tree and in a wheel that is built from it.

A folder envs/ or tui/ of the user's is what Python finds under these names, here one that must not
be imported; ours are dreamer_async.envs and dreamer_async.tui, by links to the folders of the tree.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dreamer_async.machine.interpreter import environment
from tests.tiny_run import AS_OPTIONS

ROOT = Path(__file__).resolve().parents[2]
LINKS = {"dreamer_async/envs": ROOT / "envs", "dreamer_async/tui": ROOT / "tui"}
LOAD = """
import sys
import dreamer_async
from dreamer_async import envs

agent = dreamer_async.load(sys.argv[1], "cpu")
with envs.make("toy", "seek", num_envs=1, seed=0) as env:
    env.start()
    agent.act({name: rows[0] for name, rows in env.recv().obs.items()})
"""
EVERYTHING = """
import importlib, pkgutil, sys
import dreamer_async.envs, dreamer_async.tui

for package in (dreamer_async.envs, dreamer_async.tui):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith(("minecraft_spec", "__main__")):
            importlib.import_module(module.name)
print(*sys.modules)
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A user's folder with packages of our names that cannot be imported."""
    for name in ("envs", "tui"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('the other {name}')")
    (tmp_path / "load.py").write_text(LOAD)
    (tmp_path / "everything.py").write_text(EVERYTHING)
    return tmp_path


def call(here: Path, *words: str, package: Path = ROOT) -> str:
    """What Python prints that starts in the user's folder and finds dreamer_async in another."""
    path = os.pathsep.join([str(package), *sys.path[1:]])
    done = subprocess.run(
        [sys.executable, *words],
        cwd=here,
        env=environment() | {"PYTHONPATH": path, "DREAMER_RUNS_DIR": str(here / "runs")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def use(here: Path, package: Path) -> None:
    """Train, watch, check, list and load in the user's folder."""
    command = "-m", "dreamer_async"
    train = "train", "toy", "--size", "tiny", "--device", "cpu", "--plain", "--steps", "40"
    call(here, *command, *train, *AS_OPTIONS, package=package)
    assert "toy" in call(here, *command, "envs", package=package)
    quick = "--episodes", "1", "--seconds", "2"
    call(here, *command, "env", "check", "CartPole-v1", *quick, package=package)
    call(here, *command, "watch", "last", "--screenshot", "picture.svg", package=package)
    assert "<svg" in (here / "picture.svg").read_text()
    (run,) = (here / "runs").iterdir()
    call(here, "load.py", str(run), package=package)


@pytest.mark.parametrize("name", ["envs", "tui"])
def test_the_other_packages_cannot_be_imported(hostile: Path, name: str) -> None:
    with pytest.raises(AssertionError, match=f"the other {name}"):
        call(hostile, "-c", f"import {name}")


def test_every_module_is_found_beside_them_under_one_name(hostile: Path) -> None:
    loaded = call(hostile, "everything.py").split()
    assert {"dreamer_async.envs.suites.toy", "dreamer_async.tui.pages.world"} <= set(loaded)
    assert not {"envs", "tui"} & {name.partition(".")[0] for name in loaded}


def test_the_links_lead_to_the_folders_of_the_tree() -> None:
    """A checkout without links, or with copies in their place, would run other code."""
    found = {name: (ROOT / name).resolve() for name in LINKS if (ROOT / ".git").exists()}
    assert found in ({}, LINKS)


@pytest.mark.slow
def test_commands_work_beside_them(hostile: Path) -> None:
    use(hostile, ROOT)


def files(package: str, folder: Path) -> set[str]:
    """What belongs to a package, by the names that a wheel gives it."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {f"{package}/{path.relative_to(folder).as_posix()}" for path in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_a_wheel_contains_what_the_tree_contains(wheel: Path) -> None:
    """Built as `python -m build` does it: from the source distribution, which has no links."""
    expected = files("dreamer_async", ROOT / "dreamer_async")
    expected |= {file for name, folder in LINKS.items() for file in files(name, folder)}
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    contained = {name for name in names if ".dist-info/" not in name}
    assert contained == expected
    assert {name.partition("/")[0] for name in contained} == {"dreamer_async"}


@pytest.mark.slow
def test_a_wheel_works_beside_them(wheel: Path, hostile: Path) -> None:
    installed = hostile / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    where = "import dreamer_async.envs as e; print(e.__file__)"
    assert str(installed) in call(hostile, "-c", where, package=installed)
    use(hostile, installed)
