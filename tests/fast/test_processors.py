"""Native functions for other processors and compilers than those of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dreamer_async.fast.native import build
from dreamer_async.fast.native.load import load
from dreamer_async.machine.process import processor_flags

TESTS = Path(__file__).parents[1]
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-psabi")
"""Not of vectors as arguments of functions that are all inlined."""
PROCESSORS = ("x86-64", "skylake-avx512")


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_compilers_find_nothing_to_warn_about(compiler: str, processor: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    if os.uname().machine != "x86_64":
        pytest.skip("this is another family of processors")
    command = [compiler, *build.FLAGS, *WARNINGS, f"-march={processor}", "-fsyntax-only"]

    def complaints(source: Path) -> str:
        return subprocess.run([*command, str(source)], capture_output=True, text=True).stderr

    sources = sorted(build.FOLDER.rglob("*.cpp"))
    assert sources
    with ThreadPoolExecutor() as pool:
        assert not [said[:2000] for said in pool.map(complaints, sources) if said]


def test_panels_are_two_vectors_wide() -> None:
    library, problem, _ = load()
    assert library is not None, problem
    wide = "-DSIXTEEN_LANES" in build.FLAGS or "avx512f" in processor_flags()
    assert library.panel_width() == 2 * (16 if wide else 8)


def test_vectors_of_sixteen_lanes_compute_the_same() -> None:
    """What AVX-512 brings (wider vectors, panels and tiles of rows), on whatever processor this is.

    All tests of native functions run once more, with a build that has it.
    """
    environment = {**os.environ, "KERNEL_FLAGS": "-DSIXTEEN_LANES -O1"}
    tests = ("fast/test_processors.py::test_panels_are_two_vectors_wide", "fast/test_kernels.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *(str(TESTS / name) for name in (*tests, "fast/test_images.py"))],
        env=environment, cwd=TESTS.parent, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
