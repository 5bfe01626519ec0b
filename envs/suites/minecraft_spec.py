"""The MineRL environment behind `envs.suites.minecraft`; only workers import it, and minerl.

Unverified, like the adapter itself.
"""

from __future__ import annotations

from typing import Any

from minerl.herobraine.env_spec import EnvSpec  # pyright: ignore[reportMissingImports]
from minerl.herobraine.hero import handler, handlers, mc  # pyright: ignore[reportMissingImports]

KEYS = ("forward", "back", "left", "right", "jump", "sneak", "attack")


def build(size: tuple[int, int], break_speed: int) -> Any:
    """Open an environment whose images have this size and whose blocks break faster."""
    return DiamondSpec(size, break_speed).make()


class BreakSpeed(handler.Handler):
    """Blocks break faster by a factor."""

    def __init__(self, factor: int) -> None:
        self.multiplier = factor

    def to_string(self) -> str:
        return f"break_speed({self.multiplier})"

    def xml_template(self) -> str:
        return "<BreakSpeedMultiplier>{{multiplier}}</BreakSpeedMultiplier>"


class DiamondSpec(EnvSpec):
    """A default world with the observations and actions that the agent needs, without rewards."""

    def __init__(self, size: tuple[int, int], break_speed: int) -> None:
        self.resolution, self.break_speed = size, break_speed
        super().__init__(name="DreamerMinecraft-v1")

    def create_agent_start(self) -> list[Any]:
        return [BreakSpeed(self.break_speed)]

    def create_server_world_generators(self) -> list[Any]:
        return [handlers.DefaultWorldGenerator(force_reset=True)]

    def create_server_quit_producers(self) -> list[Any]:
        return [handlers.ServerQuitWhenAnyAgentFinishes()]

    def create_server_initial_conditions(self) -> list[Any]:
        return [
            handlers.TimeInitialCondition(allow_passage_of_time=True, start_time=0),
            handlers.SpawningInitialCondition(allow_spawning=True),
        ]

    def create_observables(self) -> list[Any]:
        return [
            handlers.POVObservation(self.resolution),
            handlers.FlatInventoryObservation(mc.ALL_ITEMS),
            handlers.EquippedItemObservation(mc.ALL_ITEMS, _default="air", _other="other"),
            handlers.ObservationFromLifeStats(),
        ]

    def create_actionables(self) -> list[Any]:
        keys = [handlers.KeybasedCommandAction(key, mc.INVERSE_KEYMAP[key]) for key in KEYS]
        choices, none = ["none", *mc.ALL_ITEMS], {"_other": "none", "_default": "none"}
        kinds = (
            handlers.PlaceBlock,
            handlers.EquipAction,
            handlers.CraftAction,
            handlers.CraftNearbyAction,
            handlers.SmeltItemNearby,
        )
        return [*keys, handlers.CameraAction(), *(kind(choices, **none) for kind in kinds)]

    def create_agent_handlers(self) -> list[Any]:
        return []

    def create_rewardables(self) -> list[Any]:
        return []

    def create_server_decorators(self) -> list[Any]:
        return []

    def create_mission_handlers(self) -> list[Any]:
        return []

    def create_monitors(self) -> list[Any]:
        return []

    def is_from_folder(self, folder: str) -> bool:
        return folder == "none"

    def get_docstring(self) -> str:
        return ""

    def determine_success_from_rewards(self, rewards: Any) -> bool:
        return True
