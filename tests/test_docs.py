"""The documents say what the code does: commands, options, exit codes, events, settings."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dreamer_async.cli.commands import parser
from dreamer_async.config import SIZES, SUITES, resolve
from dreamer_async.store.events import EVENT_TYPES
from dreamer_async.tui.show import glossary, metrics_page

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = parser().commands


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


def unexplained(command: Any, words: str) -> list[str]:
    """Options of a command, and of those below it, that `--help` says nothing about."""
    below = getattr(command, "commands", {}).items()
    found = [
        each for name, c in below if not c.hidden for each in unexplained(c, f"{words} {name}")
    ]
    return found + [f"{words} {p.opts[0]}" for p in command.params if not p.help]


def test_help_explains_every_option() -> None:
    assert unexplained(parser(), "dreamer-async") == []
    hidden = unexplained(COMMANDS["trainer"], "trainer")
    assert hidden == ["trainer path", "trainer --resume"], "the control: nobody types these"


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


PAGES = [str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))]
DOCS = sorted(PAGES)
_CODE = re.compile(r"^```.*?^```|^ {4}.*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    words = (re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings)
    return {re.sub(r"\s", "-", each.strip()) for each in words}


def dead_links(text: str, folder: Path) -> set[str]:
    """Links of a page in a folder that lead to no file, or to no heading of a page."""
    dead = set()
    for link in _LINK.findall(_CODE.sub("", text)):
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        path = folder / file
        there = path.read_text() if path.suffix == ".md" and path.exists() else ""
        if not path.exists() or (anchor and anchor not in anchors(there if file else text)):
            dead.add(link)
    return dead


@pytest.mark.parametrize("file", DOCS)
def test_links_lead_somewhere(file: str) -> None:
    assert dead_links(text_of(file), (ROOT / file).parent) == set()


@pytest.mark.parametrize(
    ("link", "dead"),
    [
        ("cli.md", False),
        ("cli.md#exit-codes", False),
        ("#here-its-1", False),
        ("https://nowhere.invalid", False),
        ("clj.md", True),
        ("learning/", False),
        ("cli.md#exit-code", True),
        ("#there", True),
    ],
)
def test_a_dead_link_is_seen(link: str, dead: bool) -> None:
    text = f"# Here: it's 1\n\n```\n# There\n```\n`[a](b)` [word]({link})\n"
    assert dead_links(text, ROOT / "docs") == ({link} if dead else set())


def test_the_site_has_every_page_once() -> None:
    nav = re.findall(r'= "([\w-]+\.md)"', text_of("zensical.toml"))
    assert sorted(nav) == sorted(path.name for path in ROOT.glob("docs/*.md"))


def test_the_page_of_metrics_is_made_from_what_the_dashboard_shows() -> None:
    assert text_of("docs/metrics.md") == metrics_page.markdown(), "run `just docs`"
    for name, (_, text) in glossary.meanings().items():
        assert f"### `{name}`\n" in text_of("docs/metrics.md") and text in text_of(
            "docs/metrics.md"
        )


def lost_files(text: str, among: set[str]) -> set[str]:
    """Sources that a text names with their folder, or by themselves, and that are nowhere."""
    named = set(re.findall(r"`(?:\.\./)*([\w/]+\.(?:py|cpp|h))`", text))
    return {name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in among)}


@pytest.mark.parametrize("file", DOCS)
def test_files_that_are_named_exist(file: str) -> None:
    folders = ("dreamer_async", "envs", "tui", "tests")
    there = {str(p.relative_to(ROOT)) for name in folders for p in (ROOT / name).rglob("*.*")}
    there |= {path.name for path in ROOT.glob("*.py")}
    text = text_of(file)
    written = set(re.findall(r"^# (\w+\.py)$", text, re.M))  # a block of the page is that file
    assert lost_files(text, there) == written & lost_files(text, there)


def test_a_file_that_was_moved_is_seen() -> None:
    there = {"dreamer_async/fast/cuda/scan.py"}
    assert lost_files("`fast/cuda/scan.py` and `scan.py`", there) == set()
    assert lost_files("`agent/scan.py`", there) == {"agent/scan.py"}


def test_equations_name_what_is_there() -> None:
    """`module.function` and `Class.method` of the agent."""
    agent = {p.stem: p.read_text() for p in (ROOT / "dreamer_async/agent").glob("*.py")}
    table = text_of("docs/equations.md")
    for owner, name in re.findall(r"`(\w+)\.(\w+)`", table):
        if owner in agent:
            assert re.search(rf"^(def|class) {name}\b|^{name}\b", agent[owner], re.M), (owner, name)
        elif owner[0].isupper():
            assert any(
                f"class {owner}" in text and f"def {name}" in text for text in agent.values()
            )


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
