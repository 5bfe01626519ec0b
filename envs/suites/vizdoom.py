"""VizDoom by envpool: 64x64 images, and every useful combination of buttons as one action.

Rewards are those of envpool, which adds small ones for ammunition, health and hits to what the
scenarios themselves give, so scores compare with nobody else's. The two scenarios for several
players (cig, multi_duel) crash the process and are left out.
"""

from __future__ import annotations

from dreamer_async.envs import names
from dreamer_async.envs.pool_suite import pool_suite
from dreamer_async.envs.pool_task import PoolTask

_SCENARIOS = """
basic basic_audio basic_notifications d1_basic d2_navigation d3_battle d4_battle2 deadly_corridor
deathmatch defend_the_center defend_the_line health_gathering health_gathering_supreme my_way_home
predict_position rocket_basic simpler_basic take_cover
"""
TASKS = tuple(_SCENARIOS.split())
FRAMES_PER_STEP = 4

_OPTIONS: dict[str, int | bool] = {
    "img_height": 64,
    "img_width": 64,
    "stack_num": 1,
    "frame_skip": FRAMES_PER_STEP,
    "use_combined_action": True,
}


def env_id(task: str) -> str:
    """envpool's name of a scenario: my_way_home is MyWayHome-v1."""
    return "".join(word.capitalize() for word in task.split("_")) + "-v1"


SUITE = pool_suite(
    "vizdoom",
    "basic",
    TASKS,
    {names.squash(name): task for task in TASKS for name in (task, env_id(task))},
    lambda task: PoolTask("vizdoom", task, env_id(task), _OPTIONS, FRAMES_PER_STEP),
    about="Doom, 64x64, with envpool's own shaped rewards",
)
