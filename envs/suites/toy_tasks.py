"""The rules of toy tasks with a known optimum, vectorised in numpy.

| task | observation | action | optimum | random |
|---|---|---|---|---|
| seek | cells to the goal, a category | 3 | 6.75 | 1.8 |
| seek_pixels | the same as a 32x32x1 image | 3 | 6.75 | 1.8 |
| match | cue, a category | 4 | 10 | 2.5 |
| catch | ball and paddle as 3 numbers | 3 | 1 | -0.6 |
| catch_pixels | the same as a 32x32x1 image | 3 | 1 | -0.6 |
| reach | position and target, 4 numbers | 2 continuous | 18 | about -1.3 |
| cue | cue and go signal, 5 numbers | 4 | 1 | -0.5 |

Legend: E environments, n of them in one call (`ids`), A action dimensions.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs.spec import ActionSpec, ObsSpec
from dreamer_async.envs.vector import env_seeds

Ids = NDArray[np.int32]
Array = NDArray[Any]


class Streams:
    """One SplitMix64 generator per environment (Steele, Lea and Flood, 2014).

    Its whole state is one uint64 [E], so that a snapshot is an array, and what an environment
    draws does not depend on the others.
    """

    def __init__(self, seed: int, num_envs: int) -> None:
        self.state = np.array(env_seeds(seed, num_envs), np.uint64)
        self.uniform(np.arange(num_envs, dtype=np.int32))  # mixes the 31-bit seeds once

    def uniform(self, ids: Ids) -> NDArray[np.float64]:
        """Draw one number in [0, 1) for each of `ids`."""
        self.state[ids] += np.uint64(0x9E3779B97F4A7C15)
        word = self.state[ids]
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        word ^= word >> np.uint64(31)
        return (word >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def integers(self, ids: Ids, count: int) -> NDArray[np.int32]:
        """Draw one integer in 0 to count - 1 for each of `ids`."""
        return (self.uniform(ids) * count).astype(np.int32)


class Outcome(NamedTuple):
    """What one step did to n environments."""

    reward: NDArray[np.float32]
    """[n] reward."""
    last: NDArray[np.bool_]
    """[n] the episode is over."""
    terminal: NDArray[np.bool_]
    """[n] and because of the task."""


class Toy(Protocol):
    """The rules of one task over E environments at once; `state` is all there is to know."""

    obs: ClassVar[dict[str, ObsSpec]]
    """Observations, as in EnvSpec."""
    action: ClassVar[ActionSpec]
    """The action, as in EnvSpec."""
    optimum: ClassVar[float]
    """Return of the best policy, the same in every episode."""
    random_return: ClassVar[float]
    """Mean return of uniformly random actions."""
    state: dict[str, Array]
    """{name: [E, *]}."""

    def __init__(self, num_envs: int) -> None: ...

    def reset(self, ids: Ids, streams: Streams) -> None:
        """Begin an episode."""
        ...

    def step(self, ids: Ids, action: Array) -> Outcome:
        """Apply int32 [n] or float32 [n, A] actions."""
        ...

    def observe(self, ids: Ids) -> dict[str, Array]:
        """Look at the present state."""
        ...


class Seek(Toy):
    """Walk along a line of 9 cells to the goal in the middle and stay there.

    A step goes one cell left, nowhere, or one cell right, and every episode of 8 steps begins 3
    cells away, on either side. The reward is 1 on the goal and halves with every cell away from
    it, so that the best policy gets 1/4, 1/2 and then 1 six times. Everything that counts is seen
    and rewarded at once, which makes this the task to see an agent learn soon. The eighth step
    ends the task (is_terminal): values stay small, while behind a time limit they would reach
    for 333 steps.
    """

    reach: ClassVar[int] = 4
    begin: ClassVar[int] = 3
    steps: ClassVar[int] = 8
    obs: ClassVar[dict[str, ObsSpec]] = {"goal": ObsSpec((), "int32", classes=9)}
    action: ClassVar[ActionSpec] = ActionSpec("discrete", 3)
    optimum: ClassVar[float] = 6.75
    random_return: ClassVar[float] = 1.79

    def __init__(self, num_envs: int) -> None:
        self.goal = np.zeros(num_envs, np.int32)
        self.time = np.zeros(num_envs, np.int32)
        self.state = {"goal": self.goal, "time": self.time}

    def reset(self, ids: Ids, streams: Streams) -> None:
        self.goal[ids] = np.where(streams.integers(ids, 2) > 0, self.begin, -self.begin)
        self.time[ids] = 0

    def step(self, ids: Ids, action: Array) -> Outcome:
        self.goal[ids] = np.clip(self.goal[ids] - (action - 1), -self.reach, self.reach)
        self.time[ids] += 1
        reward = np.exp2(-np.abs(self.goal[ids])).astype(np.float32)
        last = self.time[ids] == self.steps
        return Outcome(reward, last, last)

    def observe(self, ids: Ids) -> dict[str, Array]:
        """The cells from the agent to the goal, from -4 to 4, as a category."""
        return {"goal": self.goal[ids] + self.reach}


class SeekPixels(Seek):
    """Seek, seen only as a 32x32 gray image: the goal hangs in the middle, the agent walks below.

    Cells are 3 pixels wide and 16 high, the agent brighter.
    """

    obs: ClassVar[dict[str, ObsSpec]] = {"image": ObsSpec((32, 32, 1), "uint8")}

    def observe(self, ids: Ids) -> dict[str, Array]:
        column = (np.arange(32) - 2) // 3 - self.reach  # 0 in the middle
        image = np.zeros((len(ids), 32, 32, 1), np.uint8)
        image[:, :16, column == 0] = 128
        image[:, 16:, :, 0] = np.where(column == -self.goal[ids, None], 255, 0)[:, None]
        return {"image": image}


class Match(Toy):
    """Answer each of 10 cues with the action of its number.

    Every right answer pays 1 and brings the next cue. No observation shows what an answer did:
    that the reward depends on cue and action together is left to the reward head. The tenth
    answer ends the task (is_terminal), as in seek.
    """

    cues: ClassVar[int] = 4
    steps: ClassVar[int] = 10
    obs: ClassVar[dict[str, ObsSpec]] = {"cue": ObsSpec((), "int32", classes=4)}
    action: ClassVar[ActionSpec] = ActionSpec("discrete", 4)
    optimum: ClassVar[float] = 10.0
    random_return: ClassVar[float] = 2.5

    def __init__(self, num_envs: int) -> None:
        self.cue = np.zeros((num_envs, self.steps + 1), np.int32)  # drawn at the start
        self.time = np.zeros(num_envs, np.int32)
        self.state = {"cue": self.cue, "time": self.time}

    def reset(self, ids: Ids, streams: Streams) -> None:
        for step in range(self.steps + 1):
            self.cue[ids, step] = streams.integers(ids, self.cues)
        self.time[ids] = 0

    def step(self, ids: Ids, action: Array) -> Outcome:
        right = action == self.cue[ids, self.time[ids]]
        self.time[ids] += 1
        last = self.time[ids] == self.steps
        return Outcome(right.astype(np.float32), last, last)

    def observe(self, ids: Ids) -> dict[str, Array]:
        """The present cue, as a category."""
        return {"cue": self.cue[ids, self.time[ids]]}


class Catch(Toy):
    """Catch a falling ball with a paddle that moves one column left, not at all, or right.

    The board has 8 rows of 5 columns and the ball falls one row per step, so an episode has 7
    steps. The last one pays 1 if the paddle is under the ball and -1 if not. The paddle starts
    in the middle and can always be in time; blindly it meets one ball in five.
    """

    rows: ClassVar[int] = 8
    columns: ClassVar[int] = 5
    obs: ClassVar[dict[str, ObsSpec]] = {"vector": ObsSpec((3,), "float32")}
    action: ClassVar[ActionSpec] = ActionSpec("discrete", 3)
    optimum: ClassVar[float] = 1.0
    random_return: ClassVar[float] = -0.6

    def __init__(self, num_envs: int) -> None:
        self.row = np.zeros(num_envs, np.int32)
        self.column = np.zeros(num_envs, np.int32)
        self.paddle = np.zeros(num_envs, np.int32)
        self.state = {"row": self.row, "column": self.column, "paddle": self.paddle}

    def reset(self, ids: Ids, streams: Streams) -> None:
        self.row[ids] = 0
        self.column[ids] = streams.integers(ids, self.columns)
        self.paddle[ids] = self.columns // 2

    def step(self, ids: Ids, action: Array) -> Outcome:
        self.paddle[ids] = np.clip(self.paddle[ids] + action - 1, 0, self.columns - 1)
        self.row[ids] += 1
        last = self.row[ids] == self.rows - 1
        caught = self.paddle[ids] == self.column[ids]
        reward = np.where(last, np.where(caught, 1, -1), 0).astype(np.float32)
        return Outcome(reward, last, last)

    def observe(self, ids: Ids) -> dict[str, Array]:
        """Ball minus paddle, rows to fall, and paddle minus middle, each in cells."""
        paddle, left = self.paddle[ids], self.rows - 1 - self.row[ids]
        where = np.stack([self.column[ids] - paddle, left, paddle - self.columns // 2], 1)
        return {"vector": where.astype(np.float32)}


class CatchPixels(Catch):
    """Catch, seen only as a 32x32 gray image: cells of 4x6 pixels, the ball brighter."""

    obs: ClassVar[dict[str, ObsSpec]] = {"image": ObsSpec((32, 32, 1), "uint8")}

    def observe(self, ids: Ids) -> dict[str, Array]:
        bottom = np.full_like(self.row, self.rows - 1)
        ball = self._cells(self.row[ids], self.column[ids])
        paddle = self._cells(bottom[ids], self.paddle[ids])
        image = np.where(ball, 255, np.where(paddle, 128, 0)).astype(np.uint8)
        return {"image": image[..., None]}

    @staticmethod
    def _cells(row: NDArray[np.int32], column: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Mark the pixels of one cell per image, [n, 32, 32]."""
        pixel = np.arange(32)
        down = pixel // 4 == row[:, None]
        across = (pixel - 1) // 6 == column[:, None]  # one pixel of margin on either side
        return down[:, :, None] & across[:, None, :]


