"""Strict values: frozen dataclasses to and from JSON and command-line text.

The dataclass is the schema. Supported annotations: bool, int, float, str, a union of one of
them with None, tuple[X, ...], Mapping[str, X], Any (whatever JSON has) and nested dataclasses.
Nothing is coerced but an int where a float is asked for.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from numbers import Integral, Real
from typing import Any

LARGEST = 1 << 53
"""No whole number of a run goes further; floats are exact up to here."""
DEEPEST = 32
"""Objects and lists inside each other that JSON of ours never reaches."""


class ConfigError(ValueError):
    """A setting is wrong; the message is one line that names it and what would work."""


class SchemaError(ValueError):
    """A value does not fit its field; the message says what would."""


def nearest(
    word: str, known: typing.Iterable[str], stand_for: Mapping[str, str] | None = None
) -> str:
    """Say what `word` may have meant: ' (did you mean a or b?)', or nothing.

    Known words that stand for others are not named themselves.
    """
    close = get_close_matches(word, list(known), n=3, cutoff=0.6)
    matches = dict.fromkeys((stand_for or {}).get(match, match) for match in close)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""


@cache
def field_types(cls: type) -> Mapping[str, Any]:
    """Resolved annotation of each field of a dataclass, in order."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


@cache
def required(cls: type) -> frozenset[str]:
    """Names of the fields without a default."""
    missing = dataclasses.MISSING
    return frozenset(
        f.name
        for f in dataclasses.fields(cls)
        if f.default is missing and f.default_factory is missing
    )


def describe(kind: Any) -> str:
    """Name a type the way a person would."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return f"{describe(args[0]).removeprefix('a ')}s separated by commas"
    if origin is types.UnionType:
        return " or ".join("null" if a is type(None) else describe(a) for a in args)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(kind, "an object")


# -- from JSON ---------------------------------------------------------------------------------


def parse_json(data: bytes) -> Any:
    """Read JSON that may come from anyone; raises ValueError for what is none or nested deeply.

    What this returns can be walked, printed and encoded again by recursion.
    """
    try:
        value = json.loads(data.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("nested too deeply")


def _inside(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def decode(cls: type, data: Any, *, extra: bool = False, where: str = "") -> Any:
    """Build the dataclass `cls` from a JSON object; `extra` allows (and drops) unknown keys."""
    if not isinstance(data, Mapping):
        raise SchemaError(f"{where or cls.__name__}: expected an object, got {shown(data)}")
    fields = field_types(cls)
    prefix = f"{where}." if where else ""
    if not extra:
        for key in data:
            if key not in fields:
                raise SchemaError(
                    f"unknown key {named(prefix + str(key))}{nearest(str(key), fields)}"
                )
    for name in required(cls):
        if name not in data:
            raise SchemaError(f"missing key {prefix}{name}")
    return cls(**{k: _value(t, data[k], prefix + k) for k, t in fields.items() if k in data})


def _value(kind: Any, value: Any, where: str) -> Any:
    """Check one JSON value against an annotation."""
    if kind is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _finite(value, where)
    elif kind in (bool, int):
        if type(value) is kind:
            return _bounded(value, where)
    elif kind is str:
        if isinstance(value, str):
            return _printable(value, where)
    elif kind is Any:
        return _json(value, where)
    elif dataclasses.is_dataclass(kind):
        return decode(typing.cast(type, kind), value, where=where)
    else:
        return _compound(kind, value, where)
    raise SchemaError(f"{where}: expected {describe(kind)}, got {shown(value)}")


def _compound(kind: Any, value: Any, where: str) -> Any:
    """Check a union with None, a tuple or a mapping."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _value(args[0], value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_value(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is Mapping and isinstance(value, Mapping):
        return {
            _value(args[0], k, where): _value(args[1], v, f"{where}[{named(str(k))}]")
            for k, v in value.items()
        }
    raise SchemaError(f"{where}: expected {describe(kind)}, got {shown(value)}")


