"""Builds `src/*.cpp`, what an update computes on a CPU, for the processor that is here.

It needs only a C++ compiler, which `torch.compile` needs, too. The result is kept beside the
compiled kernels of torch, where only this user can write, under the hash of everything that it was
made from, the processor included.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from dreamer_async.machine import compile_cache, process

FOLDER = Path(__file__).with_name("src")
FLAGS = (
    *("-std=c++17", "-O3", "-fopenmp-simd"),
    *("-fno-math-errno", "-fno-trapping-math", "-fPIC"),
)
"""For all processors; which one is said besides."""
PREFIX = "kernels-"
"""How the files of libraries begin."""
SCRATCH = ".build-"
"""How the folders begin that are built in."""
SECONDS = 120
"""Longest wait for one call of the compiler; all of them take 13 with two cores."""


def built(compiler: str) -> Path:
    """The library for this processor, built unless it is there.

    Raises subprocess.SubprocessError where the compiler fails, OSError where nothing can be kept.
    """
    flags = *FLAGS, "-march=native"
    name = f"{PREFIX}{digest(*flags, compiler, *sorted(process.processor_flags()))}.so"
    compile_cache.isolate_compile_cache()
    path = Path(os.environ[compile_cache.VARIABLE]) / name
    if not compile_cache.is_trusted(path):
        with compile_cache.alone(path.parent, SECONDS):
            if not compile_cache.is_trusted(path):
                _build(path, compiler, flags)
    return path


def digest(*words: str) -> str:
    """The hash of all sources and of what else a library is made from."""
    paths = [*_sources(), *sorted(FOLDER.rglob("*.h"))]
    texts = [path.read_text() for path in paths]
    return hashlib.sha256("\0".join([*texts, *words]).encode()).hexdigest()[:16]


def _sources() -> list[Path]:
    return sorted(FOLDER.rglob("*.cpp"))


def _build(path: Path, compiler: str, flags: Sequence[str]) -> None:
    """Compile into a folder beside `path`, which a kill leaves behind for the next one."""
    compile_cache.sweep(path.parent, SCRATCH)
    folder = compile_cache.scratch(path.parent, SCRATCH)
    try:
        made = folder / path.name
        made.touch(mode=0o700)
        compile_to(made, compiler, flags, folder, seconds=SECONDS)
        made.chmod(0o700)  # whatever the umask says, nobody else may write it
        made.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compile_to(
    path: Path,
    compiler: str,
    flags: Sequence[str],
    folder: Path,
    *,
    linking: Sequence[str] = (),
    seconds: float,
) -> None:
    """Compile the sources to objects in `folder`, one for each core at a time, and link them.

    Raises subprocess.SubprocessError where the compiler fails, or takes longer for one of them.
    """
    call = partial(_call, compiler, seconds=seconds)
    objects = [folder / f"{source.stem}.o" for source in _sources()]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        work = [pool.submit(call, *flags, "-c", str(source), "-o", str(made))
                for source, made in zip(_sources(), objects, strict=True)]  # fmt: skip
    for part in work:
        part.result()
    call("-shared", *map(str, objects), *linking, "-o", str(path))


def _call(*command: str, seconds: float) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=seconds)
