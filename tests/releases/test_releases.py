"""What `just wheels` makes installs by pip and uv and works: with native functions, without g++.

Everything is called for real, in environments of its own. Only packages that this environment has
are not downloaded again: pip's sees them, and uv, which allows no such thing, is held to the same
versions.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from dreamer_async.fast.native import prebuilt
from dreamer_async.fast.native.load import in_words
from dreamer_async.machine import process
from dreamer_async.store.events import RunStarted
from dreamer_async.store.run_dir import RunDir
from tests.tiny_run import AS_OPTIONS, read

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
BESIDE = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
ALONE = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"} | {"PATH": BESIDE}
"""Nothing that is called finds this tree."""
MANYLINUX = r"-py3-none-manylinux_2_\d+_x86_64(\.manylinux\w+_x86_64)*\.whl$"


def call(*words: str | Path, here: Path, **variables: str) -> str:
    """What a command prints that must succeed."""
    done = subprocess.run(
        list(map(str, words)),
        cwd=here,
        env={**ALONE, **variables},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, (words, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


def tool(name: str) -> str:
    """A program that only these tests need."""
    found = shutil.which(name, path=BESIDE)
    if found is None:
        pytest.skip(f"there is no {name} here (pip install -e '.[dev,wheels]')")
    return found


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a release consists of; DIST names a folder that has it already."""
    if given := os.environ.get("DIST"):
        return Path(given).resolve()
    for name in ("just", "auditwheel", "patchelf"):
        tool(name)
    folder = tmp_path_factory.mktemp("dist")
    call(tool("just"), "wheels", folder, here=ROOT)
    return folder


@pytest.fixture
def sdist(dist: Path) -> Path:
    (found,) = dist.glob("*.tar.gz")
    return found


@pytest.fixture
def pure(dist: Path) -> Path:
    """The wheel of Python alone."""
    (found,) = dist.glob("*-py3-none-any.whl")
    return found


@pytest.fixture
def platform_wheel(dist: Path) -> Path:
    """The one with native functions."""
    (found,) = (path for path in dist.glob("*.whl") if re.search(MANYLINUX, path.name))
    return found


def install(package: Path, folder: Path) -> Path:
    """Where the programs are of a fresh environment that pip has installed a package in."""
    venv = folder / "venv"
    call(sys.executable, "-m", "venv", venv, here=folder)
    python = venv / "bin" / "python"
    call(python, "-m", "pip", "install", "--no-deps", package, here=folder)
    (site,) = venv.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "seen.pth").write_text(
        "\n".join(seen)
    )  # as paths: links in them would lead to this tree
    where = "import dreamer_async as d, dreamer_async.envs as e; print(d.__file__, e.__file__)"
    printed = call(python, "-c", where, here=folder).split()
    assert all(str(venv) in path for path in printed), printed
    return python.parent


def train(programs: Path, folder: Path, **variables: str) -> RunStarted:
    """Train a little; how the run began."""
    words = "train", "toy", "--size", "tiny", "--device", "cpu", "--plain", "--steps", "40"
    call(programs / "dreamer-async", *words, *AS_OPTIONS, here=folder, **variables)
    (run,) = (folder / "runs").iterdir()
    (started,) = (event for event in read(RunDir(run)) if isinstance(event, RunStarted))
    return started


def without_compiler(folder: Path) -> dict[str, str]:
    """Variables of an environment in which nothing can be built, and nothing was."""
    for name in ("nothing", "cache"):
        (folder / name).mkdir()
    return {"PATH": str(folder / "nothing"), "CXX": "", "XDG_CACHE_HOME": str(folder / "cache")}


