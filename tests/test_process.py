"""What a training process sets up: what torch reads, where compiled kernels may come from."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dreamer_async import process
from dreamer_async.config import resolve, to_dict


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_private_directory_is_made_or_closed(tmp_path: Path) -> None:
    new, open_to_all = tmp_path / "a" / "new", tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    for path in (new, open_to_all):
        assert process.make_private(path)
        assert mode(path) == 0o700


def test_what_cannot_be_private_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, link, file = tmp_path / "target", tmp_path / "link", tmp_path / "file"
    target.mkdir(mode=0o755)
    link.symlink_to(target)
    file.touch()
    assert not process.make_private(link)
    assert not process.make_private(file)
    assert not process.make_private(file / "below")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert not process.make_private(target), "it belongs to somebody else"
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


def cache_settings(home: Path, temporary: Path) -> tuple[Path, str]:
    """What a fresh process chooses: the cache of kernels, and whether headers are precompiled."""
    code = (
        "import os; from dreamer_async import process; process.isolate_compile_cache();"
        "print(os.environ['TORCHINDUCTOR_CACHE_DIR']);"
        "print(os.environ.get('TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS', '1'))"
    )
    kept = {n: v for n, v in os.environ.items() if not n.startswith("TORCHINDUCTOR")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"XDG_CACHE_HOME": str(home), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=True,
    )
    cache, headers = done.stdout.split()
    return Path(cache), headers


def test_compiled_code_comes_from_directories_of_this_user_alone(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    cache, headers = cache_settings(tmp_path / "home", temporary)
    assert cache == tmp_path / "home" / "dreamer-async" / "inductor"
    assert (mode(cache), mode(cache.parent), headers) == (0o700, 0o700, "1")


def test_a_planted_cache_is_not_used(tmp_path: Path) -> None:
    """Links stand for directories of other users, which only root could make here."""
    temporary, planted = tmp_path / "tmp", tmp_path / "planted"
    for path in (temporary, planted, tmp_path / "home"):
        path.mkdir()
    (tmp_path / "home" / "dreamer-async").symlink_to(planted)
    user = process.header_cache().name
    (temporary / user).symlink_to(planted)
    cache, headers = cache_settings(tmp_path / "home", temporary)
    assert cache.parent.parent == temporary and mode(cache.parent) == 0o700
    assert headers == "0"
    assert list(planted.iterdir()) == []


def test_the_header_cache_is_where_torch_puts_it() -> None:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    assert str(process.header_cache()) == default_cache_dir()
