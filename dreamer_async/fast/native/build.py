"""Builds and loads `src/*.cpp`, what an update computes on a CPU.

It needs only a C++ compiler, which `torch.compile` needs, too; without one everything works as
before, slower. The result is kept beside the compiled kernels of torch, where only this user can
write, under the hash of everything that it was made from, the processor included.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from dreamer_async.fast.native import signatures, structs
from dreamer_async.machine import compile_cache, compiler, process

FOLDER = Path(__file__).with_name("src")
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp-simd"),
    *("-fno-math-errno", "-fno-trapping-math", "-fPIC"),
)
SCRATCH = ".build-"
"""How the folders begin that are built in."""
SECONDS = 120
"""Longest wait for one call of the compiler; all of them take 13 with two cores."""


@cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The library, built if it has to be, or None and why."""
    found = compiler.find()
    if found is None:
        return None, compiler.missing()
    try:
        return _loaded(_built(found)), ""
    except subprocess.TimeoutExpired:
        return None, f"{found} took more than {SECONDS} s; the next start tries again"
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
        return None, f"{found} failed: {said.splitlines()[0] if said else error}"
    except OSError as error:
        return None, str(error)


def _loaded(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        path.unlink()  # the next one to ask builds it again
        raise
    signatures.bind(library)
    structs.check(library)
    return library


def _built(found: str) -> Path:
    sources = sorted(FOLDER.rglob("*.cpp"))
    texts = [path.read_text() for path in [*sources, *sorted(FOLDER.rglob("*.h"))]]
    words = "\0".join([*texts, *FLAGS, found, *sorted(process.processor_flags())])
    name = f"kernels-{hashlib.sha256(words.encode()).hexdigest()[:16]}.so"
    compile_cache.isolate_compile_cache()
    path = Path(os.environ[compile_cache.VARIABLE]) / name
    if not compile_cache.is_trusted(path):
        with compile_cache.alone(path.parent, SECONDS):
            if not compile_cache.is_trusted(path):
                _build(found, sources, path)
    return path


def _build(found: str, sources: list[Path], path: Path) -> None:
    """Compile into a folder beside `path`, which a kill leaves behind for the next one."""
    compile_cache.sweep(path.parent, SCRATCH)
    folder = compile_cache.scratch(path.parent, SCRATCH)
    try:
        objects = [folder / f"{source.stem}.o" for source in sources]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            work = [pool.submit(_call, found, *FLAGS, "-c", str(source), "-o", str(made))
                    for source, made in zip(sources, objects, strict=True)]  # fmt: skip
        for part in work:
            part.result()
        made = folder / path.name
        made.touch(mode=0o700)
        _call(found, "-shared", *map(str, objects), "-o", str(made))
        made.chmod(0o700)  # whatever the umask says, nobody else may write it
        made.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
