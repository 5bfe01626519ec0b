"""What a training process sets up: what torch reads, where compiled kernels may come from."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamer_async.config import resolve, to_dict
from dreamer_async.machine import compile_cache, process
from dreamer_async.store.directory import make_private


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


AT_IMPORT_OF_TORCH = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print({n: v for n, v in os.environ.items() if n.endswith("_ALLOC_CONF")})
            sys.stdout.flush()
            os._exit(0)

sys.meta_path.insert(0, Watch())
"""
GROWING = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}


@pytest.mark.parametrize(
    "start",
    [
        "from dreamer_async.cli import main; main(['doctor'])",
        "from dreamer_async.cli import main; main(['trainer', 'nowhere'])",
        "from dreamer_async.cli import main; main(['bench', 'replay', '--suite', 'toy'])",
        "import runpy; runpy.run_module('dreamer_async.bench', run_name='__main__')",
    ],
    ids=["doctor", "trainer", "bench", "bench apart"],
)
def test_torch_finds_its_gpu_allocator_set_when_it_is_imported(start: str) -> None:
    assert allocator_settings(start, {}) == GROWING


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
@pytest.mark.parametrize("value", ["max_split_size_mb:128", ""])
def test_settings_of_the_user_for_the_allocator_stay(name: str, value: str) -> None:
    start = "from dreamer_async.cli import main; main(['doctor'])"
    assert allocator_settings(start, {name: value}) == {name: value}


def allocator_settings(start: str, given: dict[str, str]) -> dict[str, str]:
    """Settings of the allocator at the moment at which this code first imports torch."""
    kept = {n: v for n, v in os.environ.items() if not n.endswith("_ALLOC_CONF")}
    config = to_dict(resolve("toy", "catch", size="tiny"))
    done = subprocess.run(
        [sys.executable, "-c", AT_IMPORT_OF_TORCH + start],
        env=kept | given,
        input=json.dumps({"config": config, "part": "learner", "seconds": 1}),
        capture_output=True,
        text=True,
        check=True,
    )
    return ast.literal_eval(done.stdout.splitlines()[-1])


def cache_settings(
    home: Path, temporary: Path, given: Path | None = None, before: str = ""
) -> tuple[Path, str, int, str]:
    """What a fresh process chooses: the cache of kernels, and whether headers are precompiled.

    Then the mode of the directory above the cache, and what was said.
    """
    code = (
        f"{before}\n"
        "import os; from dreamer_async.machine import compile_cache;"
        "compile_cache.isolate_compile_cache();"
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


@pytest.mark.parametrize(
    "before", ["", "from torch._inductor.runtime.cache_dir_utils import cache_dir; cache_dir()"]
)
def test_torch_does_not_choose_where_compiled_code_is_kept(tmp_path: Path, before: str) -> None:
    """Importing some modules of torch sets the variable that a user would set."""
    temporary, home = tmp_path / "tmp", tmp_path / "home"
    temporary.mkdir()
    cache, _, _, said = cache_settings(home, temporary, before=before)
    assert (cache, said) == (home / "dreamer-async" / "inductor", "")
    home.rename(tmp_path / "other")
    home.touch()
    cache, _, _, said = cache_settings(home, temporary, before=before)
    assert cache.parent.parent == temporary and cache.parent.name.startswith("dreamer-async-cache-")
    assert "warning: compiled code cannot be kept, every start builds it again" in said


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
    code = (
        "import sys, os; from pathlib import Path; from dreamer_async.machine import compile_cache;"
    )
    code += "compile_cache.scratch(Path(sys.argv[1]), 'x-'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (tmp_path / "x-link").symlink_to(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    compile_cache.sweep(tmp_path, "x-")
    assert set(tmp_path.iterdir()) == {mine, tmp_path / "x-link"}


def test_the_header_cache_is_where_torch_puts_it() -> None:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    assert str(compile_cache.header_cache()) == default_cache_dir()


def test_a_thread_gives_way_alone() -> None:
    """Neither the process nor any other thread becomes less important."""
    seen: list[int] = []

    def work() -> None:
        process.give_way()
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [min(19, before + process.WAY)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
