"""Series: bounded memory, extremes kept, honest means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamer_async.tui.read.series import Series


def filled(values: list[float], limit: int = 16) -> Series:
    series = Series(limit)
    for index, value in enumerate(values):
        series.append(10.0 * index, value, index)
    return series


def test_a_short_series_keeps_every_point() -> None:
    series = filled([3.0, 1.0, 2.0])
    assert series.x.tolist() == [0, 10, 20]
    assert series.mean.tolist() == series.low.tolist() == series.high.tolist() == [3, 1, 2]
    assert series.last == 2.0


def test_a_long_series_is_bounded_and_keeps_extremes_and_means() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=1024)
    values[333], values[700] = 99, -99
    series = filled(values.tolist())
    assert len(series) <= 16 and series.stride == 64
    assert series.high.max() == 99 and series.low.min() == -99
    assert series.mean == pytest.approx(values.reshape(16, 64).mean(axis=1))
    assert series.x[-1] == 10 * 1023


def test_a_cut_drops_what_came_later() -> None:
    series = filled([float(index) for index in range(10)])
    series.cut(4)
    assert series.mean.tolist() == [0, 1, 2, 3, 4] and series.last == 4
    series.append(50, 7.0, 5)
    assert series.mean.tolist() == [0, 1, 2, 3, 4, 7]


def test_a_cut_may_leave_nothing() -> None:
    series = filled([1.0, 2.0])
    series.cut(-1)
    assert len(series) == 0 and series.last is None
    assert series.rolling_mean(5).tolist() == []


def test_a_cut_goes_through_merged_buckets() -> None:
    series = filled([float(index) for index in range(40)])
    series.cut(20)
    assert series.stride == 4 and series.x[-1] == 190
    series.append(1000, 5.0, 21)
    assert series.mean[-1] == 5.0


@pytest.mark.parametrize("count", [0, 1, 7, 16, 17, 40, 100])
def test_the_points_behind_the_buckets_are_counted(count: int) -> None:
    series = filled([1.0] * count)
    assert series.points == count
    series.cut(10 * 6, "steps")
    assert series.points == min(count, 7) // series.stride * series.stride


@given(st.lists(st.floats(-1e6, 1e6), max_size=60), st.integers(1, 20))
def test_rolling_mean_equals_its_definition(values: list[float], window: int) -> None:
    result = filled(values, limit=64).rolling_mean(window).tolist()
    expected = [np.mean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))]
    assert result == pytest.approx(expected, abs=1e-3)


@given(st.lists(st.floats(-1e6, 1e6), max_size=60), st.integers(1, 20))
def test_rolling_quartiles_equal_their_definition(values: list[float], window: int) -> None:
    places = np.arange(0, len(values), 3)
    low, high = filled(values, limit=64).rolling_quartiles(window, places)
    windows = [values[max(0, i + 1 - window) : i + 1] for i in places]
    assert low.tolist() == pytest.approx([np.percentile(part, 25) for part in windows])
    assert high.tolist() == pytest.approx([np.percentile(part, 75) for part in windows])


def test_one_enormous_value_spoils_no_later_mean() -> None:
    values = [1.0] * 10 + [1e100] + [1.0] * 30
    assert filled(values, limit=64).rolling_mean(5)[-1] == 1.0
    sums = np.cumsum(values)
    assert not math.isclose((sums[-1] - sums[-6]) / 5, 1.0), "running sums would have passed"


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=300))
def test_no_series_loses_its_range(values: list[float]) -> None:
    series = filled(values, limit=8)
    assert series.low.min() == min(values) and series.high.max() == max(values)
    assert len(series) <= 8
    weights = np.full(len(series), series.stride)
    weights[-1] = len(values) - series.stride * (len(series) - 1)
    assert (series.mean * weights).sum() == pytest.approx(sum(values), abs=1e-6)


@given(st.lists(st.tuples(st.floats(-10, 10), st.booleans()), max_size=80), st.integers(1, 30))
def test_looking_changes_nothing(points: list[tuple[float, bool]], cut: int) -> None:
    """A series stores its points together when somebody looks."""
    looked_at, left_alone = Series(8), Series(8)
    for index, (value, look) in enumerate(points):
        for series in (looked_at, left_alone):
            series.append(10.0 * index, value, index, 0.5 * index)
        if look:
            assert len(looked_at.mean) == len(looked_at)
    assert looked_at == left_alone
    for series in (looked_at, left_alone):
        series.cut(cut)
        series.append(99, 1.0, 99)
    assert looked_at == left_alone != Series(8)


def test_more_points_than_wait_are_stored() -> None:
    series = filled([float(index) for index in range(5000)], limit=8192)
    assert series.mean.tolist() == list(range(5000)) and series.along("updates")[-1] == 4999
