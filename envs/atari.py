"""Atari by envpool, under the protocols of the paper: `atari` (57 games) and `atari100k` (26).

Both repeat actions 4 times over the maximum of the last two frames, start with up to 30 no-ops,
show neither lives nor clipped rewards, and end an episode after 108,000 emulator frames. As in the
official code the end of an episode is terminal also when it is that limit.

Differences from the official code: images are scaled by area averaging instead of Pillow's
bilinear filter (nearest relative that envpool has), gray is taken before scaling, and there is
always at least one no-op.
"""

from __future__ import annotations

from envs import names
from envs.pool_task import PoolTask, pool_suite

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


ATARI = pool_suite(
    "atari",
    "pong",
    BENCHMARK + OTHERS,
    _spellings(BENCHMARK + OTHERS),
    lambda game: PoolTask("atari", game, env_id(game), _ATARI, FRAMES_PER_STEP, True),
)
ATARI100K = pool_suite(
    "atari100k",
    "pong",
    BENCHMARK_100K,
    _spellings(BENCHMARK_100K),
    lambda game: PoolTask("atari100k", game, env_id(game), _ATARI100K, FRAMES_PER_STEP, True),
)
