"""A start that takes long says what it does; a quick one says nothing."""

from __future__ import annotations

import time

import pytest

from dreamer_async.run.slow_step import slow_step


def test_only_a_step_that_takes_long_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with slow_step("a quick step", 60.0):
        pass
    with slow_step("a slow step", 0.0):
        time.sleep(0.5)
    assert capsys.readouterr().err == "a slow step ...\n"
