"""The list of settings is whole, and the page of the docs is what the code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamer_async.cli import main
from dreamer_async.config import known_settings, manual, parse_overrides

DOCS = Path(__file__).resolve().parents[2] / "docs"
OURS = {
    "replay.capacity": "as many as make sense on this disk",
}
"""Settings whose default is not the paper's value, and what it is instead."""


def test_every_setting_is_explained() -> None:
    assert {s.name for s in manual.manual()} == set(known_settings())
    assert [s.name for s in manual.manual() if len(s.about) < 10 or not s.about.endswith(".")] == []


def test_defaults_can_be_typed_as_they_are_shown() -> None:
    for setting in manual.manual():
        if setting.name in ("env.suite", "env.task"):  # which words of their own set
            continue
        value = parse_overrides([f"{setting.name}={manual.shown(setting.default)}"])
        assert value == {setting.name: setting.default}


def test_defaults_are_the_papers_where_nothing_else_is_said() -> None:
    defaults = {setting.name: setting.default for setting in manual.manual()}
    differ = {name for name, value in manual.PAPER.items() if defaults[name] != value}
    assert differ == set(OURS)


def test_the_page_is_made_from_the_code() -> None:
    assert (DOCS / "settings.md").read_text() == manual.markdown(), "run `just docs`"


def test_the_command_searches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "Learning rate"]) == 0
    assert "optim.lr=4e-05" in capsys.readouterr().out
    assert main(["settings", "free_nats", "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["name"], found["default"]) == ("loss.free_nats", 1.0)
    assert main(["settings", "nothing like it"]) == 2
    assert "no setting has" in capsys.readouterr().err
