"""Code blocks of README and docs work as they are pasted.

Python is run, block by block; one that begins with the name of a file is that file, too. Of shell
lines the words of our own command are parsed, with every option, setting, suite, task and size in
them, since a run of days cannot be started here; a short one is there in place of the one that a
page trains.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_run import TINY

from dreamer_async.cli import commands, inputs
from dreamer_async.config import resolve, to_dict
from dreamer_async.envs.suites.gym import ALLOWED
from dreamer_async.run import pipeline
from dreamer_async.store.run_dir import RunDir

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OWN = re.compile(r"(?:\.venv/bin/)?dreamer-async")
"""How a shell line calls our command."""
TRAINED = {"README": "CartPole-v1", "tutorial": "my_env:Room"}
"""The task of the run that the Python of a page loads as `last`."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def shell_lines(page: Path) -> Iterator[str]:
    for block in blocks(page, "sh"):
        yield from block.replace("\\\n", " ").splitlines()


def own_commands(line: str) -> Iterator[list[str]]:
    """Words of each call of our command in a shell line, variables left out."""
    for part in re.split(r"&&|\|\||;|\|", line):
        words = [word for word in shlex.split(part, comments=True) if not word.startswith("$")]
        if words and OWN.fullmatch(words[0]):
            yield words[1:]


COMMANDS = [
    pytest.param(page, words, id=f"{page.stem}: {' '.join(words)}")
    for page in PAGES
    for line in shell_lines(page)
    for words in own_commands(line)
]
PYTHON = [pytest.param(page, id=page.stem) for page in PAGES if blocks(page, "python")]


def parsed(words: list[str]) -> dict[str, Any]:
    """What the words give to the function of their command; raises for words that fit none."""
    command = commands.parser()
    while words and hasattr(command, "commands"):
        command = command.commands[words[0]]
        words = words[1:]
    # What a context learns of help, the command keeps, and the parser is everybody's.
    context = command.make_context(command.name, list(words), **commands.parser().context_settings)
    return context.params


def check(words: list[str]) -> None:
    """Raise unless a call of our command would begin its work."""
    given = parsed(words)
    if words[0] in ("train", "plan"):
        flags = {"env.num_envs": given["num_envs"], "train.train_ratio": given["ratio"]}
        inputs.configure(given["suite"], given["task"], given["size"], flags, given["overrides"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory of a reader, who can import what lies there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(ALLOWED, "")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write_files(page: Path, folder: Path) -> None:
    """Write the blocks that are files."""
    for block in blocks(page, "python"):
        if name := re.match(r"# (\w+\.py)\n", block):
            (folder / name[1]).write_text(block)


def write_run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for a moment what the page says."""
    task = TRAINED.get(page.stem, "CartPole-v1")
    config = resolve("gym", task, size="tiny", overrides=(*TINY, "train.steps=60"))
    run = RunDir.create(folder / "runs", "docs", config=to_dict(config))
    with monkeypatch.context() as patch:
        patch.setenv(ALLOWED, task)
        assert pipeline.main(run, plain=False, resume=False) == 0


@pytest.mark.parametrize(("page", "words"), COMMANDS)
def test_a_command_of_the_docs_is_one_of_ours(page: Path, words: list[str], folder: Path) -> None:
    write_files(page, folder)
    check(words)


def test_what_the_python_of_a_page_loads_is_what_it_trains() -> None:
    for name, task in TRAINED.items():
        [page] = [page for page in PAGES if page.stem == name]
        assert f"train {task}" in page.read_text()


@pytest.mark.parametrize(
    "line",
    [
        "dreamer-async trian toy",
        "dreamer-async train toy --no-such-flag",
        "cd x && dreamer-async train toy -s optim.learning=1",
        "dreamer-async train classic --task CartPole-v999",
        "dreamer-async train toy --size size7m",
    ],
)
def test_what_is_none_would_be_found(line: str) -> None:
    [words] = own_commands(line)
    with pytest.raises(Exception, match=r".") as error:
        check(words)
    assert not isinstance(error.value, AssertionError)


@pytest.mark.parametrize("page", PYTHON)
def test_python_of_the_docs_runs(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(page, folder)
    write_run(page, folder, monkeypatch)
    names: dict[str, Any] = {"__name__": "docs"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)
