"""`python -m dreamer_async.tui RUN_DIR`: show the dashboard of a run."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from dreamer_async.store import exit_codes
from dreamer_async.store.sweep_dir import SweepDir
from dreamer_async.tui.graphics import Choice, chosen, way
from dreamer_async.tui.pages import NAMES
from dreamer_async.tui.terminal import drawn_on_terminal, end_with_parent, has_unicode, is_gone


def _size(text: str) -> tuple[int, int]:
    columns, _, rows = text.partition("x")
    if not (columns.isdecimal() and rows.isdecimal() and int(columns) and int(rows)):
        raise argparse.ArgumentTypeError(f"expected COLUMNSxROWS such as 120x40, got {text!r}")
    return min(int(columns), 1000), min(int(rows), 1000)


def _run_dir(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no run directory {text!r}")
    return path.absolute()


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as `dreamer-async watch` does, which hands its words on."""

    def error(self, message: str) -> NoReturn:
        self.exit(exit_codes.WRONG_INPUT, f"error: {message.removeprefix('argument ')}\n")


def _page(text: str) -> str:
    if text in NAMES:
        return text
    close = get_close_matches(text, NAMES, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(NAMES)}"
    raise argparse.ArgumentTypeError(f"there is no page {text!a}; {hint}")


def _graphics(text: str) -> Choice:
    try:
        choice = chosen(text)
        way(choice)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return choice


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m dreamer_async.tui", description="Dashboard of one run, or of a sweep."
    )
    parser.add_argument("run_dir", type=_run_dir, help="the run directory")
    parser.add_argument("others", type=_run_dir, nargs="*", help="runs to compare with it")
    parser.add_argument(
        "--owner", action="store_true", help="ctrl+c stops the trainer (the run began here)"
    )
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    parser.add_argument(
        "--graphics", type=_graphics, default="auto", metavar="HOW", help="auto, kitty or blocks"
    )
    parser.add_argument("--animate", action="store_true", help="play films over ssh too")
    parser.add_argument(
        "--web", type=int, nargs="?", const=0, metavar="PID", help="shown by textual-serve there"
    )
    parser.add_argument("--screenshot", type=Path, metavar="FILE", help="write an SVG and leave")
    parser.add_argument("--size", type=_size, default=(120, 40), help="of the SVG, as 120x40")
    parser.add_argument("--page", type=_page, default="overview", help="open at first")
    return parser


def cli(arguments: Sequence[str] | None = None, *, shown: Callable[[], None] | None = None) -> int:
    """Parse the command line, run, and return the exit code; `shown`: after the first frame."""
    parser = _parser()
    options = parser.parse_args(arguments)
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not (on_terminal or options.web is not None or options.screenshot is not None):
        parser.error("the dashboard needs a terminal; --screenshot FILE works without one")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nothing here multiplies matrices

    if options.web:
        end_with_parent(signal.SIGKILL, options.web)
    try:
        return _show(options, shown)
    except Exception as error:
        print(_in_a_line(error), file=sys.stderr)
        return exit_codes.DASHBOARD


def _show(options: argparse.Namespace, shown: Callable[[], None] | None) -> int:
    """Run the dashboard and return the exit code; raises what ended it against its will."""
    if SweepDir(options.run_dir).exists():
        return _show_sweep(options)
    from dreamer_async.tui.app import DETACHED, Dashboard

    app = Dashboard(
        options.run_dir,
        options.others,
        owner=options.owner,
        on_terminal=options.web is None and options.screenshot is None,
        ascii=options.ascii or (options.screenshot is None and not has_unicode()),
        animate=options.animate or "SSH_CONNECTION" not in os.environ,
        graphics=options.graphics,
        page=options.page,
        shown=shown,
    )
    if options.screenshot is not None:
        from dreamer_async.tui.screenshot import screenshot

        svg = asyncio.run(screenshot(app, options.size))
        options.screenshot.write_text(svg, encoding="utf-8")
        return 0
    app.begin()
    with drawn_on_terminal():
        code = app.run()
    if app.failure is not None:
        raise app.failure
    if not options.owner:  # only the launcher asks how it ended
        return 0
    return DETACHED if code is None else code


def _show_sweep(options: argparse.Namespace) -> int:
    """Run the dashboard of a sweep, and those of the runs that are opened from it."""
    from dreamer_async.tui.sweep_app import SweepApp, screenshot

    plain = options.ascii or (options.screenshot is None and not has_unicode())
    terminal = options.web is None and options.screenshot is None
    sort, backwards, chosen = "order", False, ""
    while True:
        app = SweepApp(options.run_dir, on_terminal=terminal, ascii=plain)
        app.sort, app.backwards, app.chosen = sort, backwards, chosen
        if options.screenshot is not None:
            svg = asyncio.run(screenshot(app, options.size))
            options.screenshot.write_text(svg, encoding="utf-8")
            return 0
        run = app.run()
        if app.failure is not None:
            raise app.failure
        if run is None:
            return 0
        sort, backwards, chosen = app.sort, app.backwards, app.chosen
        one = argparse.Namespace(**vars(options) | {"run_dir": run, "others": []})
        _show(one, None)
        if is_gone():
            return 0


def _in_a_line(failure: Exception) -> str:
    """What failed and where, for whoever reports it."""
    from dreamer_async.tui.draw.text import clean

    *_, last = traceback.extract_tb(failure.__traceback__) or [None]
    where = f" ({Path(last.filename).name}:{last.lineno})" if last else ""
    what = clean(f"{type(failure).__name__}: {failure}", 300)
    return f"error: the dashboard failed: {what}{where}; the run is not affected"


def _collect_garbage() -> None:
    """Collect from now on, and never look again at what there is already."""
    gc.freeze()
    gc.enable()


if __name__ == "__main__":
    gc.disable()  # what is made until the first frame stays
    sys.exit(cli(shown=_collect_garbage))