class Reach(Toy):
    """Move a point on the plane to a target at distance 1 and stay there, for 20 steps.

    The target lies in one of 360 directions. The action is a velocity, cut to the unit disc, of
    which a step makes 0.2. The reward is 1 minus the distance after the step, and so the best
    policy loses 0.8 + 0.6 + 0.4 + 0.2 on its way. The end is a time limit: is_last without
    is_terminal.
    """

    steps: ClassVar[int] = 20
    speed: ClassVar[float] = 0.2
    targets: ClassVar[NDArray[np.float64]] = np.array(
        [(math.cos(math.tau * k / 360), math.sin(math.tau * k / 360)) for k in range(360)]
    )
    obs: ClassVar[dict[str, ObsSpec]] = {"vector": ObsSpec((4,), "float32")}
    action: ClassVar[ActionSpec] = ActionSpec("continuous", 2)
    optimum: ClassVar[float] = 18.0
    random_return: ClassVar[float] = -1.3

    def __init__(self, num_envs: int) -> None:
        self.position = np.zeros((num_envs, 2), np.float64)
        self.target = np.zeros((num_envs, 2), np.float64)
        self.time = np.zeros(num_envs, np.int32)
        self.state = {"position": self.position, "target": self.target, "time": self.time}

    def reset(self, ids: Ids, streams: Streams) -> None:
        self.position[ids] = 0
        self.target[ids] = self.targets[streams.integers(ids, len(self.targets))]
        self.time[ids] = 0

    def step(self, ids: Ids, action: Array) -> Outcome:
        velocity = np.clip(action.astype(np.float64), -1, 1)
        velocity /= np.maximum(1, _length(velocity))[:, None]
        self.position[ids] += self.speed * velocity
        self.time[ids] += 1
        distance = _length(self.target[ids] - self.position[ids])
        last = self.time[ids] == self.steps
        return Outcome((1 - distance).astype(np.float32), last, np.zeros_like(last))

    def observe(self, ids: Ids) -> dict[str, Array]:
        """Position and target, each x and y."""
        both = np.concatenate([self.position[ids], self.target[ids]], 1)
        return {"vector": both.astype(np.float32)}


