"""What `torch.compile` needs from the machine besides torch itself."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path


def find() -> str | None:
    """Path of the C++ compiler that torch would call, None if there is none."""
    return shutil.which(os.environ.get("CXX") or "g++")


def missing() -> str:
    """Say what is missing here for compiling updates; empty if nothing is."""
    if find() is None:
        return "no C++ compiler (apt install g++)"
    include = sysconfig.get_path("include")
    if not (Path(include) / "Python.h").exists():
        return f"no Python headers in {include} (apt install python3-dev)"
    return ""
