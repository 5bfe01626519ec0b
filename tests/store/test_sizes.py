"""Sizes for people: no unit that hides them."""

from __future__ import annotations

import pytest

from dreamer_async.store.sizes import in_words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_500, "1.5 kB"),
        (4_200_000, "4.2 MB"),
        (999_000_000, "999.0 MB"),
        (12_600_000_000, "12.60 GB"),
        (2.5e12, "2500.00 GB"),
    ],
)
def test_a_size_has_the_unit_that_suits_it(count: float, words: str) -> None:
    assert in_words(count) == words
