"""DeepMind Control by envpool: `dmc-proprio` (18 tasks of the paper) and `dmc-vision` (20).

Both follow the official configuration: action repeat 1 and 1000 steps, seen as vectors, or only
as one 64x64 RGB image. (The published curves were made with action repeat 2; see `repeat.py`.)
envpool's `frame_skip` counts physics steps inside a control step and stays as each task has it.

Difference from dm_control: nothing of envpool's that dm_control does not show is shown here,
which for some tasks would tell where the target or the body is.
"""

from __future__ import annotations

from dreamer_async.envs import names, needs
from dreamer_async.envs.pool_suite import pool_suite
from dreamer_async.envs.pool_task import PoolTask

_PROPRIO = """
acrobot_swingup ball_in_cup_catch cartpole_balance cartpole_balance_sparse cartpole_swingup
cartpole_swingup_sparse cheetah_run finger_spin finger_turn_easy finger_turn_hard hopper_hop
hopper_stand pendulum_swingup reacher_easy reacher_hard walker_run walker_stand walker_walk
"""
PROPRIO = tuple(_PROPRIO.split())
"""The 18 tasks of the proprioceptive benchmark."""

VISION = tuple(sorted((*PROPRIO, "quadruped_run", "quadruped_walk")))
"""The 20 tasks of the visual benchmark."""

_OTHERS = """
acrobot_swingup_sparse cartpole_three_poles cartpole_two_poles dog_fetch dog_run dog_stand
dog_trot dog_walk fish_swim fish_upright humanoid_cmu_run humanoid_cmu_stand humanoid_cmu_walk
humanoid_run humanoid_run_pure_state humanoid_stand humanoid_walk manipulator_bring_ball
manipulator_bring_peg manipulator_insert_ball manipulator_insert_peg point_mass_easy
point_mass_hard quadruped_escape quadruped_fetch stacker_stack2 stacker_stack4
swimmer_swimmer15 swimmer_swimmer6
"""
OTHERS = tuple(_OTHERS.split())
"""Tasks that envpool has besides; those of its domain lqr have actions without bounds."""

IMAGE_SIZE = 64

_DOG = frozenset({"ball_state", "target_position"})
_QUADRUPED = frozenset({"origin", "rangefinder", "ball_state", "target_position"})
_HUMANOID = {"joint_angles", "head_height", "extremities", "torso_vertical", "com_velocity"}
HIDDEN = {
    "dog_run": _DOG,
    "dog_stand": _DOG,
    "dog_trot": _DOG,
    "dog_walk": _DOG,
    "finger_spin": frozenset({"target_position", "dist_to_target"}),
    "fish_upright": frozenset({"target"}),
    "humanoid_run": frozenset({"position"}),
    "humanoid_run_pure_state": frozenset(_HUMANOID),
    "humanoid_stand": frozenset({"position"}),
    "humanoid_walk": frozenset({"position"}),
    "quadruped_escape": frozenset({"ball_state", "target_position"}),
    "quadruped_fetch": frozenset({"origin", "rangefinder"}),
    "quadruped_run": _QUADRUPED,
    "quadruped_walk": _QUADRUPED,
}
"""Observation keys that dm_control's task of this name does not have."""


def env_id(task: str) -> str:
    """envpool's name of a task: ball_in_cup_catch is BallInCupCatch-v1."""
    words = ("CMU" if word == "cmu" else word.capitalize() for word in task.split("_"))
    return "".join(words) + "-v1"


def camera(task: str) -> int:
    """The camera of the official code; envpool's default is one that nobody aimed."""
    return 2 if task.startswith("quadruped") else 0


def _spellings(tasks: tuple[str, ...]) -> dict[str, str]:
    return {names.squash(spelling): task for task in tasks for spelling in (task, env_id(task))}


def _proprio(task: str) -> PoolTask:
    return PoolTask("dmc-proprio", task, env_id(task), hidden=HIDDEN.get(task, frozenset()))


def _vision(task: str) -> PoolTask:
    pixels: dict[str, int | bool] = {
        "from_pixels": True,
        "render_width": IMAGE_SIZE,
        "render_height": IMAGE_SIZE,
        "render_camera_id": camera(task),
    }
    return PoolTask("dmc-vision", task, env_id(task), pixels, drawn=True)


DMC_PROPRIO = pool_suite(
    "dmc-proprio",
    "walker_walk",
    PROPRIO + tuple(task for task in VISION if task not in PROPRIO) + OTHERS,
    _spellings(VISION + OTHERS),
    _proprio,
    about="DeepMind Control seen as vectors: 18 tasks of the benchmark, and more",
)
DMC_VISION = pool_suite(
    "dmc-vision",
    "walker_walk",
    VISION + OTHERS,
    _spellings(VISION + OTHERS),
    _vision,
    about="DeepMind Control seen as 64x64 images: 20 tasks of the benchmark, and more",
    needed=(needs.EGL,),
)
