"""Which library of native functions this process computes with: chosen and loaded once.

One that was prebuilt comes first, since it costs a start nothing; without it the library is built
for this processor; without a compiler PyTorch computes, slower.
"""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dreamer_async.fast.native import build, prebuilt, signatures, structs
from dreamer_async.machine import compiler, process


class Native(NamedTuple):
    """The library, or why there is none."""

    library: ctypes.CDLL | None
    problem: str = ""
    name: str = ""
    """Of its file, which has the hash of all that it was made from: equal names, equal numbers."""


@cache
def load() -> Native:
    """The library, prebuilt or built here, or None and why."""
    ready = prebuilt.find(process.processor_flags())
    if ready is None:
        return _built_here()
    try:
        return _opened(ready)
    except OSError as error:  # too old a system, or one that runs nothing from there
        built = _built_here()
        why = f"the prebuilt library cannot be loaded: {error}"
        return built if built.library else Native(None, f"{built.problem}; {why}")


def _built_here() -> Native:
    found = compiler.find()
    if found is None:
        return Native(None, compiler.missing())
    try:
        path = build.built(found)
        try:
            return _opened(path)
        except OSError:
            path.unlink()  # the next one to ask builds it again
            raise
    except subprocess.TimeoutExpired:
        return Native(None, f"{found} took more than {build.SECONDS} s; the next start tries again")
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
        return Native(None, f"{found} failed: {said.splitlines()[0] if said else error}")
    except OSError as error:
        return Native(None, str(error))


def _opened(path: Path) -> Native:
    library = ctypes.CDLL(str(path))
    signatures.bind(library)
    structs.check(library)
    return Native(library, name=path.stem)


def in_words(name: str) -> str:
    """What a library's name says of its processors."""
    level = name.removeprefix(build.PREFIX).rpartition("-")[0]
    return f"prebuilt for {level}" if level else "built for this processor"
