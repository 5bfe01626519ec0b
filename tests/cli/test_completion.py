"""What a shell offers, asked as the shells ask, and by bash itself with the installed script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamer_async import cli
from dreamer_async.config import resolve, to_dict
from dreamer_async.machine.interpreter import command
from dreamer_async.store.run_dir import RunDir


@pytest.fixture
def offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[str], list[str]]:
    """What bash is offered for the last word of a line, in a directory."""
    monkeypatch.chdir(tmp_path)

    def ask(line: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        monkeypatch.setenv("_DREAMER_ASYNC_COMPLETE", "complete_bash")
        with pytest.raises(SystemExit) as ended:
            cli.main([])
        out, err = capfd.readouterr()
        assert not ended.value.code and err == ""
        return out.split()

    return ask


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tr", ["train"]),
        ("train at", ["atari", "atari100k"]),
        ("train atari/po", ["atari/pong", "atari/pooyan"]),
        ("train CartPole-v", ["CartPole-v0", "CartPole-v1"]),
        ("train toy --task ca", ["catch", "catch_pixels"]),
        ("train gym --task CartPole-v", ["CartPole-v0", "CartPole-v1"]),
        ("train toy --size size1", ["size1m", "size12m", "size100m"]),
        ("train toy -s optim.l", ["optim.lr="]),
        ("train toy -s lr", ["lr="]),
        ("train toy -s batch_s", []),  # of two parts
        ("bench --suite cr", ["crafter"]),
        ("bench po", ["policy"]),
        ("resume la", ["last"]),
        ("watch 2", ["20260101-000000-one"]),
        ("resume --runs-dir elsewhere 2", []),
        ("resume --runs-dir file 2", []),
        ("runs rm 2", ["20260101-000000-one"]),
        ("runs --runs-dir elsewhere rm 2", []),
        ("train nothing", []),
    ],
)
def test_a_word_is_completed(
    offered: Callable[[str], list[str]], tmp_path: Path, line: str, words: list[str]
) -> None:
    config = to_dict(resolve("toy", "catch"))
    RunDir.create(tmp_path / "runs", "one", config=config, now=lambda: 1767225600.0)
    (tmp_path / "file").touch()
    assert offered(f"dreamer-async {line}") == words


def test_completing_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from dreamer_async.cli import completion\n"
        "completion.suites('atari/p'), completion.suites('CartP'), completion.settings('t')\n"
        "print([name for name in ('torch', 'envpool', 'textual') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_with_what_install_completion_installs(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "dreamer-async"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {" ".join(command("dreamer_async"))} "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    home = os.environ | {"HOME": str(tmp_path), "PATH": path}
    line = "dreamer-async train atar"
    script = (
        "dreamer-async --install-completion bash >/dev/null && source ~/.bashrc && "
        f"COMP_WORDS=({line}); COMP_CWORD=2; COMP_LINE='{line}'; COMP_POINT={len(line)}; "
        "$(complete -p dreamer-async | sed 's/.*-F \\([^ ]*\\).*/\\1/') dreamer-async atar train; "
        'echo "${COMPREPLY[*]}"'
    )
    bash = ["bash", "--noprofile", "--norc", "-c", script]
    done = subprocess.run(bash, env=home, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["atari", "atari100k"], done.stderr
