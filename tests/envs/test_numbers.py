"""What numbers without names are called, against how they move."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamer_async import envs
from dreamer_async.envs.observed import numbers
from dreamer_async.envs.spec import ActionSpec, EnvSpec, ObsSpec

Values = dict[str, NDArray[np.float64]]
STEPS = 12
"""Before any of these episodes can end."""


def moved(task: str) -> Values:
    """Each number of a task over some random steps of one episode, by its name: [STEPS]."""
    rng = np.random.default_rng(0)
    with envs.make("classic", task, num_envs=1, seed=0) as pool:
        (key,) = pool.spec.obs
        names = numbers.of_vector(pool.spec, key)
        pool.start()
        rows = [pool.recv().obs[key][0]]
        while len(rows) < STEPS:
            pool.send(pool.spec.action.sample(1, rng), np.zeros(1, np.int32))
            rows.append(pool.recv().obs[key][0])
    values = np.array(rows, np.float64)
    assert len(names) == len(set(names)) == values.shape[1]
    return dict(zip(names, values.T, strict=True))


def turned(values: Values, arm: str = "") -> NDArray[np.float64]:
    """How far an arm turned in each step, from its cosine and sine: [STEPS - 1]."""
    angle = np.arctan2(values[f"sin angle{arm}"], values[f"cos angle{arm}"])
    return np.diff(np.unwrap(angle))


def test_a_cart_moves_with_its_velocity() -> None:
    values = moved("cartpole")
    for place, speed in (("position", "velocity"), ("angle", "angular velocity")):
        np.testing.assert_allclose(np.diff(values[place]), 0.02 * values[speed][:-1], atol=1e-5)


@pytest.mark.parametrize("task", ["mountain_car", "mountain_car_continuous"])
def test_a_car_moves_with_its_velocity(task: str) -> None:
    values = moved(task)
    np.testing.assert_allclose(np.diff(values["position"]), values["velocity"][1:], atol=1e-5)


def test_a_pendulum_turns_with_its_angular_velocity() -> None:
    values = moved("pendulum")
    np.testing.assert_allclose(turned(values), 0.05 * values["angular velocity"][1:], atol=1e-4)


@pytest.mark.parametrize("arm", [" 1", " 2"])
def test_arms_turn_with_their_angular_velocities(arm: str) -> None:
    values = moved("acrobot")
    speed = values[f"angular velocity{arm}"]
    mean = (speed[1:] + speed[:-1]) / 2
    assert np.corrcoef(turned(values, arm), mean)[0, 1] > 0.95


def test_other_numbers_keep_the_names_of_their_space() -> None:
    action = ActionSpec("discrete", 2)
    four, five = (ObsSpec((n,), "float32") for n in (4, 5))
    for suite, task, obs, known in (
        ("gym", "CartPole-v1", {"vector": four}, True),
        ("gym", "CartPole-v1", {"vector": five}, False),
        ("gym", "CartPole-v1", {"a": four, "b": five}, False),
        ("gym", "Ant-v5", {"vector": four}, False),
        ("dmc_proprio", "CartPole-v1", {"vector": four}, False),
        ("classic", "taxi", {"vector": four}, False),
    ):
        spec = EnvSpec(suite, task, obs, action)
        assert bool(numbers.of_vector(spec, next(iter(obs)))) == known, (suite, task, obs)
