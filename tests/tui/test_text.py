"""Words and numbers: nothing from a file may move the cursor, numbers stay short."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from dreamer_async.tui.draw.rows import named
from dreamer_async.tui.draw.text import (
    apart,
    clean,
    clock,
    count,
    duration,
    plain,
    plural,
    resolved,
    short,
    size,
    told_apart,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("\x1b[2J\x1b[Hgone", "[2J[Hgone"),
        ("a\nb\tc\rd", "a b c d"),
        ("\x9b31mred\x07", "31mred"),
        ("right\u202eleft\u200b", "rightleft"),
        ("[@click=app.quit]x[/]", "[@click=app.quit]x[/]"),
        ("grün 学习", "grün 学习"),
    ],
)
def test_clean(text: str, expected: str) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1490, "1.49 kB"),
        (409_600, "410 kB"),
        (999_600, "1.00 MB"),
        (348e6, "348 MB"),
        (2.5e9, "2.50 GB"),
        (3e12, "3.00k GB"),
    ],
)
def test_bytes_have_the_unit_that_suits_them(count: float, expected: str) -> None:
    assert size(count) == expected


def test_long_text_is_cut() -> None:
    assert clean("x" * 10_000, 20) == "x" * 19 + "…"
    assert len(clean("\x1b" * 10_000 + "x", 20)) <= 20


@given(st.text(), st.integers(1, 50))
def test_clean_text_has_no_controls(text: str, limit: int) -> None:
    result = clean(text, limit)
    assert len(result) <= limit
    assert not any(unicodedata.category(char).startswith("C") for char in result)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (0, "0"),
        (0.01234, "0.012"),
        (-0.5, "-0.500"),
        (0.99999, "1.00"),
        (12.345, "12.3"),
        (99.99, "100"),
        (999.6, "1.00k"),
        (1234, "1.23k"),
        (999_999, "1.00M"),
        (-51_000_000, "-51.0M"),
        (4.5e-5, "5e-5"),
        (-1e-300, "0"),
        (3e20, "3e20"),
        (float("nan"), "NaN"),
        (float("-inf"), "-inf"),
    ],
)
def test_short(value: float | None, expected: str) -> None:
    assert short(value) == expected


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_short_is_short(value: float) -> None:
    assert len(short(value)) <= 6


def test_counts() -> None:
    assert count(999) == "999"
    assert count(180_400) == "180k"
    assert plain(50_000) == "50k" and plain(2.5) == "2.5" and plain(-20) == "-20"
    assert plain(100) == "100" and plain(-0.0) == "0"
    assert plural(1, "window") == "1 window" and plural(2, "window") == "2 windows"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0s"),
        (42.9, "42s"),
        (187, "3m07s"),
        (7500, "2h05m"),
        (4 * 86_400 + 3 * 3600, "4d03h"),
        (1e12, "31709y"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_a_time_that_no_calendar_has() -> None:
    assert clock(0.0, "%Y") in ("1969", "1970")
    assert clock(1e300, "%Y") == clock(math.nan, "%Y") == clock(1e17, "%Y") == "–"
    assert len(duration(1e300)) <= 6


def test_close_numbers_look_different() -> None:
    assert apart(1.0979, 1.0986) == ("1.098", "1.099")
    assert apart(1.0, 2.0) == ("1.00", "2.00")
    assert apart(1234.1, 1234.2) == ("1.23k", "+0.100"), "six characters are not enough"
    assert apart(1.098600, 1.098612) == ("1.0986", "+1e-5")


@pytest.mark.parametrize(
    ("width", "shown"),
    [(30, "env stepping, policy, insert"), (27, "env stepping, policy, …"), (14, "env stepping,…")],
)
def test_names_are_cut_between_them(width: int, shown: str) -> None:
    assert named("env stepping, policy, insert", width) == shown
    assert cell_len(named("env stepping, policy, insert", width)) <= width


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.0, 5e6, 1e7], ["0", "5M", "10M"]),
        ([34.20e6, 34.21e6, 34.22e6], ["34.2M", "34.21M", "34.22M"]),
        ([999_900.0, 1_000_000.0, 1_000_100.0], ["0.9999M", "1M", "1.0001M"]),
        ([12.301, 12.302], ["12.301", "12.302"]),
        ([7.0], ["7"]),
        ([], []),
    ],
)
def test_evenly_spaced_numbers_are_told_apart(values: list[float], texts: list[str]) -> None:
    assert told_apart(values) == texts


@given(st.floats(-1e100, 1e100), st.floats(0, 1e100))
def test_no_step_makes_a_number_long(value: float, step: float) -> None:
    assert len(resolved(value, step)) <= 18
    assert resolved(value, 1e101) == plain(value)
