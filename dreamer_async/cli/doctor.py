"""`dreamer-async doctor`: what works on this machine, in a few lines.

Each check is one function that returns a `Finding`; a check that fails is a finding too.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dreamer_async import __version__
from dreamer_async.envs import needs
from dreamer_async.machine import compiler, nvidia, process
from dreamer_async.machine.compile_cache import isolate_compile_cache
from dreamer_async.replay.capacity import cgroup_limit
from dreamer_async.store.directory import existing
from dreamer_async.store.sizes import counted


class Finding(NamedTuple):
    """The answer to one question."""

    name: str
    status: str
    """ok, missing (something optional is not there) or bad (training will not work well)."""
    detail: str


def examine(runs_dir: Path, *, compile_too: bool = False) -> list[Finding]:
    """Run every check; compiling takes a while and is only done when asked."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _torch,
        _compiler,
        _native,
        _envpool,
        _egl,
        _qt,
        _memory,
        lambda: _disk("runs", runs_dir),
        lambda: _disk("/dev/shm", Path("/dev/shm")),  # noqa: S108  its size is what is asked
    ]
    if compile_too:
        checks.append(_compile)
    return [check() for check in checks]


def _python() -> Finding:
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return Finding("python", "ok", f"{platform.python_version()} at {sys.executable}, {system}")


def _packages() -> Finding:
    names = ("envpool", "gymnasium", "numpy", "safetensors", "textual", "typer", "uvloop")
    versions, absent = [f"dreamer-async {__version__}"], []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    missing = f"; not installed: {', '.join(absent)}" if absent else ""
    return Finding("packages", "bad" if absent else "ok", ", ".join(versions) + missing)


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("torch", "bad", str(error))
    if lacking := nvidia.unused():
        return Finding("torch", "bad", f"{torch.__version__}: CPU, as {lacking}")
    if torch.cuda.is_available():
        return _gpu()
    cores = counted(len(os.sched_getaffinity(0)), "core")
    return Finding(
        "torch", "ok", f"{torch.__version__}: CPU, {cores} (default size1m){_bfloat16()}"
    )


def _bfloat16() -> str:
    from dreamer_async.machine.device import choose_device, lacks_bfloat16

    lacks = lacks_bfloat16(choose_device("cpu"), native=True)
    return "" if lacks else "; --precision bfloat16-dense is faster"


def _gpu() -> Finding:
    import torch

    from dreamer_async.machine.device import choose_device, has_bfloat16
    from dreamer_async.machine.device_errors import first_line

    device = choose_device("auto")
    try:
        free, total = torch.cuda.mem_get_info(device)
        name, bfloat16 = torch.cuda.get_device_name(device), has_bfloat16(device)
    except RuntimeError as error:  # it may be exclusive, and taken
        said = f"{device} does not answer: {first_line(error)}"
        return Finding("torch", "bad", f"{torch.__version__}: {said}")
    room = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    trains = "" if bfloat16 else ", no bfloat16, so that it trains in float32"
    return Finding("torch", "ok", f"{torch.__version__}: {name}, {room}{trains} (default size12m)")


def _compiler() -> Finding:
    if lacking := compiler.missing():
        return Finding("compiler", "missing", f"{lacking}: updates on a GPU run without compiling")
    return Finding("compiler", "ok", f"{compiler.find()} and Python headers")


def _native() -> Finding:
    """What updates and acting on a CPU are made of; nothing is built here."""
    from dreamer_async.fast.native import prebuilt
    from dreamer_async.fast.native.load import in_words

    ready = prebuilt.find(process.processor_flags())
    if ready is not None:
        return Finding("native", "ok", f"{in_words(ready.stem)}: CPUs need no compiler")
    if found := compiler.find():
        return Finding("native", "ok", f"built by {found} at the first start: takes a minute")
    why = f"{compiler.missing()}, and no prebuilt library for this processor is installed"
    return Finding("native", "missing", f"{why}: updates on a CPU are several times slower")


def _compile() -> Finding:
    import torch

    isolate_compile_cache()
    began = time.monotonic()
    try:
        result = torch.compile(lambda x: torch.nn.functional.silu(x) + 1)(torch.ones(8))
    except RuntimeError as error:
        return Finding("compile", "bad", str(error).strip().splitlines()[-1])
    works = bool(torch.isfinite(result).all())
    return Finding("compile", "ok" if works else "bad", f"{time.monotonic() - began:.1f} s")


def _envpool() -> Finding:
    """Most suites are made of it, and some versions need libraries of the system."""
    missing = needs.ENVPOOL.missing()
    return Finding("envpool", "bad" if missing else "ok", missing or "it loads what it needs")


def _egl() -> Finding:
    """MuJoCo renders through EGL where there is no screen."""
    return _optional("EGL", needs.EGL_FILE, "rendering without a screen")


def _qt() -> Finding:
    """Procgen is linked against Qt."""
    return _optional("Qt", needs.QT, "procgen")


def _optional(name: str, need: needs.Need, purpose: str) -> Finding:
    if missing := need.missing():
        return Finding(name, "missing", f"only needed for {purpose}: {missing}")
    return Finding(name, "ok", f"what {purpose} needs is here")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = cgroup_limit()
    text = f"{total / 1e9:.1f} GB"
    if limit < total:
        text += f", this process may use {limit / 1e9:.1f} GB (cgroup)"
    return Finding("memory", "ok", text)


def _disk(name: str, path: Path) -> Finding:
    """Free space where `path` is or would be made, and whether it can be written."""
    there = existing(path)
    usage = shutil.disk_usage(there)
    text = f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free at {there}"
    try:
        with tempfile.TemporaryFile(dir=there):
            return Finding(name, "ok", text)
    except OSError as error:
        return Finding(name, "bad", f"{text}, but not writable: {error.strerror}")