def _json(value: Any, where: str) -> Any:
    """Check whatever JSON can hold."""
    if isinstance(value, Mapping):
        return _value(Mapping[str, Any], value, where)
    if isinstance(value, (list, tuple)):
        return [_value(Any, each, f"{where}[{i}]") for i, each in enumerate(value)]
    return None if value is None else _value(type(value), value, where)


def _bounded(value: int, where: str) -> int:
    """Refuse numbers that no run reaches, which floats and arrays could not take either."""
    if abs(value) > LARGEST:
        raise SchemaError(f"{where}: {shown(value)} is too large, {LARGEST} is the most")
    return value


def named(key: str) -> str:
    """A key of somebody's file as it may stand in a message."""
    return key[:80] if key.isprintable() else shown(key)


def _finite(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SchemaError(f"{where}: expected a finite number, got {shown(value)}")
    return number


def _printable(value: str, where: str) -> str:
    """Refuse lone surrogates, which no terminal and no file can take."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SchemaError(f"{where}: the text is not valid Unicode") from None
    return value


def shown(value: Any) -> str:
    """A short, one-line, printable picture of a wrong value."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


# -- to JSON -----------------------------------------------------------------------------------


def encode(value: Any) -> Any:
    """Turn a dataclass into JSON values; non-finite numbers become None, bad text is mended."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {encode(str(k)): encode(v) for k, v in value.items()}
    assert isinstance(value, (list, tuple)), f"not a JSON value: {type(value)}"
    return [encode(v) for v in value]


# -- from command-line text --------------------------------------------------------------------


def parse(kind: Any, text: str, where: str) -> Any:
    """Read one value as its annotation says: 1_000, 1e5 and 2.5m are ints, true is a bool."""
    text = text.strip()
    if kind is str:
        return _printable(text, where)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        parts = text.strip("()[]").split(",") if text.strip("()[] ") else []
        return tuple(parse(args[0], part, where) for part in parts)
    if origin is Mapping:
        return _parse_mapping(args[1], text, where)
    if kind is Any:
        return _parse_any(text, where)
    value = _parse_bool(text) if kind is bool else _parse_number(kind, text)
    if value is None:
        raise SchemaError(f"{where}: expected {describe(kind)}, got {shown(text)}")
    return _bounded(value, where) if isinstance(value, int) else value


def _parse_mapping(kind: Any, text: str, where: str) -> dict[str, Any]:
    """Read a JSON object, or key=value with commas between."""
    if text.startswith("{"):
        return _value(Mapping[str, kind], _parse_any(text, where), where)
    pairs = [each.partition("=") for each in text.split(",")] if text else []
    if wrong := [key for key, sign, _ in pairs if not (sign and key.strip())]:
        raise SchemaError(f"{where}: expected key=value, got {shown(wrong[0])}")
    return {key.strip(): parse(kind, value, f"{where}[{key.strip()}]") for key, _, value in pairs}


_PYTHON = {"True": True, "False": False, "None": None}


def _parse_any(text: str, where: str) -> Any:
    """Read JSON or Python's True, False and None; anything else is text, such as 4x4."""
    if text in _PYTHON:
        return _PYTHON[text]
    try:
        value = parse_json(text.encode())
    except ValueError:
        if text[:1] in ("{", "[", '"'):
            raise SchemaError(f"{where}: {shown(text)} is not valid JSON") from None
        value = text
    return _json(value, where)


def _parse_bool(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


_THOUSANDS = {"k": "e3", "m": "e6", "b": "e9"}


def _parse_number(kind: Any, text: str) -> int | float | None:
    """Parse an int or a float; None if the text is neither, not finite or too long to be meant.

    Whole numbers may end in k, m or b; with seconds, m would not be clear.
    """
    if not text.isascii() or len(text) > 40:
        return None
    if kind is int and (power := _THOUSANDS.get(text[-1:].lower())):
        text = text[:-1] + power
    try:
        if kind is int and not set(text.lower()) & set(".e"):
            return int(text)
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        return None
    return int(number) if kind is int else number
