"""Strict values from JSON and from command-line text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamer_async.config.schema import SchemaError, decode, describe, encode, nearest, parse


@dataclass(frozen=True)
class Inner:
    ratio: float = 1.0
    widths: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    name: str
    count: int
    inner: Inner = field(default_factory=Inner)
    flag: bool = False
    score: float | None = None
    values: Mapping[str, float | None] = field(default_factory=dict)


ANY = Mapping[str, Any]
GOOD = {"name": "a", "count": 3}


def test_decode_takes_what_encode_gives() -> None:
    value = Outer("a", 3, Inner(0.5, (4,)), True, -1.5, {"x": None, "y": 2.0})
    assert decode(Outer, encode(value)) == value


def test_decode_turns_an_int_into_the_float_that_is_asked_for() -> None:
    inner = decode(Inner, {"ratio": 2})
    assert inner.ratio == 2.0
    assert type(inner.ratio) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": "3"}, "count: expected a whole number, got '3'"),
        ({"count": 3.0}, "count: expected a whole number"),
        ({"count": True}, "count: expected a whole number"),
        ({"count": None}, "count: expected a whole number"),
        ({"flag": 1}, "flag: expected true or false"),
        ({"name": 3}, "name: expected text"),
        ({"name": "\ud800"}, "not valid Unicode"),
        ({"score": "high"}, "score: expected a number"),
        ({"score": True}, "score: expected a number"),
        ({"score": 10**400}, "score: expected a finite number"),
        ({"score": float("nan")}, "score: expected a finite number"),
        ({"inner": []}, "inner: expected an object"),
        ({"inner": {"ratio": []}}, "inner.ratio: expected a number"),
        ({"inner": {"widths": [1, "2"]}}, "inner.widths[1]: expected a whole number"),
        ({"inner": {"widths": 1}}, "inner.widths: expected whole numbers"),
        ({"inner": {"ration": 1}}, "unknown key inner.ration (did you mean ratio?)"),
        ({"values": {"x": "1"}}, "values[x]: expected a number"),
        ({"values": [1]}, "values: expected an object"),
        ({"nam": 1}, "unknown key nam (did you mean name?)"),
    ],
)
def test_decode_names_the_field_and_what_it_wants(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError) as error:
        decode(Outer, GOOD | change)
    assert message in str(error.value)


def test_decode_misses_required_keys_and_may_ignore_extra_ones() -> None:
    with pytest.raises(SchemaError, match="missing key count"):
        decode(Outer, {"name": "a"})
    assert decode(Outer, GOOD | {"later": 1}, extra=True) == Outer("a", 3)


def test_encode_mends_what_json_cannot_say() -> None:
    encoded = encode(Outer("\ud800", 3, score=float("inf"), values={"x": float("nan")}))
    assert encoded["name"] == "?"
    assert encoded["score"] is None
    assert encoded["values"] == {"x": None}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "1_000", 1000),
        (int, "1e5", 100_000),
        (int, "-3", -3),
        (int, "2.0", 2),
        (float, "1e-4", 1e-4),
        (float, "3", 3.0),
        (bool, "true", True),
        (bool, "False", False),
        (str, " a b ", "a b"),
        (tuple[int, ...], "2,3,4", (2, 3, 4)),
        (ANY, "", {}),
        (ANY, "a=false, b=4,c=4x4,d=None", {"a": False, "b": 4, "c": "4x4", "d": None}),
        (ANY, '{"rows": ["SF", "FG"]}', {"rows": ["SF", "FG"]}),
        (Mapping[str, str], "a=1,b=", {"a": "1", "b": ""}),
        (tuple[int, ...], "(2, 3)", (2, 3)),
        (tuple[int, ...], "", ()),
    ],
)
def test_parse_reads(kind: Any, text: str, value: Any) -> None:
    result = parse(kind, text, "key")
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (int, "1.5"),
        (int, "nan"),
        (int, ""),
        (int, "0x10"),
        (int, "٣"),
        (int, "9" * 5000),
        (float, "inf"),
        (float, "1e999"),
        (float, "one"),
        (bool, "1"),
        (bool, "yes"),
        (tuple[int, ...], "2,,3"),
        (tuple[int, ...], "2,x"),
        (str, "\udcff"),
        (ANY, "a"),
        (ANY, "=1"),
        (ANY, "a=1,,b=2"),
        (ANY, "{"),
        (ANY, '{"a": NaN}'),
        (ANY, "a=1e999"),
        (ANY, "a=" + "9" * 50),
        (ANY, "a=" + "[" * 50),
        (ANY, '{"a": "\\udcff"}'),
        (Mapping[str, str], '{"a": 1}'),
    ],
)
def test_parse_refuses(kind: Any, text: str) -> None:
    with pytest.raises(SchemaError, match=r"^key"):
        parse(kind, text, "key")


@given(st.sampled_from([int, float, bool, str, tuple[int, ...], ANY]), st.text(max_size=50))
def test_parse_gives_the_asked_type_or_a_schema_error(kind: Any, text: str) -> None:
    try:
        value = parse(kind, text, "key")
    except SchemaError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(value, get_origin(kind) or kind)


def test_nearest_and_describe_speak_to_people() -> None:
    assert nearest("pogn", ["pong", "breakout"]) == " (did you mean pong?)"
    assert nearest("zzz", ["pong"]) == ""
    assert describe(float | None) == "a number or null"
