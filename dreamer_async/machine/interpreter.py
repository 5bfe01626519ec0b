"""Starting Python again: with our packages, and with nothing that merely lies beside the user."""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

SAFE = "-P"
"""Keeps the working directory out of `sys.path`: a json.py in it would run in place of Python's."""


def python(*words: str | Path) -> list[str]:
    """Command line for this interpreter that no folder of the user can shadow."""
    return [sys.executable, SAFE, *map(str, words)]


def command(module: str, *words: str | Path) -> list[str]:
    """Command line for one of our modules."""
    return python("-m", module, *words)


def package_root() -> Path:
    """Folder that this installation was imported from."""
    return Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """Environment for our own processes: they find the same packages as this one."""
    result = os.environ | {"PYTHONUNBUFFERED": "1"}
    root = str(package_root())
    if root not in (*site.getsitepackages(), site.getusersitepackages()):
        result["PYTHONPATH"] = os.pathsep.join(filter(None, [root, result.get("PYTHONPATH")]))
    return result
