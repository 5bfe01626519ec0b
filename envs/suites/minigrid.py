"""MiniGrid and BabyAI by envpool: worlds of tiles seen as symbols, with a mission in words.

What the agent sees is no picture but what stands on each of 7x7 tiles: an object, its colour and
its state. So each of these numbers becomes a category, and so does each word of the mission. Where
the mission never changes it tells nothing and is left out: it would cost the world model many words
to reconstruct.
BabyAI-SynthS5R2-v0 is left out: envpool 1.2.5 does not come back from making some of its levels.

Legend: N rows, T tiles, W words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs import names
from dreamer_async.envs.pool_suite import pool_suite
from dreamer_async.envs.pool_task import PoolTask, Reader
from dreamer_async.envs.spec import ObsSpec

_MINIGRID = """
BlockedUnlockPickup-v0 DistShift1-v0 DistShift2-v0 DoorKey-16x16-v0 DoorKey-5x5-v0 DoorKey-6x6-v0
DoorKey-8x8-v0 Dynamic-Obstacles-16x16-v0 Dynamic-Obstacles-5x5-v0 Dynamic-Obstacles-6x6-v0
Dynamic-Obstacles-8x8-v0 Dynamic-Obstacles-Random-5x5-v0 Dynamic-Obstacles-Random-6x6-v0
Empty-16x16-v0 Empty-5x5-v0 Empty-6x6-v0 Empty-8x8-v0 Empty-Random-5x5-v0 Empty-Random-6x6-v0
Fetch-5x5-N2-v0 Fetch-6x6-N2-v0 Fetch-8x8-N3-v0 FourRooms-v0 GoToDoor-5x5-v0 GoToDoor-6x6-v0
GoToDoor-8x8-v0 GoToObject-6x6-N2-v0 GoToObject-8x8-N2-v0 KeyCorridorS3R1-v0 KeyCorridorS3R2-v0
KeyCorridorS3R3-v0 KeyCorridorS4R3-v0 KeyCorridorS5R3-v0 KeyCorridorS6R3-v0 LavaCrossingS11N5-v0
LavaCrossingS9N1-v0 LavaCrossingS9N2-v0 LavaCrossingS9N3-v0 LavaGapS5-v0 LavaGapS6-v0 LavaGapS7-v0
LockedRoom-v0 MemoryS11-v0 MemoryS13-v0 MemoryS13Random-v0 MemoryS17Random-v0 MemoryS7-v0
MemoryS9-v0 MultiRoom-N2-S4-v0 MultiRoom-N4-S5-v0 MultiRoom-N6-v0 ObstructedMaze-1Dl-v0
ObstructedMaze-1Dlh-v0 ObstructedMaze-1Dlhb-v0 ObstructedMaze-1Q-v0 ObstructedMaze-1Q-v1
ObstructedMaze-2Dl-v0 ObstructedMaze-2Dlh-v0 ObstructedMaze-2Dlhb-v0 ObstructedMaze-2Dlhb-v1
ObstructedMaze-2Q-v0 ObstructedMaze-2Q-v1 ObstructedMaze-Full-v0 ObstructedMaze-Full-v1
Playground-v0 PutNear-6x6-N2-v0 PutNear-8x8-N3-v0 RedBlueDoors-6x6-v0 RedBlueDoors-8x8-v0
SimpleCrossingS11N5-v0 SimpleCrossingS9N1-v0 SimpleCrossingS9N2-v0 SimpleCrossingS9N3-v0 Unlock-v0
UnlockPickup-v0 WFC-DungeonMazeScaled-v0 WFC-MazeSimple-v0 WFC-ObstaclesAngular-v0
WFC-ObstaclesBlackdots-v0 WFC-ObstaclesHogs3-v0 WFC-RoomsFabric-v0
"""
_BABYAI = """
ActionObjDoor-v0 BlockedUnlockPickup-v0 BossLevel-v0 BossLevelNoUnlock-v0 FindObjS5-v0
FindObjS6-v0 FindObjS7-v0 GoTo-v0 GoToDoor-v0 GoToImpUnlock-v0 GoToLocal-v0 GoToLocalS5N2-v0
GoToLocalS6N2-v0 GoToLocalS6N3-v0 GoToLocalS6N4-v0 GoToLocalS7N4-v0 GoToLocalS7N5-v0
GoToLocalS8N2-v0 GoToLocalS8N3-v0 GoToLocalS8N4-v0 GoToLocalS8N5-v0 GoToLocalS8N6-v0
GoToLocalS8N7-v0 GoToObj-v0 GoToObjDoor-v0 GoToObjMaze-v0 GoToObjMazeOpen-v0 GoToObjMazeS4-v0
GoToObjMazeS4R2-v0 GoToObjMazeS5-v0 GoToObjMazeS6-v0 GoToObjMazeS7-v0 GoToObjS4-v0 GoToObjS6-v1
GoToOpen-v0 GoToRedBall-v0 GoToRedBallGrey-v0 GoToRedBallNoDists-v0 GoToRedBlueBall-v0 GoToSeq-v0
GoToSeqS5R2-v0 KeyCorridor-v0 KeyCorridorS3R1-v0 KeyCorridorS3R2-v0 KeyCorridorS3R3-v0
KeyCorridorS4R3-v0 KeyCorridorS5R3-v0 KeyCorridorS6R3-v0 KeyInBox-v0 MiniBossLevel-v0
MoveTwoAcrossS5N2-v0 MoveTwoAcrossS8N9-v0 OneRoomS12-v0 OneRoomS16-v0 OneRoomS20-v0 OneRoomS8-v0
Open-v0 OpenDoor-v0 OpenDoorColor-v0 OpenDoorDebug-v0 OpenDoorLoc-v0 OpenDoorsOrderN2-v0
OpenDoorsOrderN2Debug-v0 OpenDoorsOrderN4-v0 OpenDoorsOrderN4Debug-v0 OpenRedBlueDoors-v0
OpenRedBlueDoorsDebug-v0 OpenRedDoor-v0 OpenTwoDoors-v0 Pickup-v0 PickupAbove-v0 PickupDist-v0
PickupDistDebug-v0 PickupLoc-v0 PutNextLocal-v0 PutNextLocalS5N3-v0 PutNextLocalS6N4-v0
PutNextS4N1-v0 PutNextS5N1-v0 PutNextS5N2-v0 PutNextS5N2Carrying-v0 PutNextS6N3-v0
PutNextS6N3Carrying-v0 PutNextS7N4-v0 PutNextS7N4Carrying-v0 Synth-v0 SynthLoc-v0 SynthSeq-v0
UnblockPickup-v0 Unlock-v0 UnlockLocal-v0 UnlockLocalDist-v0 UnlockPickup-v0 UnlockPickupDist-v0
UnlockToUnlock-v0
"""
ENV_IDS = {
    prefix + name.removesuffix("-v0").lower(): f"{theirs}-{name}"
    for prefix, theirs, block in (("", "MiniGrid", _MINIGRID), ("babyai-", "BabyAI", _BABYAI))
    for name in block.split()
}
"""Our names, such as empty-5x5 and babyai-gotoredball, and envpool's."""

