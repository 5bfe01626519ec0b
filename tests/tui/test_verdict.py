"""What is said of returns: learning only where it is, and how far that goes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dreamer_async.tui.show.verdict import BLOCKS, LEAST, Said, verdict

Array = np.ndarray
RUNS = 400


def said(scores: Array, optimum: float | None = None, span: float = 10_000.0) -> Said:
    return verdict(np.linspace(span / len(scores), span, len(scores)), scores, optimum)


def noisy(curve: Array, noise: float = 0.5, seed: int = 0) -> Array:
    return curve + noise * np.random.default_rng(seed).standard_normal(len(curve))


@pytest.mark.parametrize("episodes", [2 * LEAST, 200, 450, 2000])
@pytest.mark.parametrize("kind", ["normal", "coin", "exponential"])
def test_noise_around_a_constant_is_flat(kind: str, episodes: int) -> None:
    """The control: not more than one run in a hundred is called anything else."""
    rng = np.random.default_rng(1)
    draw = {
        "normal": lambda: rng.standard_normal(episodes),
        "coin": lambda: np.where(rng.random(episodes) < 0.1, 1.0, -1.0),
        "exponential": lambda: rng.exponential(size=episodes),
    }[kind]
    kinds = Counter(said(draw()).kind for _ in range(RUNS))
    assert kinds["flat"] >= 0.99 * RUNS, kinds


def test_what_rises_is_learning() -> None:
    x = np.linspace(0, 1, 400)
    kinds = Counter(said(noisy(3 * x, seed=seed)).kind for seed in range(100))
    assert kinds == {"learning": 100}
    assert said(np.linspace(0, 90, 200)).words == "learning: +9.05 in 1k steps"


def test_a_rise_of_late_is_learning_and_says_how_much() -> None:
    curve = np.repeat([0.0, 32.0], [360, 40])
    assert said(noisy(curve, 0.01), span=5000.0).words == "learning: +32 in 500 steps"


def test_a_plateau_is_flat_since_it_began() -> None:
    curve = np.repeat([0.0, 5.0], [80, 320])
    assert said(noisy(curve), span=50_000.0).words == "flat for 40k steps"
    saturating = 1 - np.exp(-6 * np.linspace(0, 1, 400))
    assert said(noisy(saturating)).kind == "flat"


def test_flat_begins_where_the_curve_does_not_move_any_more() -> None:
    """CartPole: a few long episodes make the third block too wide for the test of the means."""
    rng = np.random.default_rng(0)
    rising = [20] * 44 + [*np.linspace(20, 90, 17)] + [500, 369, 422, 350, 226]
    scores = np.array([*rising, *(150 + 30 * rng.standard_normal(22))])
    assert verdict(np.cumsum(scores), scores).words.startswith("learning: +12")
    longer = np.array([*rising, *(150 + 30 * rng.standard_normal(88))])
    assert verdict(np.cumsum(longer), longer).words.startswith("flat for 13."), "not 16.8"


def test_a_fall_says_from_where() -> None:
    rising, fallen = np.linspace(0, 10, 240), np.full(160, 5.0)
    half = said(noisy(np.concatenate([rising, fallen]), 0.1))
    assert half.kind == "fell" and half.words == "fell by half since 6k steps"
    deep = said(noisy(np.concatenate([rising, fallen - 4.0]), 0.0))
    assert deep.words == "fell from 9.18 to 1 since 6k steps"


def test_an_old_fall_is_a_plateau() -> None:
    curve = np.repeat([0.0, 10.0, 2.0], [40, 40, 320])
    assert said(noisy(curve)).words == "flat for 8k steps"


def test_the_optimum_is_reached_or_not() -> None:
    curve = np.concatenate([np.linspace(-1, 1, 200), np.full(200, 0.97)])
    assert said(curve, 1.0).words == "at the optimum of 1"
    assert said(curve, 1.0).look == "good"
    assert said(curve - 0.2, 1.0).kind == "flat"
    assert said(np.full(400, -1.0), 1.0).kind == "flat"


def test_few_episodes_say_nothing() -> None:
    assert said(np.arange(39.0)).words == "too early to say: 39 of 40 episodes"
    assert said(np.arange(40.0)).kind != "early"


def test_constant_returns_differ_where_they_do() -> None:
    """Blocks without any spread have no standard error."""
    assert said(np.full(400, 7.0)).kind == "flat"
    assert said(np.repeat([7.0, 8.0], [360, 40])).kind == "learning"
    assert said(np.full(400, 0.1) + 1e-17 * np.arange(400)).kind == "flat"


def test_no_more_than_a_tenth_is_one_block() -> None:
    assert said(noisy(np.repeat([0.0, 9.0], [399, 1]))).kind == "flat", f"of {BLOCKS} blocks"
