"""Arguments that a program gives, checked against the annotations of the function that takes them.

Numbers and flags may also be given as the command line takes them: "10k", "1e6", "false".
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable, Container, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from dreamer_async.config.schema import ConfigError, SchemaError, describe, parse, shown

P = ParamSpec("P")
R = TypeVar("R")

LEFT = frozenset({"env"})
"""Arguments that whoever reads them checks, and has more to say about."""
_FLAG = re.compile(
    r"""(?<![\w"'-])                              # neither within a word nor given by the user
    (?:--as[ ](?P<key>[^\s=]+)=(?P<kind>[\w:]+)
    |-s[ ](?P<setting>[\w.]+)=(?P<value>[\w.-]+)
    |--(?P<flag>[a-z]+(?:-[a-z]+)*))""",
    re.VERBOSE,
)
_RENAMED = {"envs": "num_envs", "env-arg": "env_args"}
"""Flags whose arguments have another name."""
_REFUSED = object()
_SCALARS = (bool, int, float)
_NAMES = {Sequence: "a list of texts", Mapping: "a dict", Callable: "a function"}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function be called only with arguments of the kinds that it declares.

    A wrong one is a ConfigError that names it, with what was given and what would work. So is
    what the function itself refuses, by the names of its arguments and not of the flags.
    """
    signature = inspect.signature(function)

    @functools.cache
    def kinds() -> Mapping[str, Any]:
        return typing.get_type_hints(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python says best what is missing or unknown
        for name in bound.arguments.keys() & kinds().keys() - LEFT:
            bound.arguments[name] = argument(kinds()[name], bound.arguments[name], name)
        try:
            return function(*bound.args, **bound.kwargs)
        except ValueError as error:
            if error.args == (str(error),):
                error.args = (in_python(str(error), signature.parameters),)
            raise

    return wrapper


def in_python(text: str, known: Container[str]) -> str:
    """Name the flags of a message by the arguments of these names that they are in Python.

    Commands between backquotes stay as they are, and so does a message that speaks of both.
    """

    def argument_of(flag: re.Match[str]) -> str:
        if flag["flag"]:
            name = _RENAMED.get(flag["flag"], flag["flag"].replace("-", "_"))
            return name if name in known else flag[0]
        if "settings" not in known:
            return flag[0]
        if flag["key"]:
            return f'settings={{"env.kinds": {{"{flag["key"]}": "{flag["kind"]}"}}}}'
        return f'settings={{"{flag["setting"]}": {flag["value"]}}}'

    if "in Python" in text:
        return text
    parts = text.split("`")
    parts[::2] = [_FLAG.sub(argument_of, part) for part in parts[::2]]
    return "`".join(parts)


def argument(kind: Any, value: Any, name: str) -> Any:
    """The value as an annotation wants it; ConfigError for one of another kind."""
    union = typing.get_origin(kind) is types.UnionType
    choices = typing.get_args(kind) if union else (kind,)
    nowhere = Path in choices and isinstance(value, str) and (not value or "\0" in value)
    for choice in choices:
        taken = _REFUSED if nowhere else _taken(choice, value)
        if taken is not _REFUSED:
            return taken
    known = " or ".join(dict.fromkeys(_described(each, choices) for each in choices))
    raise ConfigError(f"{name}: expected {known}, got {shown(value)}")


def _taken(kind: Any, value: Any) -> Any:
    """The value as one kind wants it, or _REFUSED."""
    origin = typing.get_origin(kind) or kind
    if kind in _SCALARS:
        return _scalar(kind, value)
    if origin is Path:
        return value if isinstance(value, os.PathLike) else _REFUSED
    if origin is Sequence:
        listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        return value if listed and all(isinstance(each, str) for each in value) else _REFUSED
    if kind is Any or getattr(origin, "_is_protocol", False):
        return value
    return value if isinstance(value, origin) else _REFUSED


def _scalar(kind: Any, value: Any) -> Any:
    """A number or a flag of any type that means one; not NaN."""
    if isinstance(value, str):
        try:
            return parse(kind, value, "")
        except SchemaError:
            return _REFUSED
    flag = type(value).__name__ in ("bool", "bool_")  # numpy's, too, which is none of Python's
    if flag or kind is bool:
        return bool(value) if flag and kind is bool else _REFUSED
    if not isinstance(value, Real) or math.isnan(value):
        return _REFUSED
    if kind is float:
        return value
    number: Any = value  # a Real has no int() in the types of the standard library
    return int(number) if math.isfinite(number) and number == int(number) else _REFUSED


def _described(kind: Any, choices: Sequence[Any]) -> str:
    """Name one of several kinds the way a person would."""
    if kind in (str, Path) and Path in choices:
        return "a name or a path"
    origin = typing.get_origin(kind) or kind
    if kind in (*_SCALARS, str):
        return describe(kind)
    module = getattr(origin, "__module__", "").partition(".")[0]
    return _NAMES.get(origin) or (
        "None" if kind is types.NoneType else f"a {module} {origin.__name__}"
    )
