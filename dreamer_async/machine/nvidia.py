"""Whether an NVIDIA GPU is in this machine, and why torch cannot use it. Imports torch late."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

ROOT = Path("/")
OLDEST_DRIVER = {12: 525, 13: 580}
"""By the major version of CUDA that a torch was built for."""


def present(root: Path = ROOT) -> bool:
    """Whether the driver or a device shows, usable or not."""
    return (root / "proc/driver/nvidia").exists() or bool(_devices(root))


def unused(root: Path = ROOT) -> str:
    """Say in one line why a GPU that is here is not used; empty if none is, or if it is used.

    One that CUDA_VISIBLE_DEVICES hides is left alone on purpose.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or not present(root):
        return ""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's many lines about what is said here in one
        if torch.cuda.is_available():
            return ""
    return f"the NVIDIA GPU of this machine is not used: {_reason(root)}"


def driver(root: Path = ROOT) -> str:
    """The version of the kernel's driver, such as 535.183.01; empty if it is not known."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return ""
    found = re.search(r"\b\d{3,}(\.\d+)+\b", text)
    return found.group() if found else ""


def _devices(root: Path) -> list[Path]:
    return sorted((root / "dev").glob("nvidia[0-9c]*"))


def _reason(root: Path) -> str:
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA (see https://pytorch.org)"
    if not _devices(root):
        return "there is no /dev/nvidia*, as in a container that was not given the GPU"
    closed = [path for path in _devices(root) if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        return f"no permission to use /{closed[0].relative_to(root)}"
    version, cuda = driver(root), torch.version.cuda
    needed = OLDEST_DRIVER.get(int(cuda.partition(".")[0]), 0)
    if version and int(version.partition(".")[0]) < needed:
        return f"its driver {version} is too old for CUDA {cuda}, which needs {needed} or newer"
    return _words_of_torch()


def _words_of_torch() -> str:
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().partition("\n")[0].partition(". ")[0]
    return "torch does not say why"
