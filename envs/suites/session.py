"""Runs whose rows come from a program of the user's (`dreamer_async.Session`).

The spaces are arguments of the task, as JSON, so that whoever opens such a run knows what its agent
sees without the program. There is nothing that could be stepped here.
"""

from __future__ import annotations

from typing import NoReturn

from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.suite import Options, Suite
from dreamer_async.envs.vector import EnvError
from dreamer_async.envs.view import View

NAME = "session"
OBSERVATION, ACTION = "observation_space", "action_space"
"""Arguments of a task that hold its spaces."""


def spec(task: str, view: View) -> EnvSpec:
    """Describe what a program senses and does; ValueError where no agent here can use it."""
    from dreamer_async.envs.native import space_json
    from dreamer_async.envs.native.actions import write_actions
    from dreamer_async.envs.spaces import read_space, vector_bounds

    if not {OBSERVATION, ACTION} <= set(view.args):
        raise ValueError(
            f"the session {task} has no spaces; sessions begin in Python, with "
            "dreamer_async.Session(observation_space, action_space)"
        )
    seen, done = (space_json.decode(view.args[name]) for name in (OBSERVATION, ACTION))
    readers = read_space(seen, view)
    obs = {reader.name: reader.spec for reader in readers}
    return EnvSpec(
        *(NAME, task, obs, write_actions(done).spec),
        bounds=vector_bounds(seen, readers),
        native=space_json.native(seen, done),
        taken={reader.name: reader.taken() for reader in readers},
    )


def make(task: str, options: Options) -> NoReturn:
    """Refuse: only the program has what could be stepped."""
    raise EnvError(
        f"the session {task} has no environment that could be played in, as its rows come from "
        "the program that steps it; dreamer_async.load(...).act plays in a loop of your own"
    )


SUITE = Suite(
    name=NAME,
    default_task="robot",
    tasks=(),
    resolve=lambda task: task,
    spec=spec,
    make=make,
    about="a loop of your own, from Python: dreamer_async.Session",
)
