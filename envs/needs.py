"""What a suite needs beyond this package: other packages and system libraries.

Checks load no more than they must, so that all suites can be listed within a second.
"""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from dreamer_async.envs.children import bound
from dreamer_async.envs.vector import EnvError


class MissingNeed(EnvError):
    """A package or library is not here; the message is one line that says what to install."""


@dataclass(frozen=True)
class Need:
    """One thing that must be installed."""

    what: str
    """Its name for people, with where it comes from."""
    missing: Callable[[], str]
    """Why it cannot be used and what would help, in one line; empty if it is there."""


def require(suite: str, needs: tuple[Need, ...]) -> None:
    """Raise MissingNeed unless everything is there."""
    for need in needs:
        if reason := need.missing():
            raise MissingNeed(f"{suite} needs {need.what}: {reason}")


def package(module: str, install: str) -> Need:
    """A Python package that is found, not imported."""

    def missing() -> str:
        found = importlib.util.find_spec(module) is not None
        return "" if found else f"not installed; {install}"

    return Need(f"the package {module}", missing)


def of_extra(module: str, name: str) -> Need:
    """A Python package that comes with one of our extras."""
    return package(module, f"pip install 'dreamer-async[{name}]'")


def library(file: str, install: str) -> Need:
    """A shared library of the system."""

    def missing() -> str:
        try:
            ctypes.CDLL(file)
        except OSError as error:
            return f"{error}; {install}"
        return ""

    return Need(file, missing)


@cache
def load_egl() -> str:
    """Load libEGL for everyone in this process, once; say why not if that fails.

    envpool brings an EGL of its own, and MuJoCo then looks functions up in the system's: without
    the system's one loaded first, drawing ends the process. (MUJOCO_GL is not read by envpool.)
    """
    if "envpool" in sys.modules:
        return (
            "envpool was imported before libEGL was loaded; "
            "call dreamer_async.envs.needs.load_egl() first"
        )
    try:
        ctypes.CDLL("libEGL.so.1", ctypes.RTLD_GLOBAL)
    except OSError as error:
        return f"{error}; on Debian: apt install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri"
    return ""


_DRAW = (
    "from dreamer_async.envs import needs; "
    "pool = needs.import_envpool().make('CartpoleBalance-v1', env_type='gymnasium', num_envs=1, "
    "from_pixels=True, render_width=16, render_height=16); pool.reset()"
)
DRAW_SECONDS = 120.0


@cache
def require_drawing() -> None:
    """Draw once in a process of its own, as a driver that fails ends the process; MissingNeed."""
    require("drawing", (EGL,))
    path = f"import sys; sys.path[:] = {sys.path!r}; "
    command = bound([sys.executable, "-P", "-c", path + _DRAW])
    done = subprocess.run(command, capture_output=True, text=True, timeout=DRAW_SECONDS)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise MissingNeed(
            f"MuJoCo cannot draw here (exit code {done.returncode}, it said: {said}); "
            "on Debian without a GPU: apt install libegl-mesa0 libgl1-mesa-dri"
        )


def import_envpool() -> ModuleType:
    """Import envpool, after libEGL where there is one; MissingNeed if it is not installed."""
    load_egl()
    try:
        import envpool
    except ImportError as error:
        raise MissingNeed(f"this suite needs envpool (pip install envpool): {error}") from None
    return envpool


ENVPOOL = package("envpool", "pip install envpool")
EGL = Need("libEGL to draw without a screen", load_egl)
QT = library("libQt5Gui.so.5", "on Debian: apt install libqt5core5a libqt5gui5")
