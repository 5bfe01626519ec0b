"""The page of the Python interface is what the code says, and leaves nothing out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import dreamer_async
from dreamer_async.cli import api

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def test_the_page_is_made_from_the_code() -> None:
    assert PAGE.read_text() == api.markdown(), "run `just docs`"


def test_every_public_name_and_what_it_returns_is_explained() -> None:
    sections = set(re.findall(r"^##+ (.*)$", api.markdown(), re.MULTILINE))
    names = {f"dreamer_async.{name}" for name in dreamer_async.__all__ if name != "__version__"}
    assert sections >= names | {"SavedAgent", "SavedAgent.act", "Evaluation", "PolicyCarry"}
    assert not any("._" in section for section in sections)


class Made:
    """What is made."""

    def __init__(self, number: int) -> None:
        try:
            self.number: int = number
            """Which one."""
        finally:
            self._hidden = 1
            """Nobody's business."""

    def more(self, *others: int, last: bool = False) -> Made:
        """Make more."""
        raise NotImplementedError

    def undocumented(self) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Unrelated:
    """Returned by nobody."""


def make(number: int = 1) -> tuple[Made, Path]:
    """Make one."""
    raise NotImplementedError


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is this file."""
    monkeypatch.setattr(api, "PACKAGE", __name__.partition(".")[0])
    monkeypatch.setattr(api, "public", lambda: [make])


@pytest.mark.usefixtures("offered")
def test_classes_are_read_from_their_source() -> None:
    page = api.markdown()
    assert "\n## Made\n\nWhat is made.\n\n* `number: int`: Which one.\n" in page
    assert "more(*others: int, last: bool = False) -> Made\n```\n\nMake more." in page
    assert "make(number: int = 1) -> tuple[Made, Path]" in page
    assert "_hidden" not in page and "Path\n\n" not in page and "Unrelated" not in page


@pytest.mark.usefixtures("offered")
def test_what_has_no_docstring_is_found() -> None:
    assert api.unexplained(api.public()) == ["Made.undocumented"]


def test_all_that_is_public_has_a_docstring() -> None:
    assert api.unexplained(api.public()) == []
