"""Atari by envpool, under the protocols of the paper: `atari` (57 games) and `atari100k` (26).

Both repeat actions 4 times over the maximum of the last two frames, start with up to 30 no-ops,
show neither lives nor clipped rewards, and end an episode after 108,000 emulator frames. As in the
official code the end of an episode is terminal also when it is that limit.

Differences from the official code: images are scaled by area averaging instead of Pillow's
bilinear filter (nearest relative that envpool has) and gray is taken before scaling, unless
`resize` is exact; and there is always at least one no-op.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dreamer_async.envs import names, needs
from dreamer_async.envs.pool_suite import open_pool, pool_suite
from dreamer_async.envs.pool_task import PoolTask
from dreamer_async.envs.suite import Options, Suite
from dreamer_async.envs.vector import VectorEnv

_BENCHMARK = """
alien amidar assault asterix asteroids atlantis bank_heist battle_zone beam_rider berzerk
bowling boxing breakout centipede chopper_command crazy_climber defender demon_attack
double_dunk enduro fishing_derby freeway frostbite gopher gravitar hero ice_hockey jamesbond
kangaroo krull kung_fu_master montezuma_revenge ms_pacman name_this_game phoenix pitfall pong
private_eye qbert riverraid road_runner robotank seaquest skiing solaris space_invaders
star_gunner surround tennis time_pilot tutankham up_n_down venture video_pinball wizard_of_wor
yars_revenge zaxxon
"""
BENCHMARK = tuple(_BENCHMARK.split())
"""The 57 games of the benchmark."""

_OTHERS = """
adventure air_raid atlantis2 backgammon basic_math blackjack carnival casino crossbow
darkchambers donkey_kong earthworld elevator_action entombed et flag_capture frogger galaxian
hangman haunted_house human_cannonball journey_escape kaboom keystone_kapers king_kong klax
koolaid laser_gates lost_luggage mario_bros miniature_golf mr_do othello pacman pitfall2 pooyan
sir_lancelot space_war superman tetris tic_tac_toe3d trondead turmoil video_checkers
video_chess video_cube word_zapper
"""
OTHERS = tuple(_OTHERS.split())
"""Games that envpool has besides."""

_BENCHMARK_100K = """
alien amidar assault asterix bank_heist battle_zone boxing breakout chopper_command
crazy_climber demon_attack freeway frostbite gopher hero jamesbond kangaroo krull
kung_fu_master ms_pacman pong private_eye qbert road_runner seaquest up_n_down
"""
BENCHMARK_100K = tuple(_BENCHMARK_100K.split())
"""The 26 games of the data-efficient benchmark."""

FRAMES_PER_STEP = 4

_COMMON: dict[str, int | float | bool] = {
    "stack_num": 1,
    "frame_skip": FRAMES_PER_STEP,
    "noop_max": 30,
    "use_fire_reset": False,
    "episodic_life": False,
    "reward_clip": False,
    "max_episode_steps": 27000,
}
_ATARI = _COMMON | {
    "img_height": 96,
    "img_width": 96,
    "gray_scale": True,
    "repeat_action_probability": 0.25,
    "full_action_space": True,
}
_ATARI100K = _COMMON | {
    "img_height": 64,
    "img_width": 64,
    "gray_scale": False,
    "repeat_action_probability": 0.0,
    "full_action_space": False,
}


def env_id(game: str) -> str:
    """envpool's name of a game: ms_pacman is MsPacman-v5."""
    return "".join(word.capitalize() for word in game.split("_")) + "-v5"


def _spellings(games: tuple[str, ...]) -> dict[str, str]:
    return {names.squash(spelling): game for game in games for spelling in (game, env_id(game))}


_RAW: dict[str, int | bool] = {"img_height": 210, "img_width": 160, "gray_scale": False}
"""Options with which envpool hands out what was drawn, bit for bit."""


def _exactly(task: PoolTask) -> PoolTask:
    """The same task with images that Pillow scales."""
    needs.require("--resize exact", (needs.of_extra("PIL", "pictures"),))
    from dreamer_async.envs.suites.exact_resize import ExactImage

    reader = ExactImage(int(task.options["img_height"]), bool(task.options["gray_scale"]))
    options = {**task.options, **_RAW}
    return replace(task, options=options, readers=lambda space: (reader,))


def _suite(
    name: str, games: tuple[str, ...], protocol: Mapping[str, int | float | bool], about: str
) -> Suite:
    def task(game: str) -> PoolTask:
        return PoolTask(name, game, env_id(game), protocol, FRAMES_PER_STEP, True)

    def make(game: str, options: Options) -> VectorEnv:
        exact = options.resize == "exact"
        if exact and (given := sorted(_RAW.keys() & options.view.args.keys())):
            raise ValueError(
                f"--resize exact draws {given[0]} as the protocol has it; leave it out"
            )
        return open_pool(_exactly(task(game)) if exact else task(game), options)

    suite = pool_suite(name, "pong", games, _spellings(games), task, about=about)
    return replace(suite, make=make, exact_resize=frozenset(BENCHMARK))


ATARI = _suite(
    "atari",
    BENCHMARK + OTHERS,
    _ATARI,
    "57 games of the benchmark and 47 more, 96x96 gray, sticky actions",
)
ATARI100K = _suite(
    "atari100k",
    BENCHMARK_100K,
    _ATARI100K,
    "26 games with little data, 64x64 RGB, the game's own actions",
)
