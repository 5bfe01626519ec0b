"""What environments print reaches us clean, and none of it is lost."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from dreamer_async import cli
from dreamer_async.cli import commands
from dreamer_async.envs import EnvError
from dreamer_async.envs.processes import ProcessEnv, Source
from dreamer_async.envs.suite import Options
from dreamer_async.envs.words import Words

pytestmark = pytest.mark.faults
SOURCE = Source("tests", "shouting", "tests.shouting_env:Shouting")


def play(_: object = None) -> int:
    """Build two of them, and step until they raise."""
    with ProcessEnv(SOURCE, Options(2, 2, 0)) as env:
        env.start()
        rows = env.recv()
        env.send(np.zeros(2, np.int32), rows.env_id)
        env.recv()
    return 0


def test_no_environment_moves_the_cursor(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "run", play)
    assert cli.main(["train"]) == 69
    out, err = capfd.readouterr()
    assert out == "" and "\x1b" not in err and "\x07" not in err
    for words in ("built", "warned", "deep", "unfinished"):
        assert err.count(f"[2J]0;x{words}") == 2, err
    assert "ArithmeticError: [2J]0;xfell" in err


def test_outside_a_command_words_pass_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EnvError, match="fell"):
        play()
    assert capfd.readouterr().err.count("\x1b[2J\x1b]0;x\x07built") == 2


def test_words_end_with_their_writers_and_leave_nothing_open() -> None:
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        words = Words()
        os.write(words.fd, b"x" * 100_000 + b"\n")
        words.close()
        words.close()
    assert len(os.listdir("/proc/self/fd")) == files
    assert threading.active_count() == threads
