"""Pictures of any size, order and type become images that the networks take."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamer_async.envs import images
from dreamer_async.envs.observed.reader import ObsReader, UnsupportedSpace
from dreamer_async.envs.spaces import read_space
from dreamer_async.envs.spec import ObsSpec, check_observations
from dreamer_async.envs.values import BrokenRule, observation
from dreamer_async.envs.view import View

BYTES = np.uint8


def box(shape: tuple[int, ...], dtype: Any = BYTES, high: float = 255, low: float = 0) -> Any:
    return spaces.Box(low, high, shape, dtype)


def read(space: Any, **view: Any) -> ObsReader:
    (reader,) = read_space(space, View(**view))
    check_observations({reader.name: reader.spec})
    return reader


@pytest.mark.parametrize(
    ("space", "how", "shape"),
    [
        (box((84, 84, 1)), "pad", (96, 96, 1)),
        (box((84, 84, 1)), "resize", (80, 80, 1)),
        (box((84, 84, 1)), "resize:64", (64, 64, 1)),
        (box((40, 40, 3)), "pad", (48, 48, 3)),
        (box((210, 160, 3)), "pad", (224, 160, 3)),
        (box((210, 160, 3)), "resize", (208, 160, 3)),
        (box((210, 160, 3)), "resize:96x64", (96, 64, 3)),
        (box((3, 64, 64)), "pad", (64, 64, 3)),
        (box((1, 84, 84)), "pad", (96, 96, 1)),
        (box((4, 84, 84)), "pad", (96, 96, 4)),
        (box((12, 64, 64)), "pad", (64, 64, 12)),
        (box((64, 64, 12)), "pad", (64, 64, 12)),
        (box((96, 96, 4), np.float32, 1), "pad", (96, 96, 4)),
        (box((3, 64, 64), np.float64, 255), "pad", (64, 64, 3)),
        (box((64, 64, 3), np.float16, 1), "pad", (64, 64, 3)),
        (box((64, 64), bool, 1), "pad", (64, 64, 1)),
        (box((64, 64, 3), np.int64, 255), "pad", (64, 64, 3)),
        (box((4, 96, 96, 3)), "pad", (96, 96, 12)),
        (box((4, 3, 96, 96)), "pad", (96, 96, 12)),
        (box((17, 16)), "resize", (16, 16, 1)),
    ],
)
def test_images_of_any_size_fit(space: Any, how: str, shape: tuple[int, ...]) -> None:
    reader = read(space, image=how)
    assert (reader.name, reader.spec) == ("image", ObsSpec(shape, "uint8"))
    space.seed(1)
    sample = space.sample()
    value = observation(reader, sample)
    assert (value.shape, value.dtype) == (shape, np.uint8)
    assert (value == reader.read(sample[None])[0]).all()
    assert reader.taken().words.startswith("an image of ")


@pytest.mark.parametrize(
    "space",
    [
        box((15, 64, 3)),
        box((10, 10, 4), bool, 1),
        box((16, 16), np.float32, 1),
        box((64, 64, 3), np.float32, 1, -1),
        box((64, 64, 3), np.float32, np.inf, 0),
        box((64, 64), np.int32, 9),
        box((128,)),
        spaces.Box(0, np.arange(1, 1025, dtype=np.float32).reshape(32, 32, 1), (32, 32, 1)),
    ],
)
def test_what_may_be_numbers_stays_numbers(space: Any) -> None:
    reader = read(space)
    assert reader.spec == ObsSpec((math.prod(space.shape),), "float32")


def test_the_order_of_axes_is_guessed_by_a_rule_and_can_be_told() -> None:
    value = np.arange(20 * 24 * 32, dtype=np.int64).reshape(20, 24, 32).astype(BYTES)
    space = box(value.shape)
    guessed, told = read(space), read(space, kinds={"image": "image:hwc"})
    assert guessed.spec.shape == (32, 32, 20) and told.spec.shape == (32, 32, 32)
    assert (observation(guessed, value)[4:28] == value.transpose(1, 2, 0)).all()
    assert (observation(told, value)[6:26, 4:28] == value).all()
    assert read(box((32, 32, 32))).spec.shape == (32, 32, 32)
    assert "axes c h w" in guessed.taken().words and "axes" not in told.taken().words


def test_frames_are_stacked_behind_each_other() -> None:
    value = np.arange(2 * 16 * 16 * 3).reshape(2, 16, 16, 3).astype(BYTES)
    stacked = np.concatenate([value[0], value[1]], -1)
    assert (observation(read(box(value.shape)), value) == stacked).all()
    first = value.transpose(0, 3, 1, 2)
    assert (observation(read(box(first.shape)), first) == stacked).all()


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(np.float32, 0, 1), (np.float64, 0, 255), (np.float16, 0, 1)]
)
def test_reals_become_the_bytes_that_they_were(dtype: Any, low: float, high: float) -> None:
    space = box((16, 16, 1), dtype, high, low)
    value = np.arange(256).reshape(16, 16, 1)
    given = (value / 255 * (high - low) + low).astype(dtype)
    assert (observation(read(space), given) == value).all()


def test_a_range_of_its_own_is_scaled_if_it_is_told_to_be_an_image() -> None:
    space = box((16, 16), np.float32, 1, -1)
    value = np.linspace(-1, 1, 256, dtype=np.float32).reshape(16, 16)
    got = observation(read(space, kinds={"observation": "image"}), value)
    assert got.reshape(-1).tolist() == list(range(256))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.float32])
def test_pictures_of_two_values_are_black_and_white(dtype: Any) -> None:
    reader = read(box((32, 32), dtype, 1))
    value = np.eye(32).astype(dtype)
    assert (observation(reader, value)[..., 0] == np.eye(32) * 255).all()
    words = f"an image of 32x32x1 of {np.dtype(dtype)} in [0, 1]"
    assert reader.taken().words == words


def test_bytes_are_brightness_whatever_else_their_bounds_say() -> None:
    value = np.full((32, 32), 7, np.uint8)
    for high in (7, 255):
        assert (observation(read(box((32, 32), BYTES, high)), value) == 7).all()
    with pytest.raises(BrokenRule, match="reaches 7 to 7, but its space says 0 to 1"):
        observation(read(box((32, 32), BYTES, 1)), value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((64, 64, 3), 255, np.float32), "reaches 255 to 255, but its space says 0 to 1"),
        (np.full((64, 64, 3), np.nan, np.float32), "reaches nan to nan"),
        (np.full((64, 64, 3), -1.0), "reaches -1 to -1"),
    ],
)
def test_an_image_outside_its_range_is_refused(value: Any, message: str) -> None:
    """Else a picture in [0, 255] of a space that says [0, 1] would be white everywhere."""
    reader = read(box((64, 64, 3), np.float32, 1))
    with pytest.raises(BrokenRule, match=message):
        observation(reader, value)
    assert observation(reader, np.full((64, 64, 3), 1.00001)).max() == 255


def test_a_margin_is_black_and_leaves_the_image_in_the_middle() -> None:
    value = np.full((1, 5, 6, 2), 7, BYTES)
    padded = images.pad(value, 8, 8)
    assert padded.sum() == value.sum() and (padded[:, 1:6, 1:7] == 7).all()


@given(*(st.integers(1, 40) for _ in range(4)), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_scaling_is_the_exact_mean_over_areas(h: int, w: int, y: int, x: int, seed: int) -> None:
    """Repeat every pixel until new ones consist of whole old ones, and take their means."""
    value = np.random.default_rng(seed).integers(0, 256, (2, h, w, 3)).astype(BYTES)
    blown = value.repeat(y, 1).repeat(x, 2).reshape(2, y, h, x, w, 3).astype(np.int64)
    total = blown.sum((2, 4))
    assert (images.resize(value, y, x) == (2 * total + h * w) // (2 * h * w)).all()


def test_scaling_keeps_large_even_images_as_they_are() -> None:
    for level in (1, 127, 255):
        assert (images.resize(np.full((1, 480, 640, 3), level, BYTES), 48, 80) == level).all()


@pytest.mark.parametrize(
    ("how", "sides"), [("pad", (64, 80)), ("resize", (64, 80)), ("resize:32", (32, 32))]
)
def test_images_of_several_sizes_get_one(how: str, sides: tuple[int, int]) -> None:
    space = spaces.Dict(wide=box((40, 80, 3)), high=box((1, 64, 40)), v=box((3,), np.float32))
    readers = {reader.name: reader for reader in read_space(space, View(image=how))}
    check_observations({name: reader.spec for name, reader in readers.items()})
    assert readers["wide"].spec.shape == (*sides, 3) and readers["high"].spec.shape == (*sides, 1)
    space.seed(0)
    sample = space.sample()
    assert observation(readers["wide"], sample).shape == (*sides, 3)
    assert observation(readers["high"], sample).shape == (*sides, 1)


@pytest.mark.parametrize(
    ("space", "remark"),
    [
        (box((16, 16, 3), high=10), "its numbers end at 10: .* --as observation=category makes"),
        (box((64, 64, 3), np.float32, 1), "its float32 become bytes: .* --as observation=vector"),
        (box((480, 640, 3)), r"480x640 pixels, 75.0 times .* 922 GB: .*resize:48x80 scales it"),
        (box((84, 84, 3)), "^$"),
        (box((64, 64), bool, 1), "^$"),
    ],
)
def test_a_doubtful_image_is_remarked_with_the_flag_to_use(space: Any, remark: str) -> None:
    taken = read(space).taken()
    assert re.search(remark, taken.remark), taken.remark


def test_what_the_user_said_is_not_doubted() -> None:
    for space in (box((16, 16, 3), high=10), box((64, 64, 3), np.float32, 1)):
        taken = read(space, kinds={"image": "image"}).taken()
        assert taken.chosen and not taken.remark


def test_what_is_no_image_cannot_be_told_to_be_one() -> None:
    for space in (box((9,)), box((64, 64), np.float32, np.inf), box((2, 2, 2, 2, 2))):
        with pytest.raises(UnsupportedSpace, match="is no image: it needs 2 or 3 axes"):
            read(space, kinds={"observation": "image"})