_ONE_MISSION = """
distshift doorkey dynamic-obstacles empty fourrooms lavacrossing lavagap memory multiroom
obstructedmaze playground redbluedoors simplecrossing unlock-v0 wfc
"""
ONE_MISSION = tuple(
    name
    for name, env_id in ENV_IDS.items()
    if env_id.lower().startswith(tuple(f"minigrid-{family}" for family in _ONE_MISSION.split()))
)
"""Tasks that say the same in every episode."""

_WORDS = """
a after and avoid ball behind blue box door end fetch find forward from front get go goal green grey
hallway hold in it key lava left matching near next object of on one open opening or pick purple put
reach red right rooms square the then to toggle traverse turn two unlock up use yellow you your
"""
WORDS = {word: index + 2 for index, word in enumerate(_WORDS.split())}
"""Words of the missions and their classes; 0 is no word and 1 one that is not here."""
LONGEST_MISSION = 48
"""Words of a mission that are shown; the longest seen had 30."""

LAYERS = {"object": 11, "color": 6, "state": 4}
"""What a tile consists of, each with its number of classes."""


@dataclass(frozen=True)
class TileReader:
    """One layer of the tiles as categories."""

    layer: int
    """Which of LAYERS."""
    tiles: int
    """Number of tiles."""

    @property
    def name(self) -> str:
        return list(LAYERS)[self.layer]

    @property
    def spec(self) -> ObsSpec:
        return ObsSpec((self.tiles,), "int32", LAYERS[self.name])

    def read(self, obs: Any) -> NDArray[np.int32]:
        """Convert a batch: [N, rows, columns, 3] bytes to [N, T] classes."""
        tiles = obs["image"][..., self.layer]
        return tiles.reshape(len(tiles), -1).astype(np.int32)


@dataclass(frozen=True)
class MissionReader:
    """The mission as one category per word."""

    longest: int
    """Number of words that are shown."""

    @property
    def name(self) -> str:
        return "mission"

    @property
    def spec(self) -> ObsSpec:
        return ObsSpec((self.longest,), "int32", len(WORDS) + 2)

    def read(self, obs: Any) -> NDArray[np.int32]:
        """Convert a batch: [N, bytes] of text to [N, W] classes."""
        return np.stack([words_of(row.tobytes(), self.longest) for row in obs["mission"]])


@lru_cache(maxsize=4096)
def words_of(text: bytes, longest: int) -> NDArray[np.int32]:
    """Classes of the words of a mission, 0 after the last one: [W]."""
    words = text.rstrip(b"\0").decode().replace(",", " ").split()[:longest]
    classes = np.zeros(longest, np.int32)
    classes[: len(words)] = [WORDS.get(word, 1) for word in words]
    return classes


def read_tiles(space: Any) -> tuple[Reader, ...]:
    """Plan how to read observations of a task without its mission."""
    from dreamer_async.envs import spaces

    rows, columns, layers = space["image"].shape
    assert layers == len(LAYERS), space
    tiles = (TileReader(layer, rows * columns) for layer in range(layers))
    return (*tiles, *spaces.read_space(space, hidden=frozenset({"image", "mission"})))


def read_space(space: Any) -> tuple[Reader, ...]:
    """Plan how to read observations of a task with its mission."""
    longest = min(LONGEST_MISSION, space["mission"].shape[0] // 4)
    return (*read_tiles(space), MissionReader(longest))


def _task(task: str) -> PoolTask:
    readers = read_tiles if task in ONE_MISSION else read_space
    return PoolTask("minigrid", task, ENV_IDS[task], readers=readers)


SUITE = pool_suite(
    "minigrid",
    "empty-5x5",
    tuple(ENV_IDS),
    {names.squash(name): task for task, env_id in ENV_IDS.items() for name in (task, env_id)},
    _task,
    about="MiniGrid and BabyAI: tiles as symbols, missions in words",
)
