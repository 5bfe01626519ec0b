"""Gymnasium environments that worker processes build in the tests, and their faults."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Walk(gymnasium.Env[Any, Any]):
    """Random steps; every third episode of 7 steps ends by truncation."""

    def __init__(self, pause: float = 0.0) -> None:
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (16, 32), np.uint8),
                "robot.pose": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
                "room": spaces.Discrete(5, start=3),
            }
        )
        self.action_space: spaces.Space[Any] = spaces.Discrete(3, start=-1)
        self.pause, self.episode, self.time = pause, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        time.sleep(self.pause)
        self.time += 1
        over = self.time == 7
        limit = over and self.episode % 3 == 0
        return self.look(), float(np.sum(action)), over and not limit, limit, {}

    def look(self) -> Any:
        draw = self.np_random
        return {
            "image": draw.integers(0, 255, (16, 32), np.uint8),
            "robot.pose": draw.normal(size=(2, 2)),
            "room": int(draw.integers(3, 8)),
        }


class Steer(Walk):
    """Continuous actions with uneven bounds, which the reward adds up."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(np.array([[0.0], [-2.0]]), np.array([[1.0], [6.0]]))


class Pictured(Walk):
    """One picture of a side that must be given, with a text that nobody reads."""

    def __init__(self, side: int, dtype: str = "uint8", high: float = 255) -> None:
        super().__init__()
        picture = spaces.Box(0, high, (side, side), np.dtype(dtype).type)
        self.observation_space = spaces.Dict(
            tiles=picture, words=spaces.Sequence(spaces.Discrete(2))
        )

    def look(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()


class Shaped(Walk):
    """Noise of one shape and type."""

    def __init__(self, shape: list[int], dtype: str = "uint8", high: float = 255) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, high, tuple(shape), np.dtype(dtype).type)

    def look(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()


class Faulty(Walk):
    """Go wrong in the third step, once if `marker` names a file that then exists."""

    def __init__(self, fault: str, marker: str = "", episode: int = 1) -> None:
        super().__init__()
        self.fault, self.marker, self.first_bad = fault, marker, episode
        if fault == "constructor":
            raise OSError("no such simulator")
        if fault == "sequence":
            self.observation_space = spaces.Sequence(spaces.Discrete(2))
        if fault == "no action":
            self.action_space = spaces.Box(0, 1, (0,))
        if fault == "two sizes":
            images = [spaces.Box(0, 255, (side, side), np.uint8) for side in (16, 32)]
            self.observation_space = spaces.Dict(dict(zip("ab", images, strict=True)))
        if fault == "classes":
            self.observation_space = spaces.Discrete(2**40)
        if fault == "one of":
            self.action_space = spaces.OneOf([spaces.Discrete(2), spaces.MultiBinary(3)])

    def step(self, action: Any) -> Any:
        result = super().step(action)
        bad = self.time == 3 and self.episode >= self.first_bad
        if bad and not (self.marker and Path(self.marker).exists()):
            if self.marker:
                Path(self.marker).touch()
            return self.fail(*result)
        return result

    def fail(self, obs: Any, reward: Any, *rest: Any) -> Any:
        if self.fault == "raise":
            raise ArithmeticError("the wheel came off")
        if self.fault == "end of file":
            raise EOFError("the recording is over")
        if self.fault == "interrupt":
            raise KeyboardInterrupt
        if self.fault == "exit":
            os._exit(3)
        if self.fault == "sys.exit":
            sys.exit("no licence")
        if self.fault == "crash":
            ctypes.string_at(0)
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "hang":
            time.sleep(1000)
        if self.fault == "hang in C":
            ctypes.PyDLL(None).sleep(1000)  # which keeps the GIL
        if self.fault == "deaf":
            for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_IGN)
            while True:
                ctypes.PyDLL(None).sleep(1000)
        if self.fault == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.fault == "nan":
            return obs, float("nan"), *rest
        if self.fault == "nan observation":
            return obs | {"robot.pose": np.full((2, 2), np.nan)}, reward, *rest
        if self.fault == "class":
            return obs | {"room": 8}, reward, *rest
        if self.fault == "half a class":
            return obs | {"room": 3.5}, reward, *rest
        if self.fault == "turned":
            return obs | {"image": obs["image"].T}, reward, *rest
        if self.fault == "large":
            return obs | {"robot.pose": np.array([[0, 1e300], [0, 0]])}, reward, *rest
        if self.fault == "shape":
            return obs | {"image": np.zeros((16, 16), np.uint8)}, reward, *rest
        if self.fault == "type":
            return obs | {"image": np.zeros((16, 32))}, reward, *rest
        if self.fault == "old step":
            return obs, reward, False, {}
        if self.fault == "no observation":
            return None, reward, *rest
        if self.fault == "no key":
            return {"image": obs["image"]}, reward, *rest
        if self.fault == "plain":
            return obs["image"], reward, *rest
        if self.fault.startswith("reward "):
            strange = {"none": None, "text": "1", "array": np.zeros(2), "large": 1e39}
            return obs, strange[self.fault.removeprefix("reward ")], *rest
        if self.fault == "terminated":
            return obs, reward, None, *rest[1:]
        if self.fault == "truncated":
            return obs, reward, rest[0], np.array([False, False]), rest[2]
        return obs, reward, *rest


