"""docs/api.md: the public names and what they return, read from the source and its docstrings.

`python -m dreamer_async.cli.api` prints it.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from textwrap import dedent
from typing import Any, NamedTuple

import dreamer_async

PACKAGE = dreamer_async.__name__


class Entry(NamedTuple):
    """One value of a class."""

    name: str
    type: str
    """As it is written; may be empty."""
    about: str
    """What it is."""


def markdown() -> str:
    """The whole of docs/api.md."""
    functions = public()
    sections = [_HEAD, *map(_function, functions), *map(_class, returned(functions))]
    return "\n\n".join(sections) + "\n"


def public() -> list[Any]:
    """What the package offers, in order of its names."""
    offered = [getattr(dreamer_async, name) for name in sorted(dreamer_async.__all__)]
    return [each for each in offered if not isinstance(each, str)]


def returned(offered: list[Any]) -> list[type]:
    """Classes of ours that are offered or returned, those included that their methods return."""
    found: dict[type, None] = {}
    waiting = list(offered)
    while waiting:
        each = waiting.pop(0)
        if inspect.isclass(each):
            if each in found:
                continue
            found[each] = None
            waiting += [member for _, member in _functions(each)]
        else:
            waiting += _result(each)
    return list(found)


def unexplained(offered: list[Any]) -> list[str]:
    """Names without a docstring."""
    own = [(each.__name__, each) for each in offered + returned(offered)]
    inner = [
        (f"{kind.__name__}.{name}", function)
        for kind in returned(offered)
        for name, function in _functions(kind)
    ]
    return [name for name, each in own + inner if not _about(each)]


def _result(function: Any) -> list[type]:
    """Classes of ours in what a function returns."""
    words = re.findall(r"\w+", str(function.__annotations__.get("return", "")))
    known = [vars(sys.modules[function.__module__]).get(word) for word in words]
    return [each for each in known if inspect.isclass(each) and _is_ours(each)]


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == PACKAGE


def _functions(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods, and the functions behind public properties, in the order of the source."""
    for name, member in vars(kind).items():
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "__func__", function)  # of a class method
        if inspect.isfunction(function) and not name.startswith("_"):
            yield name, function


def _function(offered: Any) -> str:
    """The section of a function; what is a class has one below."""
    if inspect.isclass(offered):
        return f"## {PACKAGE}.{offered.__name__}\n\nSee [{offered.__name__}](#{_anchor(offered)})."
    name = f"{PACKAGE}.{offered.__name__}"
    return f"## {name}\n\n{_code(_declaration(offered, name))}\n\n{_about(offered)}"


def _class(kind: type) -> str:
    """The section of a class: its values in a list, and each of its methods."""
    values = [_row(each) for each in (*_values(kind), *_properties(kind))]
    methods = [
        f"### {kind.__name__}.{name}\n\n{_code(_declaration(method, name))}\n\n{_about(method)}"
        for name, method in _functions(kind)
        if not isinstance(vars(kind)[name], property)
    ]
    parts = [f"## {kind.__name__}", _about(kind), *_maker(kind), "\n".join(values), *methods]
    return "\n\n".join(filter(None, parts))


def _maker(kind: type) -> Iterator[str]:
    """How a class is called, if that is explained: then anyone may do so."""
    maker = vars(kind).get("__init__")
    if inspect.isfunction(maker) and maker.__doc__:
        yield _code(_declaration(maker, kind.__name__).removesuffix(" -> None"))
        yield _about(maker)


def _row(entry: Entry) -> str:
    about = " ".join(entry.about.split())
    return (
        f"* `{entry.name}: {entry.type}`: {about}" if entry.type else f"* `{entry.name}`: {about}"
    )


def _properties(kind: type) -> Iterator[Entry]:
    for name, function in _functions(kind):
        if isinstance(vars(kind)[name], property):
            yield Entry(name, str(function.__annotations__["return"]), _about(function))


def _values(kind: type) -> list[Entry]:
    """Fields, and attributes that are set when one is made, where a text below explains them."""
    [body] = ast.parse(dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef), kind
    makers = [each for each in body.body if getattr(each, "name", "") == "__init__"]
    blocks = [body.body, *(getattr(node, "body", []) for make in makers for node in ast.walk(make))]
    pairs = [pair for block in blocks if isinstance(block, list) for pair in pairwise(block)]
    return [entry for pair in sorted(pairs, key=_line) for entry in _value(*pair)]


def _line(pair: tuple[ast.stmt, ast.stmt]) -> int:
    return pair[0].lineno


def _value(value: ast.stmt, text: ast.stmt) -> Iterator[Entry]:
    """The entry of an assignment that a text follows; nothing for all other pairs."""
    if not isinstance(value, ast.AnnAssign | ast.Assign) or not isinstance(text, ast.Expr):
        return
    target = value.target if isinstance(value, ast.AnnAssign) else value.targets[0]
    name = ast.unparse(target).removeprefix("self.")
    if isinstance(text.value, ast.Constant) and not name.startswith("_"):
        kind = ast.unparse(value.annotation) if isinstance(value, ast.AnnAssign) else ""
        yield Entry(name, kind, str(text.value.value))


def _declaration(function: Any, name: str) -> str:
    """The first lines of a function, an argument a line where they are long."""
    [made] = ast.parse(dedent(inspect.getsource(function))).body
    assert isinstance(made, ast.FunctionDef | ast.AsyncFunctionDef), function
    end = f") -> {ast.unparse(made.returns)}" if made.returns else ")"
    arguments = [each for each in _arguments(made.args) if each not in ("self", "cls")]
    line = f"{name}({', '.join(arguments)}{end}"
    if len(line) <= 88:
        return line
    return "\n".join([f"{name}(", *(f"    {each}," for each in arguments), end])


def _arguments(given: ast.arguments) -> Iterator[str]:
    """Each argument with its type and default, and the stars between them."""
    plain = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(plain) - len(given.defaults)) + list(given.defaults)
    yield from map(_argument, plain, defaults)
    if given.vararg or given.kwonlyargs:
        yield "*" + (_argument(given.vararg, None) if given.vararg else "")
    yield from map(_argument, given.kwonlyargs, given.kw_defaults)
    if given.kwarg:
        yield "**" + _argument(given.kwarg, None)


def _argument(given: ast.arg, default: ast.expr | None) -> str:
    text = f"{given.arg}: {ast.unparse(given.annotation)}" if given.annotation else given.arg
    return text if default is None else f"{text} = {ast.unparse(default)}"


def _about(explained: Any) -> str:
    return inspect.getdoc(explained) or ""


def _anchor(kind: type) -> str:
    return kind.__name__.lower()


def _code(text: str) -> str:
    """A block that is shown as Python and is none that could be run."""
    return f"```py\n{text}\n```"


_HEAD = f"""\
# Python interface

Generated from the docstrings of `{PACKAGE}` and what it returns by `just docs`; the
[tutorial](tutorial.md) shows it at work. Names that are not here may change. Mistakes of the user
are a `ValueError` of one line that says what was given and what would work; `CheckpointError` is in
`{PACKAGE}.store.checkpoint`, `EnvError` in `{PACKAGE}.envs`."""


if __name__ == "__main__":
    print(markdown(), end="")