def test_the_source_distribution_has_what_an_installation_needs_and_no_more(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    names = {member.name.partition("/")[2] for member in members if not member.isdir()}
    assert not [member.name for member in members if member.issym() or member.islnk()]
    alone = {name for name in names if not name.startswith("dreamer_async/")}
    assert alone == {
        *("LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff"),
        *("pyproject.toml", "hatch_build.py", ".gitignore", "PKG-INFO"),
    }
    for name in ("envs/suites/toy.py", "tui/app.py", "fast/native/src/structs.h", "py.typed"):
        assert f"dreamer_async/{name}" in names, name
    assert sdist.stat().st_size < 2e6


def test_a_wheel_has_the_libraries_and_nothing_else_more(pure: Path, platform_wheel: Path) -> None:
    with zipfile.ZipFile(pure) as one, zipfile.ZipFile(platform_wheel) as other:  # has folders, too
        own, more = (
            {name for name in archive.namelist() if not re.search(r"\.dist-info/|/$", name)}
            for archive in (one, other)
        )
    at = "dreamer_async/fast/native/prebuilt"
    assert own < more
    assert more - own == {f"{at}/{prebuilt.file_name(level)}" for level in prebuilt.LEVELS}


def test_a_library_needs_nothing_that_a_linux_lacks(platform_wheel: Path, tmp_path: Path) -> None:
    words = "show", "--disable-isa-ext-check", platform_wheel  # a start looks at the processor
    said = call(tool("auditwheel"), *words, here=tmp_path)
    assert re.search(r"the\s+following\s+platform\s+tag:\s+\"manylinux_2_\d+", said)
    with zipfile.ZipFile(platform_wheel) as archive:
        libraries = [archive.extract(n, tmp_path) for n in archive.namelist() if n.endswith(".so")]
    for library in libraries:
        dynamic = call(tool("readelf"), "-d", library, here=tmp_path)
        needed = set(re.findall(r"NEEDED.*\[(.*?)\]", dynamic))
        assert needed <= {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "libpthread.so.0"}


@pytest.mark.parametrize("kind", ["sdist", "pure"])
def test_pip_installs_the_source_and_the_wheel_of_python_alone(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """Where there is no compiler PyTorch computes, and the run says so."""
    programs = install(request.getfixturevalue(kind), tmp_path)
    assert "toy" in call(programs / "dreamer-async", "envs", here=tmp_path)
    assert train(programs, tmp_path, **without_compiler(tmp_path)).native == ""


def test_the_platform_wheel_computes_natively_without_a_compiler(
    platform_wheel: Path, tmp_path: Path
) -> None:
    levels = prebuilt.levels(process.processor_flags())
    if not levels:
        pytest.skip("this processor is older than x86-64-v3")
    programs, variables = install(platform_wheel, tmp_path), without_compiler(tmp_path)
    started = train(programs, tmp_path, **variables)
    assert f"{started.native}.so" == prebuilt.file_name(levels[0])
    assert in_words(started.native) == f"prebuilt for {levels[0]}"
    assert not list((tmp_path / "cache").rglob("*.so")), "nothing was built"
    found = json.loads(
        call(programs / "dreamer-async", "doctor", "--json", here=tmp_path, **variables)
    )
    (native,) = (finding for finding in found if finding["name"] == "native")
    assert (native["status"], levels[0] in native["detail"]) == ("ok", True)


def held(folder: Path) -> dict[str, str]:
    """Variables that hold uv to the versions that are here, and to where pip found them."""
    versions = {d.name: d.version for d in importlib.metadata.distributions()}
    versions.pop("dreamer-async", None)
    lines = [f"{name}=={version}" for name, version in sorted(versions.items())]
    (folder / "versions.txt").write_text("\n".join(lines))
    links = os.environ.get("PIP_FIND_LINKS")
    places = {"UV_FIND_LINKS": links} if links else {}
    tools = {name: str(folder / name.lower()) for name in ("UV_TOOL_DIR", "UV_TOOL_BIN_DIR")}
    return {"UV_CONSTRAINT": str(folder / "versions.txt"), **places, **tools}


def uv(*words: str | Path, here: Path) -> str:
    """What uv, or the command that it runs, prints; skips where this PyTorch cannot be had."""
    try:
        return call(*words, here=here, UV_PYTHON=sys.executable, **held(here))
    except AssertionError as error:
        if re.search(r"no version of torch|torch==\S+ (was|has) no", str(error)):
            pytest.skip(f"no index here has torch {importlib.metadata.version('torch')}")
        raise


def test_uv_installs_it_as_a_tool(platform_wheel: Path, tmp_path: Path) -> None:
    uv(tool("uv"), "tool", "install", platform_wheel, here=tmp_path)
    programs = tmp_path / "uv_tool_bin_dir"
    assert {path.name for path in programs.iterdir()} == {"dreamer-async"}
    assert train(programs, tmp_path).steps == 40


def test_uvx_runs_it(platform_wheel: Path, tmp_path: Path) -> None:
    printed = uv(tool("uvx"), "--from", platform_wheel, "dreamer-async", "--help", here=tmp_path)
    assert "Usage: dreamer-async" in printed
