"""Builds the device and loads it before anything imports PyTorch: `pytest -p fake_device.plugin`.

PyTorch looks for its guards and hooks once, while it is imported: later would be too late, and a
process that has the device should do nothing else with PyTorch.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from dreamer_async.machine import compiler
from dreamer_async.store.directory import make_private
from dreamer_async.store.json_file import replacing

SOURCE = Path(__file__).with_name("device.cpp")
FLAGS = "-O1", "-std=c++20", "-shared", "-fPIC", "-w"
LIBRARIES = "libtorch_global_deps.so", "libc10.so", "libtorch_cpu.so"


def pytest_configure() -> None:
    load()


def load() -> None:
    """Load PyTorch's libraries and then the device, so that `import torch` finds it."""
    assert "torch" not in sys.modules, "torch was imported before the device was there"
    folder = torch_folder()
    for name in LIBRARIES:
        ctypes.CDLL(str(folder / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(build(folder)), mode=ctypes.RTLD_GLOBAL)


def torch_folder() -> Path:
    """Where PyTorch is installed, found without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.submodule_search_locations, "PyTorch is not installed"
    return Path(spec.submodule_search_locations[0])


def missing() -> str:
    """Say what is missing here for a fake device; empty if nothing is."""
    folder = torch_folder()
    if compiler.find() is None:
        return "no C++ compiler (apt install g++)"
    if (folder / "lib" / "libtorch_cuda.so").exists():
        return "this PyTorch is built for CUDA and has a device of its own"
    if not (folder / "include/ATen/detail/CUDAHooksInterface.h").exists():
        return f"no headers of PyTorch in {folder / 'include'}"
    return ""


def build(folder: Path) -> Path:
    """The library for this PyTorch, compiled unless that was done before: it takes 20 seconds.

    It is kept where only this user can write, since it is loaded and run.
    """
    found, include = compiler.find(), folder / "include"
    words = (SOURCE.read_text(), *FLAGS, str(found), (folder / "version.py").read_text())
    name = f"fake-device-{hashlib.sha256(chr(0).join(words).encode()).hexdigest()[:16]}.so"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dreamer-async"
    assert make_private(cache), f"{cache} cannot be made private"
    if not (cache / name).exists():
        includes = f"-I{include}", f"-I{include / 'torch/csrc/api/include'}"
        links = f"-L{folder / 'lib'}", "-lc10", "-ltorch_cpu"
        with replacing(cache / name) as file:
            command = [str(found), *FLAGS, *includes, str(SOURCE), "-o", file.name, *links]
            subprocess.run(command, check=True)
    return cache / name
