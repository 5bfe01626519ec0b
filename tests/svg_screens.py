"""Screens as SVG, stored small: what a person sees, colours included, and who drew it.

An SVG is written without what changes by itself: its random name and where fonts are loaded from.
It is compared in that form and stored gzipped with the versions of Textual and Rich in a comment,
so that a difference can be told from another way of drawing.
"""

from __future__ import annotations

import difflib
import gzip
import re
from importlib.metadata import version
from pathlib import Path

_ID = re.compile(r"\bterminal-\d+-")
_FONT = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
_TAGS = re.compile(r"(?<=>)(?=<(?:rect|text|g|/g))")
SHOWN = 6
"""Differences that are told."""


def normal(svg: str) -> str:
    """The SVG without what changes by itself, one element a line."""
    return _TAGS.sub("\n", _FONT.sub("", _ID.sub("terminal-", svg)))


def drawn_by() -> str:
    """Who draws here."""
    return f"textual {version('textual')}, rich {version('rich')}"


def store(path: Path, svg: str) -> None:
    """Write a normal SVG, the same bytes for the same screen."""
    path.write_bytes(gzip.compress(f"<!-- {drawn_by()} -->\n{svg}".encode(), 9, mtime=0))


def load(path: Path) -> tuple[str, str]:
    """A stored SVG, and who drew it."""
    head, _, svg = gzip.decompress(path.read_bytes()).decode().partition("\n")
    return svg, head.removeprefix("<!-- ").removesuffix(" -->")


def assert_same(svg: str, path: Path, folder: Path) -> None:
    """Fail with what differs, and with both pictures in a folder to look at."""
    wanted, by = load(path)
    if svg == wanted:
        return
    for name, text in (("wanted", wanted), ("shown", svg)):
        (folder / f"{path.name.partition('.')[0]}-{name}.svg").write_text(text, encoding="utf-8")
    changes = difflib.unified_diff(wanted.split("\n"), svg.split("\n"), "stored", "shown", n=0)
    told = "\n".join([*changes][: 3 * SHOWN])
    here = "" if by == drawn_by() else f"stored by {by}, drawn here by {drawn_by()}; "
    raise AssertionError(f"{path.name}: {here}look at the pictures in {folder}\n{told}")
