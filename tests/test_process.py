"""What a training process sets up: where compiled kernels may come from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dreamer_async import compile_cache
from dreamer_async.run_dir import make_private


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_private_directory_is_made_or_closed(tmp_path: Path) -> None:
    new, open_to_all = tmp_path / "a" / "new", tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    for path in (new, open_to_all):
        assert make_private(path)
        assert mode(path) == 0o700


def test_what_cannot_be_private_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, link, file = tmp_path / "target", tmp_path / "link", tmp_path / "file"
    target.mkdir(mode=0o755)
    link.symlink_to(target)
    file.touch()
    assert not make_private(link)
    assert not make_private(file)
    assert not make_private(file / "below")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert not make_private(target), "it belongs to somebody else"
    assert mode(target) == 0o755, "what is not ours stays as it is"


def cache_settings(
    home: Path, temporary: Path, given: Path | None = None
) -> tuple[Path, str, int, str]:
    """What a fresh process chooses: the cache of kernels, and whether headers are precompiled.

    Then the mode of the directory above the cache, and what was said.
    """
    code = (
        "import os; from dreamer_async import compile_cache; compile_cache.isolate_compile_cache();"
        "print(os.environ['TORCHINDUCTOR_CACHE_DIR']);"
        "print(os.environ.get('TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS', '1'));"
        "print(os.stat(os.environ['TORCHINDUCTOR_CACHE_DIR'] + '/..').st_mode & 0o777)"
    )
    kept = {n: v for n, v in os.environ.items() if not n.startswith("TORCHINDUCTOR")}
    named = {} if given is None else {"TORCHINDUCTOR_CACHE_DIR": str(given)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"XDG_CACHE_HOME": str(home), "TMPDIR": str(temporary)} | named,
        capture_output=True,
        text=True,
        check=True,
    )
    cache, headers, above = done.stdout.split()
    return Path(cache), headers, int(above), done.stderr


def test_compiled_code_comes_from_directories_of_this_user_alone(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    cache, headers, _, said = cache_settings(tmp_path / "home", temporary)
    assert said == "" and cache == tmp_path / "home" / "dreamer-async" / "inductor"
    assert (mode(cache), mode(cache.parent), headers) == (0o700, 0o700, "1")


def test_a_planted_cache_is_not_used(tmp_path: Path) -> None:
    """Links stand for directories of other users, which only root could make here."""
    temporary, planted = tmp_path / "tmp", tmp_path / "planted"
    for path in (temporary, planted, tmp_path / "home"):
        path.mkdir()
    (tmp_path / "home" / "dreamer-async").symlink_to(planted)
    user = compile_cache.header_cache().name
    (temporary / user).symlink_to(planted)
    cache, headers, above, said = cache_settings(tmp_path / "home", temporary)
    assert cache.parent.parent == temporary and above == 0o700
    assert headers == "0"
    assert "home/dreamer-async is a symbolic link" in said and said.count("\n") == 1
    assert list(planted.iterdir()) == []
    assert list(temporary.glob("dreamer-async-*")) == [], "it goes with its process"


def of_others(path: Path) -> None:
    os.chown(path, 12345, 12345)


def inside_of_others(path: Path) -> None:
    os.chown(path.parent, 12345, 12345)


def open_to_others(path: Path) -> None:
    path.chmod(0o777)


def linked(path: Path) -> None:
    path.rename(path.with_name("target"))
    path.symlink_to(path.with_name("target"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories to others")
@pytest.mark.parametrize("plant", [of_others, inside_of_others, open_to_others, linked, None])
def test_a_cache_that_is_named_has_to_be_private_as_well(
    tmp_path: Path, plant: Callable[[Path], None] | None
) -> None:
    temporary, named = tmp_path / "tmp", tmp_path / "above" / "named"
    temporary.mkdir()
    named.mkdir(parents=True)
    if plant is not None:
        plant(named)
    cache, _, _, said = cache_settings(tmp_path / "home", temporary, named)
    assert (cache == named) == (plant is None), said
    assert said.count("\n") == (plant is not None)


def test_directories_of_killed_processes_are_swept_and_no_others(tmp_path: Path) -> None:
    mine = compile_cache.scratch(tmp_path, "x-")
    code = "import sys, os; from pathlib import Path; from dreamer_async import compile_cache;"
    code += "compile_cache.scratch(Path(sys.argv[1]), 'x-'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (tmp_path / "x-link").symlink_to(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    compile_cache.sweep(tmp_path, "x-")
    assert set(tmp_path.iterdir()) == {mine, tmp_path / "x-link"}


def test_the_header_cache_is_where_torch_puts_it() -> None:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    assert str(compile_cache.header_cache()) == default_cache_dir()


CHILD = (
    "from dreamer_async import process; {act}; print('up', flush=True); import time; time.sleep(60)"
)


@pytest.mark.parametrize("act", ["process.die_with_parent()", "None"], ids=["bound", "control"])
def test_a_bound_process_dies_with_the_one_that_started_it(act: str) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            "words = [sys.executable, '-c', sys.argv[1]]\n"
            "child = subprocess.Popen(words, stdout=subprocess.PIPE)\n"
            "child.stdout.readline()\n"
            "print(child.pid, flush=True)\n"
            "child.wait()",
            CHILD.format(act=act),
        ],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    try:
        parent.kill()
        parent.wait()
        parent.stdout.close()
        # Once the child is somebody else's, the kernel has sent the signal that it asked for.
        wait_until(lambda: parent_of(pid) != parent.pid)
        if act == "None":
            assert parent_of(pid) is not None
        else:
            wait_until(lambda: parent_of(pid) is None)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def parent_of(pid: int) -> int | None:
    """The parent of a process; None if it is dead."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(parent)


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
