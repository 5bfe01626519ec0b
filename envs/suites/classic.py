"""Classic control and toy text by envpool: small tasks that learn within minutes."""

from __future__ import annotations

from dreamer_async.envs import names
from dreamer_async.envs.pool_suite import pool_suite
from dreamer_async.envs.pool_task import PoolTask

ENV_IDS = {
    "cartpole": "CartPole-v1",
    "acrobot": "Acrobot-v1",
    "mountain_car": "MountainCar-v0",
    "mountain_car_continuous": "MountainCarContinuous-v0",
    "pendulum": "Pendulum-v1",
    "frozen_lake": "FrozenLake-v1",
    "frozen_lake8x8": "FrozenLake8x8-v1",
    "taxi": "Taxi-v3",
    "cliff_walking": "CliffWalking-v0",
    "blackjack": "Blackjack-v1",
    "n_chain": "NChain-v0",
    "catch": "Catch-v0",
}
"""Our names and envpool's."""

_SPELLINGS = {
    names.squash(spelling): task for task, env_id in ENV_IDS.items() for spelling in (task, env_id)
}

SUITE = pool_suite(
    "classic",
    "cartpole",
    tuple(ENV_IDS),
    _SPELLINGS,
    lambda task: PoolTask("classic", task, ENV_IDS[task]),
    about="classic control and toy text: small tasks that learn within minutes",
)