FAULTS = SimpleNamespace(
    **{
        fault.replace(" ", "_"): partial(Faulty, fault)
        for fault in (
            *("constructor", "sequence", "one of", "no action", "classes", "two sizes"),
            *("raise", "sys.exit", "nan", "nan observation", "class", "half a class", "shape"),
            *("turned", "type", "large", "old step", "no observation", "no key", "plain"),
            *("reward none", "reward text", "reward array", "reward large"),
            *("terminated", "truncated", "none"),
        )
    }
)
"""Factories of all faults that are no death: `tests.faulty_envs:FAULTS.nan`."""


class Raising(Faulty):
    """Fail in the third step."""

    def __init__(self) -> None:
        super().__init__("raise")


class Exiting(Faulty):
    """End the process in the third step."""

    def __init__(self) -> None:
        super().__init__("exit")


class Late(Faulty):
    """Go wrong after some steps: there has been time for updates."""

    how = ""

    def __init__(self) -> None:
        super().__init__(self.how)
        self.steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        result = Walk.step(self, action)
        return self.fail(*result) if self.steps == 80 else result


class Sleeping(Late):
    how = "hang"


class Native(Late):
    how = "hang in C"


class Deaf(Late):
    how = "deaf"


class Suspended(Late):
    how = "stop"


class Unlimited(Faulty):
    """Observations that no agent here can use."""

    def __init__(self) -> None:
        super().__init__("sequence")


class Unbuilt(Faulty):
    """Fail in the constructor."""

    def __init__(self) -> None:
        super().__init__("constructor")


class OldReset(Walk):
    """Reset as it was before gymnasium."""

    def reset(self, **_: Any) -> Any:
        return self.look()


class Loose(Walk):
    """Walk, as sloppily as one can say the same."""

    def look(self) -> Any:
        seen = super().look()
        pose: Any = seen["robot.pose"]
        return {
            "image": seen["image"][None, ..., None],
            "robot.pose": pose.tolist() if self.time % 2 else pose[None],
            "room": [np.array([seen["room"]], np.uint8), float(seen["room"])][self.time % 2],
        }

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, np.array([reward]), np.bool_(terminated), np.array([int(truncated)]), info


class Careless(Walk):
    """All that `env check` should notice, each by a flag."""

    unseeded = dark = constant = endless = unrewarded = huge = False

    def __init__(self) -> None:
        super().__init__()
        if self.huge:
            self.observation_space = spaces.Dict(
                {"field": spaces.Box(-np.inf, np.inf, (5000,), np.float32)}
            )

    def look(self) -> Any:
        if self.unseeded:
            self.np_random = np.random.Generator(np.random.PCG64())
        seen = super().look()
        if self.dark:
            seen["image"] //= 128
        if self.constant:
            seen["room"] = 4
        return {"field": np.full(5000, 1e6 * self.time)} if self.huge else seen

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = super().step(action)
        terminated, truncated = terminated and not self.endless, truncated and not self.endless
        return obs, 0.0 if self.unrewarded else reward, terminated, truncated, info


class Unseeded(Careless):
    unseeded = True


class Dark(Careless):
    dark = constant = True


class Endless(Careless):
    endless = unrewarded = huge = True


class Wide(Walk):
    """A vector that leaves its own bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Dict(
            {"near": spaces.Box(-1, 1, (2,)), "far": spaces.Box(-1, 1, (2,))}
        )

    def look(self) -> Any:
        draw = self.np_random
        return {"near": draw.uniform(-1, 1, 2), "far": draw.uniform(-1, 50, 2)}


class Moment(Walk):
    """Episodes of one step, so that every second row is a reset row."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, _, _, info = super().step(action)
        return obs, reward, True, False, info


class NoSpaces:
    """Not an environment."""


Number = 3
"""Not even callable."""


class Logging(Walk):
    """Log how long the episode is and how many there were."""

    log_names = ("height", "falls")
    frames_per_step = 4

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        obs, _ = super().reset(**options)
        return obs, self.log()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        *result, _ = super().step(action)
        return (*result, self.log())  # type: ignore[return-value]

    def log(self) -> dict[str, Any]:
        return {"log": {"height": self.time, "falls": self.episode}}


class Counting(Logging):
    """The same, without an action repeat of its own."""

    frames_per_step = 1


class Robot(Walk):
    """Several actions in nested dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        arm = {"move": spaces.Box(-2, 3, (3,)), "grip": spaces.Discrete(2)}
        self.action_space = spaces.Dict({"arm": spaces.Dict(arm), "mode": spaces.Discrete(4)})

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.time += 1
        over = self.time == 7
        return self.look(), float(action["arm"]["move"].sum() + action["mode"]), over, False, {}
