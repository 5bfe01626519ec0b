"""Charts: literal braille for small inputs, extremes kept, nothing breaks on odd input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dreamer_async.tui.draw.axis import (
    Scale,
    decades,
    step_scale,
    ticks,
    value_scale,
    wants_log,
)
from dreamer_async.tui.draw.chart import draw, layer, rule, shade, text_rows
from dreamer_async.tui.draw.picture import Curve, Picture
from dreamer_async.tui.draw.rows import Part, Row
from dreamer_async.tui.draw.trace import LIMIT, Trace
from dreamer_async.tui.widgets.chart import Chart, legend_row


def array(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def rows(trace: Trace, width: int, height: int, *, log: bool = False) -> list[str]:
    """Draw one trace on its own scales."""
    up, across = value_scale([trace], log=log), step_scale([trace])
    assert up is not None and across is not None
    return text_rows(layer([draw(trace, across, up, width, height)])[0])


def test_a_rising_line() -> None:
    trace = Trace(array(0, 1, 2, 3), array(0, 1, 2, 3))
    assert rows(trace, 2, 1) == ["⣠⠞"]


def test_a_jump_is_one_connected_line() -> None:
    trace = Trace(array(0, 1, 2, 3), array(0, 0, 3, 3))
    assert rows(trace, 2, 1) == ["⣠⠏"]


def test_a_gap_is_crossed_in_a_straight_line() -> None:
    trace = Trace(array(0, 7), array(0, 7))
    assert rows(trace, 4, 2) == ["  ⡴⠋", "⣠⠞⠁ "]


def test_dots_stand_alone() -> None:
    trace = Trace(array(0, 1, 2, 3), array(0, 3, 0, 3), kind="dots")
    assert rows(trace, 2, 1) == ["⡈⡈"]


def test_a_constant_series_is_a_line_in_the_middle() -> None:
    trace = Trace(array(0, 1, 2, 3), array(5, 5, 5, 5))
    assert rows(trace, 2, 2) in (["⣀⣀", "  "], ["  ", "⠉⠉"])
    assert rows(Trace(array(0, 1), array(0, 0)), 1, 1) in (["⠤"], ["⠒"])


def test_one_point_is_one_dot() -> None:
    (row,) = rows(Trace(array(7), array(3)), 1, 1)
    assert (ord(row) - 0x2800).bit_count() == 1


def test_log_axis_gives_every_decade_the_same_height() -> None:
    trace = Trace(array(0, 1, 2, 3), array(1, 10, 100, 1000))
    assert rows(trace, 2, 1, log=True) == ["⣠⠞"]


def test_log_axis_leaves_out_what_has_no_place_on_it() -> None:
    trace = Trace(array(0, 1, 2, 3, 4), array(1, 10, -5, 100, 1000))
    up = value_scale([trace], log=True)
    assert up == Scale(1, 1000, log=True)
    across = step_scale([trace])
    assert up is not None and across is not None
    assert draw(trace, across, up, 4, 2).any()


def test_log_axis_without_positive_values_is_linear() -> None:
    assert value_scale([Trace(array(0, 1), array(-2, -1))], log=True) == Scale(-2, -1)


def test_the_top_layer_owns_its_cells() -> None:
    across, up = Scale(0, 3), Scale(0, 3)
    flat = draw(Trace(array(0, 3), array(0, 0)), across, up, 2, 1)
    point = draw(Trace(array(0), array(3), kind="dots"), across, up, 2, 1)
    codes, owners = layer([flat, point])
    assert text_rows(codes) == ["⠁⣀"]
    assert owners.tolist() == [[1, 0]]


def test_every_pattern_of_dots_is_its_braille_character() -> None:
    """Unicode counts the dots of a cell down the left column, down the right, then the last row."""
    order = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1)]
    canvas = np.zeros((4, 2 * 256), np.bool_)
    for code in range(256):
        for bit, (row, column) in enumerate(order):
            canvas[row, 2 * code + column] = code >> bit & 1
    codes, owners = layer([canvas])
    assert codes.tolist() == [list(range(256))] and owners.tolist() == [[-1] + [0] * 255]
    assert text_rows(codes) == [" " + "".join(chr(0x2800 + code) for code in range(1, 256))]


def test_a_range_covers_cells_by_half_and_never_vanishes() -> None:
    up, across, x = Scale(0, 16), Scale(0, 7), array(0, 7)
    for low, high, expected in [
        (3, 12, [False, True, True, False]),
        (1, 15, [True] * 4),
        (9, 9, [False, True, False, False]),
    ]:
        trace = Trace(x, x, array(low, low), array(high, high))
        assert shade(trace, across, up, 4, 4).T.tolist() == [expected] * 4, (low, high)
    left = Trace(array(0, 3), array(0, 0), array(0, 0), array(16, 16))
    assert shade(left, across, up, 4, 4).all(axis=0).tolist() == [True, True, False, False]
    wedge = Trace(x, x, array(0, 0), array(0, 16))
    assert shade(wedge, across, up, 4, 4).sum(axis=0).tolist() == [1, 2, 3, 4], "no comb"


def test_the_ground_lies_below_curves_and_keeps_their_looks() -> None:
    x = array(*range(8))
    line = Curve(Trace(x, np.full(8, 7.5)))
    ground = Curve(Trace(x, x, np.zeros(8), np.full(8, 15.0)), "ground")
    chart = Chart()
    chart.picture = Picture("", curves=[line], grounds=[ground])
    looks = {part.look for row in chart.paint(12, 6)[1:] for part in row if part.text.strip(" ")}
    assert looks == {"line@ground"}
    chart.picture = Picture("", curves=[line])
    looks = {part.look for row in chart.paint(12, 6)[1:] for part in row if part.text.strip(" ")}
    assert looks == {"line"}


def test_a_legend_says_what_fits_and_no_part_of_it() -> None:
    short, long = [Part("ab")], [Part("abcdef")]
    assert said(legend_row([[long, short], [long]], 14)) == "abcdef  abcdef"
    assert said(legend_row([[long, short], [long]], 13)) == "abcdef abcdef", "closer"
    assert said(legend_row([[long, short], [long], [short]], 10)) == "abcdef  ab"
    assert said(legend_row([[long, short], [long]], 5)) == "ab"
    assert said(legend_row([[long]], 5)) == ""


def said(row: Row) -> str:
    return "".join(part.text for part in row)


def test_reference_line_is_dotted_and_only_inside_the_range() -> None:
    assert text_rows(layer([rule(0, Scale(0, 3), 3, 1)])[0]) == ["⡀⡀⡀"]
    assert not rule(9, Scale(0, 3), 3, 1).any()
    assert not rule(-1, Scale(1, 3, log=True), 3, 1).any()


# --- decimation -----------------------------------------------------------------------------


def spiky() -> Trace:
    """100,000 points near zero with one spike up and one down."""
    x = np.arange(100_000, dtype=np.float64)
    y = np.sin(x / 900)
    y[31_415], y[77_777] = 50, -50
    return Trace(x, y)


def mean_decimated(trace: Trace, size: int) -> Trace:
    """The wrong way: average whatever falls into a column."""
    return Trace(
        trace.x.reshape(size, -1).mean(axis=1),
        trace.y.reshape(size, -1).mean(axis=1),
    )


def reaches_both_spikes(trace: Trace) -> bool:
    canvas = draw(trace, Scale(0, 99_999), Scale(-50, 50), 50, 10)
    return bool(canvas[0].any() and canvas[-1].any())


def test_spikes_survive_decimation() -> None:
    assert reaches_both_spikes(spiky())


def test_the_spike_test_sees_a_mean_decimator() -> None:
    assert not reaches_both_spikes(mean_decimated(spiky(), 100))


def test_every_column_spans_its_smallest_and_largest_value() -> None:
    rng = np.random.default_rng(0)
    x, y = np.arange(1000.0), rng.normal(size=1000)
    canvas = draw(Trace(x, y), Scale(0, 999), Scale(-5, 5), 10, 25)  # [100, 20]
    column = np.floor(x / 999 * 19 + 0.5).astype(int)
    for index in range(20):
        drawn = np.flatnonzero(canvas[:, index])
        values = y[column == index]
        expected = 99 - np.floor((values + 5) / 10 * 99 + 0.5)
        assert drawn.min() <= expected.min() and drawn.max() >= expected.max()


def test_buckets_are_drawn_from_low_to_high() -> None:
    trace = Trace(array(0, 1), array(0, 0), low=array(-1, 0), high=array(0, 1))
    assert rows(trace, 1, 1) == ["⡼"]


# --- odd input ------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5), (5, 1), (0, 3), (3, 0)])
def test_any_room(width: int, height: int) -> None:
    trace = Trace(array(0, 1, 2), array(1, 3, 2))
    canvas = draw(trace, Scale(0, 2), Scale(1, 3), width, height)
    assert canvas.shape == (4 * height, 2 * width)
    assert canvas.any() == bool(width and height)


def test_nothing_to_draw() -> None:
    empty = Trace(array(), array())
    assert value_scale([empty]) is None and step_scale([empty]) is None
    assert value_scale([]) is None
    assert not draw(empty, Scale(0, 1), Scale(0, 1), 3, 2).any()
    assert not wants_log([empty])


def test_not_a_number_is_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    odd = Trace(array(0, nan, 1, 2, 3, 3), array(0, 1, nan, inf, 3, -inf))
    clean = Trace(array(0, 3), array(0, 3))
    assert value_scale([odd]) == Scale(0, 3)
    assert rows(odd, 3, 2) == rows(clean, 3, 2)


def test_points_that_only_a_gap_keeps_in_order_are_sorted() -> None:
    broken = Trace(array(2, np.nan, 0, 1), array(2, 9, 0, 1))
    across, up = step_scale([broken]), Scale(0, 2)
    assert across is not None
    whole = Trace(array(0, 1, 2), array(0, 1, 2))
    assert (draw(broken, across, up, 4, 2) == draw(whole, across, up, 4, 2)).all()


def test_unsorted_points_are_drawn_in_order() -> None:
    mixed = Trace(array(2, 0, 3, 1), array(2, 0, 3, 1))
    assert rows(mixed, 2, 1) == ["⣠⠞"]


finite = st.floats(-1e100, 1e100)
anything = st.lists(st.tuples(finite, st.floats()), max_size=30)


@given(anything, st.integers(0, 9), st.integers(0, 4), st.booleans(), st.booleans())
def test_no_input_breaks_a_chart(
    points: list[tuple[float, float]], width: int, height: int, log: bool, dots: bool
) -> None:
    x, y = array(*(p[0] for p in points)), array(*(p[1] for p in points))
    trace = Trace(x, y, kind="dots" if dots else "line")
    up, across = value_scale([trace], log=log), step_scale([trace])
    if up is None or across is None:
        return
    with np.errstate(all="raise", under="ignore"):
        canvas = draw(trace, across, up, width, height)
    assert canvas.shape == (4 * height, 2 * width)
    assert canvas.any() or not canvas.size or not (np.abs(y) <= LIMIT).any()


@given(finite, finite, st.integers(1, 12))
def test_ticks_are_inside_and_few(a: float, b: float, most: int) -> None:
    scale = value_scale([Trace(array(0, 1), array(min(a, b), max(a, b)))])
    assert scale is not None
    values = ticks(scale, most)
    room = 1e-6 * (scale.high - scale.low)
    assert len(values) <= most + 1
    assert all(scale.low - room <= value <= scale.high + room for value in values)


def test_ticks_are_round() -> None:
    assert ticks(Scale(-21, 17), 5) == [-20, -10, 0, 10]
    assert ticks(Scale(0, 1), 4) == [0, 0.5, 1]
    assert ticks(Scale(3, 3), 4) == []


def test_decades() -> None:
    assert decades(Scale(0.5, 2000, log=True)) == [1, 10, 100, 1000]
    assert decades(Scale(1e-20, 1e20, log=True))[1] == 1e-14, "few of very many"
    assert decades(Scale(0.03, 0.7, log=True)) == pytest.approx([0.05, 0.1, 0.2, 0.5])
    assert decades(Scale(2.1, 4.9, log=True)) == [2.1, 4.9]


# --- zoomed ---------------------------------------------------------------------------------


def zoomed(low: float, high: float, *x: float) -> Chart:
    chart = Chart()
    trace = Trace(array(*x), np.arange(len(x), dtype=np.float64))
    chart.show(Picture("", curves=[Curve(trace)], unit="steps", window=(low, high), empty="none"))
    return chart


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("span", [10_000_000, 50_000, 8_300, 700])
def test_labels_of_a_small_part_differ(span: int, width: int) -> None:
    """A run of 34 million steps may be zoomed to a 4096th."""
    end = 34_250_000
    chart = zoomed(end - span, end, end - span, end)
    labels = said(chart.paint(width, 8)[-1]).split()[:-1]
    assert len(labels) > 1 and len(set(labels)) == len(labels), labels
    values = [float(label.rstrip("M")) * 1e6 for label in labels]
    assert np.ptp(np.diff(values)) < 1e-3, "they say where they stand"
    assert end - span - 1 <= values[0] and values[-1] <= end + 1


def test_the_place_below_the_mouse_is_told_as_exactly_as_it_is_seen() -> None:
    x = [34_200_000.0 + 500 * n for n in range(101)]
    chart = zoomed(x[0], x[-1], *x)
    places = set()
    for column in range(7, 80):
        chart._pointed = column
        places.add(said(chart.paint(80, 8)[0]).split("at ")[1].split(":")[0])
    assert len(places) == 73
    chart = zoomed(0, 13_000, 0.0, 6_560.0, 13_000.0)
    chart._pointed = 43
    assert "at 6.56k: 1.00" in said(chart.paint(80, 8)[0])


def test_a_part_without_points_is_not_taken_for_a_run_without_any() -> None:
    assert "nothing in this part" in "".join(map(said, zoomed(5, 9, 1, 2, 12).paint(80, 8)))
    assert "none" in "".join(map(said, zoomed(5, 9).paint(80, 8)))
