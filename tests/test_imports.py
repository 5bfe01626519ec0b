"""Who may import whom: the rules of docs/cli.md, checked on the source and in real processes."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("dreamer_async", "envs", "tui")
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
FLOOR = {
    "dreamer_async.run.aio",
    "dreamer_async.config",
    "dreamer_async.config.config",
    "dreamer_async.machine.console",
    "dreamer_async.store.control_dir",
    "dreamer_async.store.directory",
    "dreamer_async.store.events",
    "dreamer_async.run.exit_codes",
    "dreamer_async.machine.interpreter",
    "dreamer_async.store.json_file",
    "dreamer_async.run.limiter",
    "dreamer_async.store.regular_file",
    "dreamer_async.store.run_dir",
    "dreamer_async.store.run_lock",
    "dreamer_async.config.schema",
    "dreamer_async.config.settings",
}
"""Standard library only; aio starts uvloop inside a function."""
DATA = {
    "dreamer_async.replay.capacity",
    "dreamer_async.scores.curves",
    "dreamer_async.replay.online_queue",
    "dreamer_async.replay.replay",
    "dreamer_async.replay.files",
    "dreamer_async.replay.layout",
    "dreamer_async.replay.state",
    "dreamer_async.replay.ring",
}
"""Standard library, numpy and the floor."""
HEAVY = {"torch", "numpy", "envpool", "gymnasium", "textual", "safetensors", "uvloop"}
FRONT = {
    "dreamer_async.cli",
    "dreamer_async.cli.entry",
    "dreamer_async.cli.commands",
    "dreamer_async.cli.envs",
    "dreamer_async.cli.inputs",
    "dreamer_async.cli.launch",
    "dreamer_async.cli.machine",
    "dreamer_async.cli.options",
    "dreamer_async.cli.paths",
    "dreamer_async.store.removal",
    "dreamer_async.cli.runs",
    "dreamer_async.store.summary",
    "dreamer_async.cli.scores",
    "dreamer_async.cli.serve",
    "dreamer_async.cli.terminal",
    "dreamer_async.cli.train",
}
"""Only the command line uses these."""
BENCH = {
    "dreamer_async.bench",
    "dreamer_async.bench.reference",
    "dreamer_async.bench.report",
    "dreamer_async.bench.timing",
}
"""What the command line reads of the bench before it measures."""
LIGHT = {
    *FLOOR,
    *FRONT,
    *BENCH,
    *("dreamer_async.machine.compiler", "dreamer_async.cli.doctor", "dreamer_async.machine.nvidia"),
}
"""Importing these modules imports neither torch nor numpy."""
ASYNC_AND_FILES = {"asyncio", "logging", "os", "io", "pathlib", "json", "shutil", "tempfile"}


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
                yield full if full in SOURCES or f"{full}.__init__" in SOURCES else name


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def top(name: str) -> str:
    return name.partition(".")[0]


def third_party(names: set[str]) -> set[str]:
    return {top(n) for n in names} - set(sys.stdlib_module_names) - set(PACKAGES)


def violations(module: str, source: str) -> list[str]:
    """Every rule that the module's imports break, in words."""
    everywhere = set(imports(source, module))
    at_top = set(imports(source, module, top_only=True))
    ours = {n for n in everywhere if top(n) in PACKAGES}
    package = top(module)
    found = []

    def rule(text: str, names: set[str]) -> None:
        found.extend(f"{module} imports {name}: {text}" for name in sorted(names))

    if package == "envs":
        rule("envs knows none of our packages", {n for n in ours if top(n) != "envs"})
        rule("envs knows no torch", {n for n in everywhere if top(n) == "torch"})
    if package == "tui":
        seen = ("events", "run_dir", "json_file", "curves", "regular_file", "exit_codes")
        rule(
            f"tui knows {', '.join(seen)}",
            {n for n in ours if top(n) != "tui"} - {f"dreamer_async.{name}" for name in seen},
        )
        rule(
            "tui uses numpy, rich, textual", third_party(everywhere) - {"numpy", "rich", "textual"}
        )
    else:
        rule("nothing imports tui", {n for n in ours if top(n) == "tui"})
    if module in FLOOR:
        rule("the floor knows the floor", {n for n in ours if n != "dreamer_async"} - FLOOR)
        rule("the floor is standard library", third_party(at_top))
    if module in LIGHT:
        rule("heavy imports go inside functions", third_party(at_top) & HEAVY)
    if module in DATA:
        rule("data modules know the floor", ours - FLOOR - DATA)
        rule("data modules know numpy only", third_party(everywhere) - {"numpy"})
        rule("data modules know no asyncio", everywhere & {"asyncio"})
    if module.startswith("dreamer_async.agent"):
        allowed = {
            "dreamer_async.config",
            "dreamer_async.config.settings",
            "dreamer_async.envs.spec",
        }
        outside = {n for n in ours if not n.startswith("dreamer_async.agent")}
        rule("agent/ knows configs and specs", outside - allowed)
        rule("agent/ uses torch and numpy", third_party(everywhere) - {"torch", "numpy"})
        rule("agent/ knows no asyncio, files, logs", {top(n) for n in everywhere} & ASYNC_AND_FILES)
    if package != "dreamer_async" or module not in {*FRONT, "dreamer_async.__main__"}:
        rule("only the command line imports it", ours & FRONT)
    return found


