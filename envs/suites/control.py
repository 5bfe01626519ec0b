"""Further control tasks by envpool, as it has them: `box2d`, `mujoco` and `metaworld`.

MuJoCo's are gymnasium's newest versions; older ones can be had by their ids in the suite gym.
MetaWorld episodes never terminate: they are cut after 500 steps, and their score is the sum of
shaped rewards, not the rate of success.
"""

from __future__ import annotations

from collections.abc import Mapping

from dreamer_async.envs import names
from dreamer_async.envs.pool_suite import pool_suite
from dreamer_async.envs.pool_task import PoolTask
from dreamer_async.envs.suite import Suite

BOX2D = {
    "bipedal_walker": "BipedalWalker-v3",
    "bipedal_walker_hardcore": "BipedalWalkerHardcore-v3",
    "car_racing": "CarRacing-v3",
    "lunar_lander": "LunarLander-v3",
    "lunar_lander_continuous": "LunarLanderContinuous-v3",
}
MUJOCO = {
    "ant": "Ant-v5",
    "half_cheetah": "HalfCheetah-v5",
    "hopper": "Hopper-v5",
    "humanoid": "Humanoid-v5",
    "humanoid_standup": "HumanoidStandup-v5",
    "inverted_double_pendulum": "InvertedDoublePendulum-v5",
    "inverted_pendulum": "InvertedPendulum-v5",
    "pusher": "Pusher-v5",
    "reacher": "Reacher-v5",
    "swimmer": "Swimmer-v5",
    "walker2d": "Walker2d-v5",
}
_METAWORLD = """
assembly basketball bin-picking box-close button-press button-press-topdown
button-press-topdown-wall button-press-wall coffee-button coffee-pull coffee-push dial-turn
disassemble door-close door-lock door-open door-unlock drawer-close drawer-open faucet-close
faucet-open hammer hand-insert handle-press handle-press-side handle-pull handle-pull-side
lever-pull peg-insert-side peg-unplug-side pick-out-of-hole pick-place pick-place-wall plate-slide
plate-slide-back plate-slide-back-side plate-slide-side push push-back push-wall reach reach-wall
shelf-place soccer stick-pull stick-push sweep sweep-into window-close window-open
"""
METAWORLD = {
    task: "MetaWorld/" + "".join(word.capitalize() for word in task.split("-")) + "-v3"
    for task in _METAWORLD.split()
}


def _suite(name: str, default: str, env_ids: Mapping[str, str], about: str) -> Suite:
    """A suite of tasks that are taken as envpool has them."""
    spellings = {names.squash(n): task for task, env_id in env_ids.items() for n in (task, env_id)}
    return pool_suite(
        name,
        default,
        tuple(env_ids),
        spellings,
        lambda task: PoolTask(name, task, env_ids[task]),
        about=about,
    )


SUITES = (
    _suite("box2d", "lunar_lander", BOX2D, "lunar lander, biped, racing car"),
    _suite("mujoco", "half_cheetah", MUJOCO, "gymnasium's MuJoCo tasks, version 5"),
    _suite("metaworld", "reach", METAWORLD, "50 tasks of a robot arm seen as vectors"),
)
