"""`python -m tui RUN_DIR`: show the dashboard of a run."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from tui.app import main, screenshot


def _size(text: str) -> tuple[int, int]:
    columns, _, rows = text.partition("x")
    if not (columns.isdecimal() and rows.isdecimal() and int(columns) and int(rows)):
        raise argparse.ArgumentTypeError(f"expected COLUMNSxROWS such as 120x40, got {text!r}")
    return min(int(columns), 1000), min(int(rows), 1000)


def _run_dir(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no run directory {text!r}")
    return path


def cli(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tui", description="Dashboard of one run.")
    parser.add_argument("run_dir", type=_run_dir, help="the run directory")
    parser.add_argument(
        "--owner", action="store_true", help="ctrl+c stops the trainer (the run began here)"
    )
    parser.add_argument("--screenshot", type=Path, metavar="FILE", help="write an SVG and leave")
    parser.add_argument("--size", type=_size, default=(120, 40), help="of the SVG, as 120x40")
    parser.add_argument(
        "--page", choices=("overview", "losses"), default="overview", help="of the SVG"
    )
    options = parser.parse_args(arguments)
    if options.screenshot is not None:
        svg = asyncio.run(screenshot(options.run_dir, options.size, options.page))
        options.screenshot.write_text(svg, encoding="utf-8")
        return 0
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        parser.error("the dashboard needs a terminal; --screenshot FILE works without one")
    code = main(options.run_dir, options.owner)
    return code if options.owner else 0  # only the launcher asks how it ended


if __name__ == "__main__":
    sys.exit(cli())
