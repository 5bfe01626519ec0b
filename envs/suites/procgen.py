"""Procgen by envpool: 16 games in generated levels.

As in the official configuration levels are hard and without limit in number, and every end of an
episode is terminal. Difference: images are drawn at 64x64 (as the benchmark has them), while the
official code scales a larger picture down to 96x96.
"""

from __future__ import annotations

from dreamer_async.envs import names, needs
from dreamer_async.envs.pool_suite import pool_suite
from dreamer_async.envs.pool_task import PoolTask

_GAMES = """
bigfish bossfight caveflyer chaser climber coinrun dodgeball fruitbot heist jumper leaper maze
miner ninja plunder starpilot
"""
BENCHMARK = tuple(_GAMES.split())
"""The 16 games of the benchmark, hard."""

_MODES = {
    "easy": BENCHMARK,
    "exploration": (
        "caveflyer",
        "climber",
        "coinrun",
        "heist",
        "jumper",
        "leaper",
        "maze",
        "ninja",
    ),
    "extreme": ("chaser", "dodgeball", "leaper", "starpilot"),
    "memory": ("caveflyer", "dodgeball", "heist", "jumper", "maze", "miner"),
}
OTHERS = tuple(f"{game}_{mode}" for mode, games in _MODES.items() for game in games)
"""The other modes that envpool has, such as coinrun_easy."""


def env_id(task: str) -> str:
    """envpool's name of a task: coinrun is CoinrunHard-v0."""
    game, _, mode = task.partition("_")
    return f"{game.capitalize()}{(mode or 'hard').capitalize()}-v0"


SUITE = pool_suite(
    "procgen",
    "coinrun",
    BENCHMARK + OTHERS,
    {names.squash(name): task for task in BENCHMARK + OTHERS for name in (task, env_id(task))},
    lambda task: PoolTask("procgen", task, env_id(task), time_limit_is_terminal=True),
    about="16 games in generated levels, 64x64 RGB, hard; other modes by coinrun_easy and the like",
    needed=(needs.QT,),
)
