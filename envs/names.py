"""Task names: tolerant spelling, one canonical form, and the nearest matches on a mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class UnknownTask(ValueError):
    """No suite or task has this name; the message is one line and names the nearest matches."""


def squash(name: str) -> str:
    """Reduce a spelling to what matters: MsPacman, ms-pacman and ms_pacman are one name."""
    return "".join(character for character in name.lower() if character.isalnum())


def find(kind: str, name: str, spellings: Mapping[str, str]) -> str:
    """Return the canonical form of `name`; `spellings` maps squashed names to canonical ones."""
    canonical = spellings.get(squash(name))
    if canonical is None:
        raise UnknownTask(describe(kind, name, nearest(name, spellings), spellings.values()))
    return canonical


def nearest(name: str, spellings: Mapping[str, str], count: int = 3) -> list[str]:
    """Canonical names whose spelling is close to `name`, the closest first."""
    wanted = squash(name)
    close = difflib.get_close_matches(wanted, spellings, n=4 * count, cutoff=0.6)
    inside = [key for key in spellings if len(wanted) >= 3 and (wanted in key or key in wanted)]
    return list(dict.fromkeys(spellings[key] for key in close + inside))[:count]


def describe(kind: str, name: str, close: Iterable[str], known: Iterable[str]) -> str:
    """Say in one line that there is no such name and what there is instead."""
    close = list(close)
    if close:
        return f"unknown {kind} {name!r}; did you mean {' or '.join(close)}?"
    names = list(dict.fromkeys(known))
    more = f", ... ({len(names)} in all)" if len(names) > 8 else ""
    there = "there is only" if len(names) == 1 else "there are"
    return f"unknown {kind} {name!r}; {there} {', '.join(names[:8])}{more}"
