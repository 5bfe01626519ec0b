"""Minecraft Diamond in worker processes, for the package minerl (0.4.4) that users install by hand.

The official protocol: 64x64 RGB with inventory, equipment, health, hunger and breath, 25 actions,
blocks that break 100 times faster, episodes of 36,000 steps that only death ends earlier. The
reward is 1 for the first of each of 12 items in an episode, and a hundredth of changes in health.
A jump goes on, forward, for ten steps whatever else is done. When the game fails, the episode is
cut as by a time limit, and the next reset builds another world.

Unverified: this has never run against the real package, whose build needs Java 8 and the internet,
only against a fake of its interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dreamer_async.envs import needs
from dreamer_async.envs.process_task import process_suite, restore_numpy_aliases

NOOP: dict[str, Any] = {
    "camera": (0, 0),
    **dict.fromkeys(("forward", "back", "left", "right", "jump", "sneak", "sprint", "attack"), 0),
    **dict.fromkeys(("place", "equip", "craft", "nearbyCraft", "nearbySmelt"), "none"),
}

ACTIONS: dict[str, dict[str, Any]] = {
    "noop": {},
    "attack": {"attack": 1},
    "turn_up": {"camera": (-15, 0)},
    "turn_down": {"camera": (15, 0)},
    "turn_left": {"camera": (0, -15)},
    "turn_right": {"camera": (0, 15)},
    "forward": {"forward": 1},
    "back": {"back": 1},
    "left": {"left": 1},
    "right": {"right": 1},
    "jump": {"jump": 1, "forward": 1},
    "place_dirt": {"place": "dirt"},
    "craft_planks": {"craft": "planks"},
    "craft_stick": {"craft": "stick"},
    "craft_crafting_table": {"craft": "crafting_table"},
    "place_crafting_table": {"place": "crafting_table"},
    "craft_wooden_pickaxe": {"nearbyCraft": "wooden_pickaxe"},
    "craft_stone_pickaxe": {"nearbyCraft": "stone_pickaxe"},
    "craft_iron_pickaxe": {"nearbyCraft": "iron_pickaxe"},
    "equip_stone_pickaxe": {"equip": "stone_pickaxe"},
    "equip_wooden_pickaxe": {"equip": "wooden_pickaxe"},
    "equip_iron_pickaxe": {"equip": "iron_pickaxe"},
    "craft_furnace": {"nearbyCraft": "furnace"},
    "place_furnace": {"place": "furnace"},
    "smelt_iron_ingot": {"nearbySmelt": "iron_ingot"},
}
"""The 25 actions, as changes of doing nothing; camera in degrees (pitch, yaw)."""

ITEMS = (
    "log",
    "planks",
    "stick",
    "crafting_table",
    "wooden_pickaxe",
    "cobblestone",
    "stone_pickaxe",
    "iron_ore",
    "furnace",
    "iron_ingot",
    "iron_pickaxe",
    "diamond",
)
"""What is rewarded once per episode."""

LENGTH = 36_000
BREAK_SPEED = 100
HEALTH_REWARD = 0.01
JUMP_STEPS = 10
"""Steps that one jump takes, itself included."""
PITCH_LIMIT = 60
"""Degrees that the view may go up or down."""
COLLECTED = "collected/"
"""In front of the name of an item among the values to log."""


class Minecraft:
    """A MineRL environment as gymnasium would have it; items are logged as 1 once they were had."""

    log_names = tuple(COLLECTED + item for item in ITEMS)

    def __init__(self, task: str) -> None:
        assert task == "diamond", task
        import numpy as np

        restore_numpy_aliases("float", "int", "bool")
        from dreamer_async.envs.suites.minecraft_spec import build

        self._np = np
        self._env: Any = build((64, 64), BREAK_SPEED)
        space = self._env.observation_space
        self._items = sorted(name for name in space["inventory"].spaces if name != "log2")
        self._equipment = [str(n) for n in space["equipped_items"]["mainhand"]["type"].values]
        self._set_spaces()
        self._begin({})

    def _set_spaces(self) -> None:
        from gymnasium import spaces

        np, items = self._np, len(self._items)
        count = spaces.Box(0, np.inf, (items,), np.float32)
        share = spaces.Box(0, 1, (1,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (64, 64, 3), np.uint8),
                "inventory": count,
                "inventory_max": count,
                "equipped": spaces.Box(0, 1, (len(self._equipment),), np.float32),
                **dict.fromkeys(("health", "hunger", "breath"), share),
            }
        )
        self.action_space = spaces.Discrete(len(ACTIONS))

    def _begin(self, owned: Mapping[str, float]) -> None:
        """Forget the last episode; what one starts with is no find."""
        self._time, self._pitch, self._health, self._jumps = 0, 0, None, 0
        self._most = self._np.zeros(len(self._items), self._np.float32)
        self._had = {item for item in ITEMS if owned.get(item, 0) > 0}

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in a new world."""
        if seed is not None:
            self._env.seed(seed)
        seen = self._env.reset()
        self._begin(_inventory(seen))
        obs = self._last = self._observe(seen)
        self._health = float(obs["health"][0])
        return obs, {"log": self._log()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, _, done, info = self._env.step(self._act(list(ACTIONS.values())[int(action)]))
        if "error" in info:
            print(f"Minecraft failed, the episode is cut: {info['error']}")
            return self._last, 0.0, False, True, {"log": self._log()}
        self._time += 1
        obs = self._last = self._observe(seen)
        reward = self._reward(_inventory(seen), float(obs["health"][0]))
        cut = not done and self._time >= LENGTH
        return obs, reward, bool(done), cut, {"log": self._log()}

    def _act(self, change: Mapping[str, Any]) -> dict[str, Any]:
        """Fill an action up, go on jumping, and keep the view between the limits."""
        action = {**NOOP, **change}
        if action["jump"]:
            self._jumps = JUMP_STEPS
        if self._jumps:
            self._jumps -= 1
            action |= {"jump": 1, "forward": 1}
        pitch, yaw = action["camera"]
        if abs(self._pitch + pitch) > PITCH_LIMIT:
            pitch = 0
        self._pitch += pitch
        return action | {"camera": (pitch, yaw)}

    def _reward(self, owned: Mapping[str, float], health: float) -> float:
        found = {item for item in ITEMS if owned.get(item, 0) > 0} - self._had
        self._had |= found
        assert self._health is not None, "step before reset"
        change, self._health = health - self._health, health
        return len(found) + HEALTH_REWARD * change

    def _observe(self, seen: Mapping[str, Any]) -> dict[str, Any]:
        np, owned, life = self._np, _inventory(seen), seen["life_stats"]
        inventory = np.array([owned[name] for name in self._items], np.float32)
        self._most = np.maximum(self._most, inventory)
        equipped = np.zeros(len(self._equipment), np.float32)
        equipped[self._equipment.index(str(seen["equipped_items"]["mainhand"]["type"]))] = 1
        scales = {"health": ("life", 20), "hunger": ("food", 20), "breath": ("air", 300)}
        return {
            "image": np.asarray(seen["pov"], np.uint8),
            "inventory": inventory,
            "inventory_max": self._most.copy(),
            "equipped": equipped,
            **{
                name: np.array([float(life[key]) / scale], np.float32)
                for name, (key, scale) in scales.items()
            },
        }

    def _log(self) -> dict[str, float]:
        return {COLLECTED + item: float(item in self._had) for item in ITEMS}

    def close(self) -> None:
        self._env.close()


def _inventory(seen: Mapping[str, Any]) -> dict[str, float]:
    """Counts by item; the two kinds of logs are one."""
    counts = {name: float(count) for name, count in seen["inventory"].items()}
    return counts | {"log": counts["log"] + counts.pop("log2", 0.0)}


SUITE = process_suite(
    "minecraft",
    "diamond",
    ("diamond",),
    "dreamer_async.envs.suites.minecraft:Minecraft",
    about="from an empty world to a diamond, 64x64 and inventory; unverified",
    needs=(needs.package("minerl", "build minerl 0.4.4 by hand, which takes Java 8"),),
)
