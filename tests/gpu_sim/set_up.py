"""Makes a folder in which the CUDA build of PyTorch runs without a GPU.

    wheels/   what pip downloaded: PyTorch, Triton, headers of CUDA (740 MB, once)
    site/     PyTorch and Triton, unpacked; nvidia/: the headers
    lib/      the stubs that are built here in the place of NVIDIA's libraries, by their sources
    env/      a virtual environment with these and the other packages of the one that was given
    cache/    what inductor and Triton compiled

Running it again does only what is left. The folder can be deleted at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLS = "g++", "nm", "readelf"


class SetUpError(RuntimeError):
    """Something that the simulated card needs is missing here; the message says what."""


def set_up(folder: Path, python: Path) -> None:
    """Make what is missing in the folder, with the packages that this interpreter sees."""
    check_machine(python)
    for name in ("wheels", "site", "nvidia", "cache"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one after the other, if several begin
        for line in (HERE / "wheels.txt").read_text().split():
            unpack(wheel(line, folder / "wheels", python), folder)
        make_environment(folder, python)
        build_stubs(folder)


def check_machine(python: Path) -> None:
    """Raise SetUpError for what only another machine, or a package of this one, can give."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SetUpError("the stubs are for Linux on x86_64")
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise SetUpError(f"missing: {', '.join(lacking)} (apt install g++ binutils)")
    if not (Path(said(python, "include")) / "Python.h").exists():
        raise SetUpError(f"missing: Python.h for {python} (apt install python3-dev)")


def said(python: Path, path: str) -> str:
    """A path of `sysconfig` as an interpreter sees it."""
    words = f"import sysconfig; print(sysconfig.get_path({path!r}))"
    done = subprocess.run([str(python), "-c", words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def wheel(wanted: str, folder: Path, python: Path) -> Path:
    """The wheel of `name===version`, downloaded unless it is there.

    Three equal signs: for two, pip would take 2.13.0+cpu as 2.13.0, too.
    """
    name, _, version = wanted.partition("===")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        print(f"downloading {wanted}", flush=True)
        command = [str(python), "-m", "pip", "download", "-q", "--no-deps"]
        command += ["--only-binary=:all:", "-d", str(folder), wanted]
        if subprocess.run(command, check=False).returncode:
            raise SetUpError(f"missing: wheel {wanted}, which pip did not bring")
    found = sorted(folder.glob(pattern))
    if not found:
        raise SetUpError(f"missing: wheel {wanted}; pip brought another version")
    return found[0]


def unpack(path: Path, folder: Path) -> None:
    """Unpack a wheel: packages to site/, headers to nvidia/."""
    name, version = path.name.split("-")[:2]
    target = folder / ("site" if name in ("torch", "triton") else "nvidia")
    done = target / f".{name}-{version}.unpacked"
    if done.exists():
        return
    print(f"unpacking {path.name}", flush=True)
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            made = archive.extract(item, target)
            if item.external_attr >> 16 & 0o111 and not item.is_dir():
                os.chmod(made, 0o755)  # zipfile forgets it, and Triton runs ptxas
    done.touch()


def make_environment(folder: Path, python: Path) -> None:
    """A virtual environment that sees the unpacked packages first, then those of `python`."""
    own = folder / "env/bin/python"
    if not own.exists():
        command = [str(python), "-m", "venv", "--without-pip", str(folder / "env")]
        subprocess.run(command, check=True)
    # `addsitedir` instead of a plain path: it follows what the other environment refers to.
    others = f"import site; site.addsitedir({said(python, 'purelib')!r})"
    (Path(said(own, "purelib")) / "card.pth").write_text(f"{folder / 'site'}\n{others}\n")


def libraries(folder: Path) -> Path:
    """Where the stubs of these sources lie; those of other sources stay where they are."""
    sources = [path for path in sorted(HERE.glob("stubs/**/*")) if path.is_file()]
    texts = [path.read_bytes() for path in (*sources, HERE / "wheels.txt")]
    return folder / "lib" / hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


def build_stubs(folder: Path) -> None:
    """Build the stubs unless they were built from the same sources."""
    target = libraries(folder)
    if target.exists():
        return
    scratch = target.with_suffix(".unfinished")
    shutil.rmtree(scratch, ignore_errors=True)
    headers = next((folder / "nvidia").rglob("driver_types.h")).parent
    words = HERE / "stubs/make_stubs.py", folder / "site", headers, scratch
    subprocess.run([sys.executable, "-B", *map(str, words)], check=True)
    scratch.rename(target)
