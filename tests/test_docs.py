"""The documents say what the code does: commands, options, exit codes, events, settings."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import typer.main

from dreamer_async.cli.commands import app
from dreamer_async.config import SIZES, SUITES, resolve
from dreamer_async.store.events import EVENT_TYPES

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_every_event_and_field_is_documented(name: str) -> None:
    pattern = rf"^\*\*{name}\*\*(.*?)(?=^\*\*|^## )"
    section = re.search(pattern, text_of("docs/events.md"), re.MULTILINE | re.DOTALL)
    assert section is not None
    documented = set(re.findall(r"`(\w+)`", section[1]))
    assert {f.name for f in fields(EVENT_TYPES[name])} == documented


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if not c.hidden])
def test_every_command_is_documented(name: str) -> None:
    assert f"dreamer-async {name}" in text_of("docs/cli.md")


def test_every_option_of_train_is_documented() -> None:
    for parameter in COMMANDS["train"].params:
        if parameter.name != "suite":
            assert f"`{parameter.opts[-1]}" in text_of("docs/cli.md")


def test_the_readme_names_the_suites_and_has_both_commands_on_one_line_each() -> None:
    readme = text_of("README.md")
    assert all(suite in readme for suite in SUITES)
    for name, end in (("run", "train atari"), ("test", "just test")):
        command = readme.split(f"<!-- {name} command -->\n```sh\n")[1].split("\n```")[0]
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -e ")
        assert command.endswith(end)
        assert "\n" not in command


@pytest.mark.parametrize("file", ["README.md", *sorted(p.name for p in ROOT.glob("docs/*.md"))])
def test_links_lead_somewhere(file: str) -> None:
    path = next(p for p in (ROOT / file, ROOT / "docs" / file) if p.exists())
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_examples_of_settings_are_settings() -> None:
    for setting in re.findall(r"`-s ([\w.]+=[\w.]+)`", text_of("docs/cli.md")):
        if setting != "key=value":
            resolve("atari", "pong", overrides=[setting])
    assert all(size in text_of("docs/cli.md") for size in ("tiny", "size1m", "size400m"))
    assert set(re.findall(r"size\d+m", text_of("docs/cli.md"))) <= set(SIZES)


def test_every_setting_of_the_simulated_card_is_documented() -> None:
    stubs = "".join(path.read_text() for path in ROOT.glob("tests/gpu_sim/stubs/*.[chp]*"))
    documented = set(re.findall(r"^\| `(FAKE_\w+)`", text_of("docs/gpu.md"), re.MULTILINE))
    assert set(re.findall(r"FAKE_[A-Z_]+", stubs)) == documented


def test_budgets_are_of_updates_that_exist() -> None:
    budgets = tomllib.loads(text_of("tests/gpu_sim/budgets.toml"))
    assert all(set(row) == {"task", "nodes", "held", "taken", "card"} for row in budgets.values())
    for row in budgets.values():
        suite, task, size, *settings = row["task"]
        resolve(suite, task, size=size, overrides=settings)
