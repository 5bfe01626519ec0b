"""A start that takes long says what it does; a quick one says nothing."""

from __future__ import annotations

import threading

import pytest

from dreamer_async.run import slow_step as module
from dreamer_async.run.slow_step import slow_step


def test_only_a_step_that_takes_long_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said, say = threading.Event(), module._say

    def then_tell(what: str) -> None:
        say(what)
        said.set()

    monkeypatch.setattr(module, "_say", then_tell)
    with slow_step("a quick step", 60.0):
        pass
    with slow_step("a slow step", 0.0):
        assert said.wait(60)
    assert capsys.readouterr().err == "a slow step ...\n"