def _length(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean length of the rows of [n, 2], rounded the same whatever n is."""
    return np.sqrt(vector[:, 0] ** 2 + vector[:, 1] ** 2)


class Cue(Toy):
    """Remember which of 4 cues the first observation showed until the go signal 6 steps later.

    The action given to the go signal pays 1 if it names the cue and -1 if not, and ends the
    episode; all others do nothing.
    """

    cues: ClassVar[int] = 4
    delay: ClassVar[int] = 6
    obs: ClassVar[dict[str, ObsSpec]] = {"vector": ObsSpec((5,), "float32")}
    action: ClassVar[ActionSpec] = ActionSpec("discrete", 4)
    optimum: ClassVar[float] = 1.0
    random_return: ClassVar[float] = -0.5

    def __init__(self, num_envs: int) -> None:
        self.cue = np.zeros(num_envs, np.int32)
        self.time = np.zeros(num_envs, np.int32)
        self.state = {"cue": self.cue, "time": self.time}

    def reset(self, ids: Ids, streams: Streams) -> None:
        self.cue[ids] = streams.integers(ids, self.cues)
        self.time[ids] = 0

    def step(self, ids: Ids, action: Array) -> Outcome:
        last = self.time[ids] == self.delay
        self.time[ids] += 1
        right = action == self.cue[ids]
        reward = np.where(last, np.where(right, 1, -1), 0).astype(np.float32)
        return Outcome(reward, last, last)

    def observe(self, ids: Ids) -> dict[str, Array]:
        """The cue, one-hot and only at first, then the go signal."""
        cue = (self.cue[ids, None] == np.arange(self.cues)) & (self.time[ids, None] == 0)
        go = self.time[ids, None] == self.delay
        return {"vector": np.concatenate([cue, go], 1).astype(np.float32)}


TOYS: dict[str, type[Toy]] = {
    "seek": Seek,
    "seek_pixels": SeekPixels,
    "match": Match,
    "catch": Catch,
    "catch_pixels": CatchPixels,
    "reach": Reach,
    "cue": Cue,
}
