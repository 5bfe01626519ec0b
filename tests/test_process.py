"""What a training process sets up: where compiled kernels may come from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dreamer_async import process


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
