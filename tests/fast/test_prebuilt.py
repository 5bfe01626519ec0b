"""Native functions that came with a wheel: which are loaded, and what happens without them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamer_async.fast.native import build, prebuilt
from dreamer_async.fast.native.load import Native, in_words, load
from dreamer_async.machine import compiler, process

V3 = sorted(prebuilt.LEVELS["x86-64-v3"])
V4 = sorted(prebuilt.LEVELS["x86-64-v4"])
OLD = ["fpu", "sse", "sse4_2", "avx", "xsave"]
"""Of an Ivy Bridge, about."""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Where a wheel would have put them: empty, on a machine without compiler, and none loaded."""
    monkeypatch.setattr(prebuilt, "FOLDER", tmp_path)
    monkeypatch.setattr(process, "processor_flags", lambda: frozenset([*OLD, *V4]))
    monkeypatch.setenv("CXX", "/nowhere/g++")
    load.cache_clear()
    yield tmp_path
    load.cache_clear()


@pytest.fixture
def library() -> Path:
    """One that loads here, since it was built here."""
    found = compiler.find()
    assert found is not None
    return build.built(found)


@pytest.mark.parametrize(
    ("flags", "levels"),
    [
        ([*OLD, *V3, *V4, "amx_tile"], ["x86-64-v4", "x86-64-v3"]),
        ([*OLD, *V3], ["x86-64-v3"]),
        ([*OLD, *V3, "avx512f"], ["x86-64-v3"]),
        (OLD, []),
        ([], []),
        *((sorted({*V4} - {one}), []) for one in V3),
        *((sorted({*V4} - {one}), ["x86-64-v3"]) for one in sorted({*V4} - {*V3})),
    ],
)
def test_a_processor_gets_only_what_it_can_run_and_the_best_first(
    folder: Path, flags: list[str], levels: list[str]
) -> None:
    assert prebuilt.levels(flags) == levels
    assert prebuilt.find(flags) is None
    for level in prebuilt.LEVELS:
        (folder / prebuilt.file_name(level)).touch()
    best = folder / prebuilt.file_name(levels[0]) if levels else None
    assert prebuilt.find(flags) == best


def test_where_the_best_is_not_there_the_next_one_is_taken(folder: Path) -> None:
    (folder / prebuilt.file_name("x86-64-v3")).touch()
    assert prebuilt.find(V4) == folder / prebuilt.file_name("x86-64-v3")


@pytest.mark.parametrize("changed", ["source", "header", "flags"])
def test_a_library_of_other_sources_is_never_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    (folder / prebuilt.file_name("x86-64-v4")).touch()
    sources = tmp_path / "src"
    shutil.copytree(build.FOLDER, sources)
    monkeypatch.setattr(build, "FOLDER", sources)
    assert prebuilt.find(V4), "control: the same sources elsewhere"
    if changed == "flags":
        monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-O1"))
    else:
        file = next(sources.rglob("*.cpp" if changed == "source" else "*.h"))
        file.write_text(f"{file.read_text()}\n")
    assert prebuilt.find(V4) is None
    assert "no C++ compiler" in load().problem


def test_one_that_came_with_the_wheel_needs_no_compiler_and_is_named(
    library: Path, folder: Path
) -> None:
    ready = folder / prebuilt.file_name("x86-64-v4")
    shutil.copy(library, ready)
    found = load()
    assert found.library is not None and found.library._name == str(ready)
    assert found[1:] == ("", ready.stem)
    assert in_words(found.name) == "prebuilt for x86-64-v4"


def test_one_that_does_not_load_is_replaced_by_one_that_is_built_or_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for level in prebuilt.LEVELS:
        (folder / prebuilt.file_name(level)).write_bytes(b"\x7fELF")
    broken = folder / prebuilt.file_name("x86-64-v4")
    found = load()
    assert found.library is None and "no C++ compiler" in found.problem
    assert f"prebuilt library cannot be loaded: {broken}" in found.problem
    assert broken.exists(), "what pip installed is pip's"
    monkeypatch.undo()
    monkeypatch.setattr(prebuilt, "FOLDER", folder)
    load.cache_clear()
    found = load()
    assert found.library is not None and in_words(found.name) == "built for this processor"


def test_without_any_this_is_said(folder: Path) -> None:
    assert load() == Native(None, compiler.missing())