@pytest.mark.parametrize("module", SOURCES)
def test_imports_follow_the_rules(module: str) -> None:
    assert violations(module, SOURCES[module].read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dreamer_async.envs.suites.toy", "import torch"),
        ("dreamer_async.envs.suites.toy", "def f():\n    from dreamer_async import config"),
        ("dreamer_async.tui.app", "from dreamer_async.config import resolve"),
        ("dreamer_async.tui.app", "from dreamer_async import config"),
        ("dreamer_async.tui.app", "import torch.nn"),
        ("dreamer_async.tui.widgets.chart", "from dreamer_async.envs import spec"),
        ("dreamer_async.run.pipeline", "import dreamer_async.tui.app"),
        ("dreamer_async.run.pipeline", "from dreamer_async import cli"),
        ("dreamer_async.store.events", "import numpy as np"),
        ("dreamer_async.store.run_dir", "from dreamer_async.replay.replay import Replay"),
        ("dreamer_async.cli", "import torch"),
        ("dreamer_async.cli", "from numpy import array"),
        ("dreamer_async.replay.replay", "import torch"),
        ("dreamer_async.replay.replay", "def f():\n    import asyncio"),
        ("dreamer_async.agent.losses", "import logging"),
        ("dreamer_async.agent.losses", "from pathlib import Path"),
        ("dreamer_async.agent.losses", "from dreamer_async.run.learner import Learner"),
        ("dreamer_async.agent.losses", "from ..learner import Learner"),
    ],
)
def test_the_checker_sees_a_violation(module: str, source: str) -> None:
    assert violations(module, source) != []


def test_the_checker_sees_every_package() -> None:
    assert {top(module) for module in SOURCES} == set(PACKAGES)
    assert {*FLOOR, *DATA, *FRONT, *LIGHT} <= set(SOURCES)


# -- circles ---------------------------------------------------------------------------------


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Every group of modules each of which leads to all others of it, by any way."""
    beyond: dict[str, set[str]] = {}
    for module in graph:
        beyond[module], waiting = set(), [module]
        while waiting:
            new = graph[waiting.pop()] - beyond[module]
            beyond[module] |= new
            waiting += new
    groups = {
        frozenset(other for other in beyond[module] if module in beyond[other]) for module in graph
    }
    return sorted(sorted(group) for group in groups if group)


def test_no_modules_need_each_other() -> None:
    """Imports in functions and for types count; inside the agent and its kernels some still do."""
    graph = {
        module: {name for name in imports(path.read_text(), module) if name in SOURCES}
        for module, path in SOURCES.items()
    }
    rest = ("dreamer_async.agent.", "dreamer_async.fast.cuda.")
    assert [group for group in circles(graph) if not group[0].startswith(rest)] == []


def test_circles_are_seen() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}, "e": set()}
    assert circles(graph) == [["b", "c"], ["d"]]
    source = "if TYPE_CHECKING:\n    from dreamer_async.tui.main_screen import Main"
    assert list(imports(source, "dreamer_async.tui.widgets.metric")) == [
        "dreamer_async.tui.main_screen"
    ]


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


@pytest.mark.parametrize("module", ["pictures", "picture", "rows", "stages", "alarms", "shown"])
def test_what_is_shown_is_decided_without_textual(module: str) -> None:
    assert "textual" not in loaded_after(f"import tui.{module}")


def test_the_probe_sees_a_heavy_import() -> None:
    assert "numpy" in loaded_after("import dreamer_async.envs.spec")


@pytest.mark.parametrize("command", ["--help", "train --help", "runs --help", "version"])
def test_help_is_light_and_quick(command: str) -> None:
    arguments = command.split()
    call = f"from dreamer_async.cli import main\nmain({arguments!r})"
    assert loaded_after(call) & HEAVY == set()
    quick = any(processor_seconds(arguments) < 1.0 for _ in range(5))
    assert quick, "help takes 0.15 s of processor time on a free machine"


def processor_seconds(arguments: list[str]) -> float:
    """What one call of the command line costs; more of it on a busy machine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "dreamer_async", *arguments],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
