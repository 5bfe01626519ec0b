"""What each number means: read from `data/metrics.md`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).parent / "data" / "metrics.md"
_SECTION = re.compile(r"^## (\S+) \(([^)]+)\)\n(.+?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


class Meaning(NamedTuple):
    """What a number is."""

    unit: str
    text: str
    """One paragraph."""


@lru_cache(maxsize=1)
def meanings() -> Mapping[str, Meaning]:
    """All sections by name."""
    text = FILE.read_text(encoding="utf-8")
    return {
        name: Meaning(unit, " ".join(body.split())) for name, unit, body in _SECTION.findall(text)
    }


def find(name: str) -> Meaning | None:
    """What a number means; a family's text stands for those without one of their own."""
    known = meanings()
    family = name.partition("/")[0] + "/*"
    return known.get(name) or known.get(family)
