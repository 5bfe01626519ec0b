"""Puts prebuilt native functions into a wheel, which then is one for x86-64 and this Linux.

Only where it is asked for (`just wheels`): HATCH_BUILD_HOOK_ENABLE_CUSTOM=true. Without it a wheel
is of Python alone, and the functions are built at the first start.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = "dreamer_async/fast/native/prebuilt"
"""Where the package looks for them."""


class Prebuilt(BuildHookInterface):
    """Builds a library for each level of x86-64 with CXX, or g++."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build them all, and give the wheel a tag that says what it is for."""
        self._folder = Path(tempfile.mkdtemp())
        if version == "editable":  # its sources change, and libraries of others are not loaded
            return
        sys.path.insert(0, self.root)
        from dreamer_async.fast.native import prebuilt

        compiler = shutil.which(os.environ.get("CXX") or "g++")
        if compiler is None:
            raise RuntimeError("prebuilt native functions need a C++ compiler (apt install g++)")
        for level in prebuilt.LEVELS:
            made = prebuilt.make(level, compiler, self._folder)
            build_data["force_include"][str(made)] = f"{HERE}/{made.name}"
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-linux_x86_64"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was built; the wheel has it."""
        shutil.rmtree(self._folder)
