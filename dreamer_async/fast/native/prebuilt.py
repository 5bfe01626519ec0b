"""The native functions as platform wheels bring them: built beforehand, for whole levels of x86-64.

Who installs such a wheel needs no compiler, and no start waits for one. A library is found by the
hash of all that it was made from, in its name: one of other sources is another file, and never
loaded. `hatch_build.py` makes these libraries; a checkout and the wheel of Python alone have none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from dreamer_async.fast.native import build

FOLDER = Path(__file__).with_name("prebuilt")
"""Where a platform wheel has them."""
V3 = frozenset(("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"))
LEVELS: Mapping[str, frozenset[str]] = {
    "x86-64-v4": V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": V3,
}
"""Levels of the x86-64 psABI, the best first, and what they add to what every 64-bit processor of
the last 15 years has, by the names in /proc/cpuinfo (which calls lzcnt abm)."""
SECONDS = 1800
"""Longest wait for the compiler where a wheel is made and no run waits."""
LINKING = ("-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL", "-Wl,--strip-all")
"""GCC's libraries become part of the library, as their licence allows: it has to load where the
system's own are older, and where torch has brought others into the process."""


def find(flags: Collection[str]) -> Path | None:
    """The best library of these sources for a processor with these flags, None if there is none."""
    paths = (FOLDER / file_name(level) for level in levels(flags))
    return next((path for path in paths if path.is_file()), None)


def levels(flags: Collection[str]) -> list[str]:
    """What a processor with these flags can run, the best first."""
    return [level for level, needed in LEVELS.items() if needed <= set(flags)]


def file_name(level: str) -> str:
    """Of the library for a level, made from the sources that are here."""
    return f"{build.PREFIX}{level}-{build.digest(*_flags(level), *LINKING)}.so"


def make(level: str, compiler: str, folder: Path) -> Path:
    """Build the library for a level; raises subprocess.SubprocessError where that fails."""
    with tempfile.TemporaryDirectory() as scratch:
        path = folder / file_name(level)
        build.compile_to(
            path, compiler, _flags(level), Path(scratch), linking=LINKING, seconds=SECONDS
        )
    return path


def _flags(level: str) -> tuple[str, ...]:
    return *build.FLAGS, f"-march={level}"
