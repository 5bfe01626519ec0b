"""What to ask envpool for; apart from the adapter, so that naming a task imports nothing.

envpool refuses names of options that it does not know with a traceback, and looks at values hardly
at all: a wrong one ends the process. So what a user gives is checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from dreamer_async.envs import names
from dreamer_async.envs.spec import ObsSpec
from dreamer_async.envs.view import PLAIN, View


class Reader(Protocol):
    """How to read one observation key from what an environment delivers."""

    @property
    def name(self) -> str:
        """Key on our side."""
        ...

    @property
    def spec(self) -> ObsSpec:
        """What comes out."""
        ...

    def read(self, obs: Any) -> Any:
        """Convert a batch: [N, *] as delivered to [N, *spec.shape]."""
        ...


@dataclass(frozen=True)
class PoolTask:
    """One task of envpool under one protocol."""

    suite: str
    """Our suite."""
    task: str
    """Our name of the task."""
    env_id: str
    """envpool's name of the task."""
    options: Mapping[str, int | float | bool | str] = field(default_factory=dict)
    """Options of that task; envpool does not check their values."""
    frames_per_step: int = 1
    """Environment frames per step (the action repeat)."""
    time_limit_is_terminal: bool = False
    """The protocol counts a time limit as the end of the task."""
    hidden: frozenset[str] = frozenset()
    """Observation keys of envpool that the protocol does not show."""
    drawn: bool = False
    """Its observations are drawn by MuJoCo."""
    view: View = PLAIN
    """What the user says about the task."""
    readers: Callable[[Any], tuple[Reader, ...]] | None = None
    """From envpool's observation space to readers, where the usual ones would not do."""

    def asked(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Options to make it with; ValueError for what the user gives and envpool cannot take.

        `defaults` are the values of all options that envpool knows for this task.
        """
        known = dict(defaults) | dict(self.options)
        for name, value in self.view.args.items():
            if name in OURS:
                raise ValueError(
                    f"{self.env_id}: {name} is no argument for --env-arg; {OURS[name]}"
                )
            if name not in known:
                free = {names.squash(each): each for each in known if each not in OURS}
                close = names.nearest(name, free)
                unknown = names.describe("argument", name, close, sorted(free.values()))
                raise ValueError(f"{self.env_id}: {unknown}")
            if name == "frame_skip" and type(value) is int and value < 1:
                raise ValueError(f"{self.env_id}: argument {name} must be at least 1, not {value}")
            if not _is_like(value, known[name]):
                raise ValueError(
                    f"{self.env_id}: argument {name} must be {_kind(known[name])}, such as "
                    f"{known[name]!r}, not {value!r}"
                )
        return {**self.options, **{name: _as(value) for name, value in self.view.args.items()}}

    def frames(self, defaults: Mapping[str, Any]) -> int:
        """Environment frames per step, where the user changes the action repeat."""
        usual = (dict(defaults) | dict(self.options)).get("frame_skip", 1)
        repeated = self.frames_per_step * self.view.args.get("frame_skip", usual)
        return repeated // usual if usual and repeated % usual == 0 else self.frames_per_step


PIXELS: dict[str, bool | int] = {"from_pixels": False, "render_width": 84, "render_height": 84} | {
    "render_camera_id": -1
}
"""Options of MuJoCo's tasks that envpool takes and does not list."""

_NOT_YOURS = "every run sets it itself"
OURS = dict.fromkeys(
    ("env_seed", "gym_reset_return_info", "base_path", "thread_affinity_offset", "vzd_path"),
    _NOT_YOURS,
) | {
    "num_envs": "--envs sets it",
    "batch_size": "-s env.batch_size sets it",
    "num_threads": "-s env.threads sets it",
    "seed": "--seed sets it",
    "task": "--task names it",
    "task_name": "--task names it",
    "max_num_players": "tasks for several players are not supported",
}
"""Options of envpool that are not the user's, and what does it instead."""


def _is_like(value: Any, default: Any) -> bool:
    """Tell whether a value is of the type of an option's default."""
    if isinstance(default, list | tuple):
        like = isinstance(value, list) and bool(default)
        return like and all(_is_like(each, default[0]) for each in value)
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, float | int)
    return isinstance(default, int | str) and isinstance(value, type(default))


def _kind(default: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    plain = words.get(type(default), "left at its default")
    return "a list" if isinstance(default, list | tuple) else plain


def _as(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
