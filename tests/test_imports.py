"""Who may import whom, checked on the source and in real processes; CONTRIBUTING.md has the map."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = "dreamer_async"
FOLDERS = {
    OURS: ROOT / OURS,
    f"{OURS}.envs": ROOT / "envs",  # dreamer_async/envs and dreamer_async/tui are links to them
    f"{OURS}.tui": ROOT / "tui",
}
SOURCES = {
    ".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(
        ".__init__"
    ): path
    for package, folder in FOLDERS.items()
    for path in sorted(folder.rglob("*.py"))
}
BELOW: Mapping[str, set[str]] = {
    "config": set(),
    "envs": set(),
    "store": {"config"},
    "machine": {"config", "store"},
    "agent": {"config", "envs"},
    "fast": {"agent", "config", "envs", "machine"},
    "replay": {"config", "envs", "store"},
    "scores": {"config", "envs", "store"},
    "parallel": {"agent", "config", "machine", "store"},
    "run": {
        *("agent", "config", "envs", "fast", "machine", "parallel", "replay", "scores", "store"),
    },
    "bench": {
        *("agent", "config", "envs", "fast", "machine", "parallel", "replay", "run", "store"),
    },
    "share": {"agent", "config", "envs", "fast", "replay", "run", "scores", "store"},
    "play": {"agent", "config", "envs", "share", "store", "tui"},
    "sweep": {"bench", "config", "machine", "run", "store"},
    "cli": {
        *("bench", "config", "envs", "fast", "machine", "play", "replay"),
        *("parallel", "run", "scores", "share", "store", "sweep"),
    },
    "tui": {"scores", "store"},
    "python": {"cli", "config", "envs", "run", "store"},
    "": {"cli", "config", "python", "run"},
}
"""Package -> the packages that it may import, besides itself; the last is dreamer_async/*.py."""
STANDARD = {
    f"{OURS}.config",
    f"{OURS}.machine.interpreter",
    f"{OURS}.machine.console",
    f"{OURS}.machine.signals",
    *(f"{OURS}.store.{name}" for name in ("run_dir", "run_lock", "regular_file", "events")),
    *(f"{OURS}.store.{name}" for name in ("json_file", "control_dir", "directory", "episodes")),
    *(f"{OURS}.store.{name}" for name in ("exit_codes", "sizes", "sweep_dir")),
    *(f"{OURS}.run.{name}" for name in ("aio", "limiter")),
}
"""Modules and packages that use the standard library only; aio starts uvloop in a function."""
NUMPY = {
    *(f"{OURS}.replay.{name}" for name in ("replay", "cursors", "files", "layout", "state")),
    *(f"{OURS}.replay.{name}" for name in ("ring", "online_queue", "capacity")),
    f"{OURS}.scores.curves",
    f"{OURS}.scores.bands",
    f"{OURS}.scores.references",
}
"""Standard library and numpy, without asyncio."""
HEAVY = {"torch", "numpy", "envpool", "gymnasium", "textual", "safetensors", "uvloop"}
LIGHT = {
    *STANDARD,
    f"{OURS}.cli",
    *(f"{OURS}.store.{name}" for name in ("removal", "summary")),
    *(f"{OURS}.machine.{name}" for name in ("compiler", "nvidia")),
    *(f"{OURS}.bench.{name}" for name in ("timing", "reference", "report")),
}
"""Importing these modules and packages imports neither torch nor numpy."""
SHOWN = {
    *(f"{OURS}.store.{name}" for name in ("events", "run_dir", "control_dir", "regular_file")),
    *(f"{OURS}.store.{name}" for name in ("json_file", "exit_codes", "sweep_dir", "sizes")),
    f"{OURS}.scores.curves",
    f"{OURS}.scores.bands",
    f"{OURS}.scores.references",
}
"""What the dashboard knows of a run."""
DRAWN = {f"{OURS}.tui.raster", f"{OURS}.tui.moving"}
"""What draws a dashboard as pixels, with libraries of extras; no dashboard does."""
ASYNC_AND_FILES = {"asyncio", "logging", "os", "io", "pathlib", "json", "shutil", "tempfile"}
MOST_FILES = 25
"""In a folder of code or of tests."""
MOST_CALLS = 250_000
"""Of Python functions by a command that computes nothing."""
ACCELERATORS = {
    *("is_cuda", "cuda", "compile", "compiler", "backends", "set_num_threads", "get_num_threads"),
    *("set_default_device", "set_float32_matmul_precision", "ctypes", "_dynamo", "_inductor"),
}
"""What the agent does not name: it computes what it was given to compute with."""


def imports(source: str, module: str, *, top_only: bool = False) -> Iterator[str]:
    """Absolute dotted names that a module imports; `top_only` leaves out those in functions."""
    tree = ast.parse(source)
    inner = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef) or _type_checking(outer)
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if top_only and id(node) in inner:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module.split(".")[: -node.level]) if node.level else ""
            name = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                full = f"{name}.{alias.name}"
                yield full if full in SOURCES else name


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def top(name: str) -> str:
    return name.partition(".")[0]


def room(name: str) -> str:
    """Package of ours that a module belongs to: its folder below dreamer_async."""
    part = name.split(".")[1] if "." in name else ""
    return part if f"{OURS}.{part}" in SOURCES and part in BELOW else ""


def within(name: str, places: set[str]) -> bool:
    """Whether a module is one of these, or lies in a package that is."""
    return any(name == place or name.startswith(place + ".") for place in places)


def third_party(names: set[str]) -> set[str]:
    return {top(n) for n in names} - set(sys.stdlib_module_names) - {OURS}


def violations(module: str, source: str) -> list[str]:
    """Every rule that the module's imports break, in words."""
    everywhere = set(imports(source, module))
    at_top = set(imports(source, module, top_only=True))
    ours = {n for n in everywhere if top(n) == OURS and n != OURS}
    here, others = room(module), third_party(everywhere)
    found = []

    def rule(text: str, names: set[str]) -> None:
        found.extend(f"{module} imports {name}: {text}" for name in sorted(names))

    allowed = BELOW[here] | {here}
    rule(
        f"{here or OURS} knows {', '.join(sorted(BELOW[here])) or 'none of the others'}",
        {n for n in ours if room(n) not in allowed},
    )
    rule("its own name is dreamer_async.NAME", others & {"envs", "tui", "tests"})
    if here != "":
        rule("dreamer_async gives modules their version only", _members(source) - {"__version__"})
    if here == "envs":
        rule("envs knows no torch", {n for n in everywhere if top(n) == "torch"})
    if here == "tui":
        more = {"PIL", "matplotlib"} if module in DRAWN else set()
        rule("tui knows what shows a run", {n for n in ours if room(n) != "tui"} - SHOWN)
        rule("tui uses numpy, rich, textual", others - {"numpy", "rich", "textual"} - more)
        rule("the dashboard draws text only", DRAWN & ours if module not in DRAWN else set())
    if here == "agent":
        settings = {f"{OURS}.config", f"{OURS}.config.settings", f"{OURS}.envs.spec"}
        rule("agent knows configs and specs", {n for n in ours if room(n) != "agent"} - settings)
        rule("agent uses torch and numpy", others - {"torch", "numpy"})
        rule("agent knows no asyncio, files, logs", {top(n) for n in everywhere} & ASYNC_AND_FILES)
        rule("agent never asks where it runs", questions(source))
    if within(module, STANDARD):
        rule("the floor knows the floor", {n for n in ours if not within(n, STANDARD)})
        rule("the floor is standard library", third_party(at_top))
    if within(module, LIGHT):
        rule("heavy imports go inside functions", third_party(at_top) & HEAVY)
    if module in NUMPY:
        rule("data modules know the floor", {n for n in ours if not within(n, STANDARD)} - NUMPY)
        rule("data modules know numpy only", others - {"numpy"})
        rule("data modules know no asyncio", everywhere & {"asyncio"})
    return found


def questions(source: str) -> set[str]:
    """What a source names of devices, compilers and switches of the whole process."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            found |= {node.attr} & ACCELERATORS
            found |= {"device.type"} if ast.unparse(node).endswith("device.type") else set()
        elif isinstance(node, ast.Global):
            found |= {f"global {name}" for name in node.names}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            found |= {part for name in names for part in name.split(".")} & ACCELERATORS
    return found


def _members(source: str) -> set[str]:
    """What a module takes out of dreamer_async itself, other than modules."""
    nodes = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom))
    names = {alias.name for node in nodes if node.module == OURS for alias in node.names}
    return {name for name in names if f"{OURS}.{name}" not in SOURCES}


@pytest.mark.parametrize("module", SOURCES)
def test_imports_follow_the_rules(module: str) -> None:
    assert violations(module, SOURCES[module].read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dreamer_async.envs.suites.toy", "import torch"),
        ("dreamer_async.envs.suites.toy", "def f():\n    from dreamer_async import config"),
        ("dreamer_async.envs.suites.toy", "from envs import spec"),
        ("dreamer_async.tui.app", "from dreamer_async.config import resolve"),
        ("dreamer_async.tui.app", "from dreamer_async.store import checkpoint"),
        ("dreamer_async.tui.app", "import torch.nn"),
        ("dreamer_async.tui.app", "from PIL import Image"),
        ("dreamer_async.tui.app", "from dreamer_async.tui.raster import raster"),
        ("dreamer_async.tui.app", "import tui.measure"),
        ("dreamer_async.tui.widgets.chart", "from dreamer_async.envs import spec"),
        ("dreamer_async.run.pipeline", "import dreamer_async.tui.app"),
        ("dreamer_async.run.pipeline", "from dreamer_async import cli"),
        ("dreamer_async.run.pipeline", "from dreamer_async import load"),
        ("dreamer_async.run.pipeline", "from tests import tiny_run"),
        ("dreamer_async.store.events", "import numpy as np"),
        ("dreamer_async.store.run_dir", "from dreamer_async.replay.replay import Replay"),
        ("dreamer_async.store.run_dir", "from dreamer_async.store import checkpoint"),
        ("dreamer_async.store.checkpoint", "from dreamer_async.machine import device"),
        ("dreamer_async.machine.device", "from dreamer_async.run import learner"),
        ("dreamer_async.config.config", "from dreamer_async.store import run_dir"),
        ("dreamer_async.cli.entry", "import torch"),
        ("dreamer_async.cli.entry", "from numpy import array"),
        ("dreamer_async.replay.replay", "import torch"),
        ("dreamer_async.replay.replay", "def f():\n    import asyncio"),
        ("dreamer_async.scores.curves", "from dreamer_async.run import pipeline"),
        ("dreamer_async.bench", "from dreamer_async.cli import launch"),
        ("dreamer_async.agent.losses", "import logging"),
        ("dreamer_async.agent.losses", "from pathlib import Path"),
        ("dreamer_async.agent.losses", "from dreamer_async.run.learner import Learner"),
        ("dreamer_async.agent.losses", "from ..run.learner import Learner"),
        ("dreamer_async.agent.losses", "from dreamer_async.fast import native"),
        ("dreamer_async.agent.losses", "from dreamer_async.machine import device"),
        ("dreamer_async.agent.losses", "import ctypes"),
        ("dreamer_async.agent.losses", "import torch._dynamo"),
        ("dreamer_async.agent.losses", "from torch import compile"),
        ("dreamer_async.agent.losses", "def f(x):\n    return x.is_cuda"),
        ("dreamer_async.agent.losses", "def f(x):\n    return x.device.type == 'cpu'"),
        ("dreamer_async.agent.losses", "def f(x):\n    return torch.compile(x)"),
        ("dreamer_async.agent.losses", "def f(x):\n    torch.set_num_threads(1)"),
        ("dreamer_async.agent.losses", "x = 0\ndef f():\n    global x\n    x = 1"),
        ("dreamer_async.agent.losses", "from dreamer_async.envs import vector"),
    ],
)
def test_the_checker_sees_a_violation(module: str, source: str) -> None:
    assert violations(module, source) != []


def test_the_checker_sees_every_package() -> None:
    assert {room(module) for module in SOURCES} == set(BELOW)
    assert {*STANDARD, *NUMPY, *LIGHT, *SHOWN} <= set(SOURCES)


def test_packages_lie_on_floors() -> None:
    """No package knows one that knows it, whichever way round."""
    assert circles(BELOW) == set()


# -- circles and crowds ----------------------------------------------------------------------


def circles(graph: Mapping[str, Iterable[str]]) -> set[frozenset[str]]:
    """Groups of nodes that all reach each other."""
    reached = {node: _reached(graph, node) for node in graph}
    groups = (frozenset(m for m in reached[n] if n in reached.get(m, ())) for n in graph)
    return {group for group in groups if group}


def _reached(graph: Mapping[str, Iterable[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += graph.get(node, ())
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports for type checking and those in functions count."""
    graph = {
        module: {name for name in imports(path.read_text(), module) if name in SOURCES}
        for module, path in SOURCES.items()
    }
    assert circles(graph) == set()


def test_a_circle_is_seen() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["d"]}) == {
        frozenset("bc"),
        frozenset("d"),
    }
    source = "if TYPE_CHECKING:\n    from dreamer_async.agent.losses import x\n"
    assert set(imports(source, "dreamer_async.agent.kl")) == {"dreamer_async.agent.losses"}


def crowded(folders: Iterable[Path]) -> set[Path]:
    """Folders that hold more files than one can take in."""
    return {folder for folder in folders if len(_files(folder)) > MOST_FILES}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file() and path.suffix != ".pyc"]


def test_no_folder_is_crowded() -> None:
    tests = ROOT / "tests"
    roots = [*FOLDERS.values(), tests]
    folders = {path for root in roots for path in (root, *root.rglob("*")) if path.is_dir()}
    recorded = {tests / "oracle", tests / "data"}  # data, which nobody reads from top to bottom
    code = {f for f in folders if f not in recorded and not recorded & set(f.parents)}
    assert {str(path.relative_to(ROOT)) for path in crowded(code)} == set()


def test_a_crowd_is_seen(tmp_path: Path) -> None:
    for number in range(MOST_FILES):
        (tmp_path / f"{number}.py").touch()
    assert crowded([tmp_path]) == set()
    (tmp_path / "one_more.h").touch()
    assert crowded([tmp_path]) == {tmp_path}


# -- what really gets loaded -----------------------------------------------------------------


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    return {top(name) for name in modules_after(statement)}


def modules_after(statement: str) -> set[str]:
    """All modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import dreamer_async", HEAVY | {"typer"}),
        (
            "import dreamer_async.config, dreamer_async.store.events, dreamer_async.store.run_dir",
            HEAVY,
        ),
        ("import dreamer_async.cli", HEAVY),
        ("import dreamer_async.tui.app", HEAVY - {"numpy", "textual"}),
        ("from dreamer_async import envs", HEAVY - {"numpy"}),
        ("from dreamer_async import Run, Session, learn, train", {"torch"}),
    ],
)
def test_imports_stay_light(statement: str, absent: set[str]) -> None:
    assert loaded_after(statement) & absent == set()


@pytest.mark.parametrize(("options", "parsed"), [([], False), (["--ascii"], True)])
def test_watch_loads_little_before_the_dashboard(
    tmp_path: Path, options: list[str], parsed: bool
) -> None:
    """Neither a parser nor settings nor other commands, unless there are options."""
    (tmp_path / "run").mkdir()
    words = ["watch", str(tmp_path / "run"), *options]
    before = (
        "from dreamer_async import cli\nfrom dreamer_async.cli import launch\n"
        "import os\nlaunch.on_terminal = lambda: True\n"
    )
    stop = "os.execve = lambda *line: 1 / 0\n"
    call = f"try:\n    cli.main({words!r})\nexcept ZeroDivisionError:\n    pass"
    loaded = modules_after(before + stop + call)
    assert {top(name) for name in loaded} & HEAVY == set()
    unneeded = {"typer", "dreamer_async.config.config", "dreamer_async.cli.train"}
    assert loaded & unneeded == (unneeded if parsed else set())


def test_the_dashboard_loads_other_pages_when_they_are_turned_to() -> None:
    loaded = modules_after("import dreamer_async.tui.app")
    assert (
        "dreamer_async.tui.main_screen" in loaded and "dreamer_async.tui.pages.world" not in loaded
    )


def test_the_probe_sees_a_heavy_import() -> None:
    assert "numpy" in loaded_after("import dreamer_async.envs.spec")


COUNTED = """
import sys
calls = 0
def count(frame, event, argument):
    global calls
    calls += event == "call"
sys.setprofile(count)
try:
    from dreamer_async.cli import main
    main({words!r})
except SystemExit:
    pass
finally:
    sys.setprofile(None)
    print(calls, *sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("command", ["--help", "train --help", "runs --help", "version"])
def test_help_is_light_and_quick(command: str) -> None:
    """Calls of Python functions are counted, since seconds depend on what else a machine does."""
    calls, modules = calls_and_modules(command.split())
    assert {top(name) for name in modules} & HEAVY == set()
    assert calls < MOST_CALLS, "150,000 take half a second"


def test_a_slow_command_is_seen() -> None:
    assert calls_and_modules(["envs"])[0] > MOST_CALLS


def calls_and_modules(words: list[str]) -> tuple[int, list[str]]:
    """How many Python functions a command of a fresh interpreter calls, and what it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED.format(words=words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    calls, *modules = done.stderr.split()
    return int(calls), modules
