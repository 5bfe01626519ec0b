"""`python -m tests.gpu_sim`: sets a simulated card up and runs the checks on it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import pytest

from tests.gpu_sim.set_up import HERE, SetUpError, set_up

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def main() -> int:
    """Set up, check, say how long it took."""
    parser = argparse.ArgumentParser(
        prog="just gpu-sim", description="Other words go to pytest, such as -k overlap."
    )
    parser.add_argument("--dir", type=Path, default=CACHE / "dreamer-async/gpu-sim")
    parser.add_argument(
        "--venv", type=Path, default=Path(sys.prefix), help="has what the project needs"
    )
    parser.add_argument("--only-set-up", action="store_true")
    given, words = parser.parse_known_args()
    began, folder = time.monotonic(), given.dir.resolve()
    try:
        set_up(folder, given.venv.absolute() / "bin/python")
    except SetUpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    ready = time.monotonic()
    print(f"the card is ready in {folder} after {ready - began:.0f} s", flush=True)
    if given.only_set_up:
        return 0
    os.environ["GPU_SIM_DIR"] = str(folder)
    options = "-o", "python_files=check_*.py", "-p", "no:cacheprovider", "-rP", "-v"
    code = pytest.main([*options, "--durations=0", "--durations-min=1", str(HERE), *words])
    print(f"the checks took {(time.monotonic() - ready) / 60:.1f} minutes")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
