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
from pathlib import Path
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


def library_of_envpool(stem: str, file: str, install: str) -> Need:
    """A shared library that some versions of envpool bring with them, and others expect here.

    1.2.5 (the last one for Python 3.11) brings OpenGL and EGL and expects Qt 5; 1.2.7 brings Qt 6
    and cannot even be imported without OpenGL and EGL.
    """
    system = library(file, install)
    return Need(file, lambda: "" if _brought(stem) else system.missing())


def _brought(stem: str) -> bool:
    found = importlib.util.find_spec("envpool")
    folders = [Path(place) for place in (found and found.submodule_search_locations) or ()]
    return any(any(folder.with_name("envpool.libs").glob(f"{stem}*")) for folder in folders)


@cache
def load_egl() -> str:
    """Load libEGL for everyone in this process, once; say why not if that fails.

    envpool may bring an EGL of its own, and MuJoCo then looks functions up in the system's: without
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
        return f"{error}; {_EGL}"
    return ""


_EGL = "on Debian: apt install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri"


_DRAW = (
    "from dreamer_async.envs import needs; "
    "pool = needs.import_envpool().make('CartpoleBalance-v1', env_type='gymnasium', num_envs=1, "
    "from_pixels=True, render_width=16, render_height=16); pool.reset(); "
    "from dreamer_async.envs.drawing import egl; print(egl.draws_in_software())"
)
DRAW_SECONDS = 120.0


@cache
def require_drawing() -> bool:
    """Draw once in a process of its own, as a driver that fails ends the process; MissingNeed.

    Returns whether it is drawn in software, where pools have to take turns (`envs.drawing.turns`).
    """
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
    return done.stdout.split()[-1:] != ["False"]


def import_envpool() -> ModuleType:
    """Import envpool, after libEGL where there is one; MissingNeed if that cannot be done."""
    load_egl()
    try:
        import envpool
    except ImportError as error:
        raise MissingNeed(f"this suite needs envpool: {ENVPOOL.missing() or error}") from None
    return envpool


_ENVPOOL = (
    package("envpool", "pip install envpool"),
    library_of_envpool("libOpenGL", "libOpenGL.so.0", "on Debian: apt install libopengl0"),
    library_of_envpool("libEGL", "libEGL.so.1", "on Debian: apt install libegl1"),
)
ENVPOOL = Need(_ENVPOOL[0].what, lambda: "; ".join(filter(None, (n.missing() for n in _ENVPOOL))))
"""What every suite that envpool serves needs."""
EGL_FILE = library("libEGL.so.1", _EGL)
EGL = Need("libEGL to draw without a screen", load_egl)
QT = library_of_envpool("libQt", "libQt5Gui.so.5", "on Debian: apt install libqt5core5a libqt5gui5")
