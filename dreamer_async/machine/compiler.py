"""What `torch.compile` needs from the machine besides torch itself."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from dreamer_async.config.schema import shown


def _lacking(named: str | None) -> str:
    """Say that there is no compiler, or that CXX names none."""
    if not named:
        return "no C++ compiler (apt install g++)"
    words = named.split()
    alone = next((word for word in reversed(words) if shutil.which(word)), "g++")
    advice = f"name a program alone, such as CXX={alone}" if len(words) > 1 else "is it installed?"
    return f"no C++ compiler: CXX is {shown(named)}, which is not a program here; {advice}"


def find() -> str | None:
    """Path of the C++ compiler that torch would call, None if there is none."""
    return shutil.which(os.environ.get("CXX") or "g++")


def missing() -> str:
    """Say what is missing here for compiling updates; empty if nothing is."""
    if find() is None:
        return _lacking(os.environ.get("CXX"))
    include = sysconfig.get_path("include")
    if not (Path(include) / "Python.h").exists():
        return f"no Python headers in {include} (apt install python3-dev)"
    return ""
