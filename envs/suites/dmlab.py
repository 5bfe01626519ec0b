"""DMLab-30 in worker processes, for the package deepmind_lab that users build themselves.

The official protocol: 64x64 RGB, action repeat 4, the 15 actions of PopArt, the training variant of
levels with a test set, every end of an episode terminal; language levels add their instruction as a
fixed random vector per token.

Unverified: this has never run against the real package, which has no wheel, only against a fake of
the interface that its documentation describes.
"""

from __future__ import annotations

import importlib
import re
import zlib
from typing import Any

from dreamer_async.envs import needs
from dreamer_async.envs.process_task import first_seed, process_suite

_LEVELS = """
explore_goal_locations_large explore_goal_locations_small explore_object_locations_large
explore_object_locations_small explore_object_rewards_few explore_object_rewards_many
explore_obstructed_goals_large explore_obstructed_goals_small
language_answer_quantitative_question language_execute_random_task
language_select_described_object language_select_located_object lasertag_one_opponent_large
lasertag_one_opponent_small lasertag_three_opponents_large lasertag_three_opponents_small
natlab_fixed_large_map natlab_varying_map_randomized natlab_varying_map_regrowth
psychlab_arbitrary_visuomotor_mapping psychlab_continuous_recognition
psychlab_sequential_comparison psychlab_visual_search rooms_collect_good_objects_test
rooms_exploit_deferred_effects_test rooms_keys_doors_puzzle rooms_select_nonmatching_object
rooms_watermaze skymaze_irreversible_path_hard skymaze_irreversible_path_varied
"""
LEVELS = tuple(_LEVELS.split())
"""The 30 levels."""

ACTIONS = {
    "forward": (0, 0, 0, 1, 0, 0, 0),
    "backward": (0, 0, 0, -1, 0, 0, 0),
    "strafe_left": (0, 0, -1, 0, 0, 0, 0),
    "strafe_right": (0, 0, 1, 0, 0, 0, 0),
    "look_left": (-10, 0, 0, 0, 0, 0, 0),
    "look_right": (10, 0, 0, 0, 0, 0, 0),
    "turn_left": (-60, 0, 0, 0, 0, 0, 0),
    "turn_right": (60, 0, 0, 0, 0, 0, 0),
    "look_down": (0, 10, 0, 0, 0, 0, 0),
    "look_up": (0, -10, 0, 0, 0, 0, 0),
    "forward_look_left": (-10, 0, 0, 1, 0, 0, 0),
    "forward_look_right": (10, 0, 0, 1, 0, 0, 0),
    "forward_turn_left": (-60, 0, 0, 1, 0, 0, 0),
    "forward_turn_right": (60, 0, 0, 1, 0, 0, 0),
    "fire": (0, 0, 0, 0, 1, 0, 0),
}
"""PopArt's set: look and pitch in pixels per frame, strafe, move, fire, jump, crouch."""

FRAMES_PER_STEP = 4
TOKENS, BUCKETS, EMBEDDING = 32, 65536, 32
"""Tokens of an instruction that are shown, hash buckets of tokens, and numbers per token."""
_TOKEN = re.compile(r"[a-z_]+|[^a-z_ ]+")


class DMLab:
    """deepmind_lab.Lab as gymnasium would have it."""

    frames_per_step = FRAMES_PER_STEP

    def __init__(self, task: str) -> None:
        import numpy as np
        from gymnasium import spaces

        self._np = np
        self._keys = ["RGB_INTERLEAVED"] + ["INSTR"] * task.startswith("language")
        config = {"width": "64", "height": "64", "logLevel": "WARN"}
        level = task.removesuffix("_test") + "_train" * task.endswith("_test")
        self._env: Any = importlib.import_module("deepmind_lab").Lab(
            f"contributed/dmlab30/{level}", self._keys, config=config
        )
        shown: dict[str, Any] = {"image": spaces.Box(0, 255, (64, 64, 3), np.uint8)}
        if "INSTR" in self._keys:
            shown["instr"] = spaces.Box(-np.inf, np.inf, (TOKENS * EMBEDDING,), np.float32)
            draw = np.random.default_rng(0).normal
            self._embedding = draw(0.0, 1.0, (BUCKETS, EMBEDDING)).astype(np.float32)
        self.observation_space = spaces.Dict(shown)
        self.action_space = spaces.Discrete(len(ACTIONS))
        self._raw = [np.array(action, np.intc) for action in ACTIONS.values()]
        self._random = np.random.RandomState(0)
        self._last: dict[str, Any] = {}

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; a seed determines this one and all after it."""
        if seed is not None:
            self._random = self._np.random.RandomState(seed)
        self._env.reset(seed=first_seed(seed, self._random))
        return self._look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = self._env.step(self._raw[int(action)], num_steps=FRAMES_PER_STEP)
        over = not self._env.is_running()
        obs = self._last if over else self._look()  # a level that is over shows nothing
        return obs, float(reward), over, False, {}

    def _look(self) -> dict[str, Any]:
        seen = self._env.observations()
        self._last = {"image": self._np.array(seen["RGB_INTERLEAVED"], self._np.uint8)}
        if "INSTR" in self._keys:
            self._last["instr"] = self._embedding[buckets_of(seen["INSTR"])].reshape(-1)
        return self._last

    def close(self) -> None:
        self._env.close()


def buckets_of(instruction: str) -> list[int]:
    """Hash buckets of the first tokens of an instruction, 0 after the last: TOKENS numbers."""
    found = _TOKEN.findall(instruction.lower())[:TOKENS]
    buckets = [zlib.crc32(token.encode()) % BUCKETS for token in found]
    return buckets + [0] * (TOKENS - len(buckets))


SUITE = process_suite(
    "dmlab",
    "rooms_watermaze",
    LEVELS,
    "dreamer_async.envs.suites.dmlab:DMLab",
    about="DMLab-30, 64x64; unverified",
    needs=(needs.package("deepmind_lab", "build it from github.com/google-deepmind/lab"),),
)
