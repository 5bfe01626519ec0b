"""A process with one gymnasium environment in it, at the other end of `processes.py`.

It gets its job as JSON over a socket, answers with the specs, receives the shared block, and then
obeys one-word commands. A closed socket ends it, also in the middle of a step; that it never
outlives the trainer is the kernel's work (`children.py`).
"""

from __future__ import annotations

import faulthandler
import importlib
import inspect
import json
import operator
import os
import random
import select
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

import numpy as np

from dreamer_async.envs import wire
from dreamer_async.envs.block import Block
from dreamer_async.envs.names import nearest, squash
from dreamer_async.envs.native import space_json
from dreamer_async.envs.native.actions import write_actions
from dreamer_async.envs.observed.reader import ObsReader, UnsupportedSpace
from dreamer_async.envs.spaces import read_space, vector_bounds
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.values import BrokenRule, flag, kind, number, observation
from dreamer_async.envs.view import View

LONGEST_TRACEBACK = 60_000
ORPHAN_SECONDS = 1.0
"""How long a step may go on after the trainer is gone."""


class NoEnvironment(ValueError):
    """What was named builds no environment."""


class TrainerGone(Exception):
    """The other end of the socket is closed: nobody is left to answer."""


def main(socket: int, trace: int) -> None:
    """Serve one environment over a socket; a crash writes what Python was doing to `trace`."""
    for ignored in (signal.SIGINT, signal.SIGHUP):  # the trainer decides when to stop
        signal.signal(ignored, signal.SIG_IGN)
    faulthandler.enable(trace, all_threads=False)
    for ours in (socket, trace):
        os.set_inheritable(ours, False)
    os.dup2(2, 1)  # whatever an environment prints must not mix with the trainer's output
    threading.Thread(target=_die_with_trainer, args=(socket,), daemon=True).start()
    with suppress(TrainerGone):
        _serve(Connection(socket))


def _serve(connection: Connection) -> None:
    """Run the environment that the trainer asks for, and tell it of whatever that raises."""
    try:
        Server(json.loads(_hear(connection)), connection).run()
    except TrainerGone:
        raise
    except (UnsupportedSpace, NoEnvironment) as error:
        _say(connection, wire.answer(wire.REFUSED, str(error)))
    except BrokenRule as error:
        _say(connection, wire.answer(wire.FAILED, str(error)))
    except BaseException:  # environments also raise SystemExit, KeyboardInterrupt and EOFError
        report = traceback.format_exc()[-LONGEST_TRACEBACK:]
        _say(connection, wire.answer(wire.FAILED, f"\n{report}"))


def _hear(connection: Connection, receive: Callable[[Connection], Any] | None = None) -> Any:
    """The next message of the trainer; TrainerGone if there will be none.

    Only what the socket raises is meant: an environment may raise the same errors.
    """
    try:
        return (receive or Connection.recv_bytes)(connection)
    except (EOFError, OSError):
        raise TrainerGone from None


def _say(connection: Connection, message: bytes) -> None:
    """Answer the trainer; TrainerGone if it does not listen any more."""
    try:
        connection.send_bytes(message)
    except OSError:
        raise TrainerGone from None


def _die_with_trainer(socket: int) -> None:
    """Wait for the other end to close, leave the main thread some time, and exit."""
    poll = select.poll()
    poll.register(socket, getattr(select, "POLLRDHUP", 0))
    poll.poll()
    threading.Event().wait(ORPHAN_SECONDS)
    os._exit(1)


class Server:
    """One environment, and its row of the shared block."""

    def __init__(self, job: Mapping[str, Any], connection: Connection) -> None:
        random.seed(job["seed"])
        np.random.seed(job["seed"])  # some environments draw from the global generators
        self._seed: int | None = job["seed"]
        self._connection = connection
        self._env = build(job["target"], job["kwargs"])
        view = View(kinds=job["kinds"], image=job["image"])
        self._readers: tuple[ObsReader, ...] = read_space(self._env.observation_space, view)
        self._writer = write_actions(self._env.action_space)
        obs = {reader.name: reader.spec for reader in self._readers}
        self._log: tuple[str, ...] = tuple(getattr(self._env, "log_names", ()))
        frames: int = getattr(self._env, "frames_per_step", 1)
        bounds = vector_bounds(self._env.observation_space, self._readers)
        native = space_json.native(self._env.observation_space, self._env.action_space)
        taken = {reader.name: reader.taken() for reader in self._readers}
        action, log = self._writer.spec, self._log
        spec = EnvSpec(job["suite"], job["task"], obs, action, frames, bounds, log, native, taken)
        specs = json.dumps(wire.encode_spec(spec))
        _say(connection, wire.answer(wire.READY, specs))
        self._index: int = job["env_id"]
        self._episode, self._steps = 0, 0
        self._block = Block(spec, job["num_envs"], _hear(connection, recv_handle))

    def run(self) -> None:
        """Obey commands until told to close."""
        while (command := _hear(self._connection)) != wire.CLOSE:
            if command == wire.DRAW:
                _say(self._connection, self._picture())
                continue
            if command == wire.RESET:
                self._reset()
            else:
                self._step()
            _say(self._connection, wire.answer(wire.ROW))
        self._env.close()

    def _picture(self) -> bytes:
        """What the environment draws, as an answer; an empty one if it draws no RGB picture."""
        if getattr(self._env, "render_mode", None) != "rgb_array":
            return wire.answer(wire.PICTURE)
        picture = np.asarray(self._env.render())
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
            return wire.answer(wire.PICTURE)
        return wire.encode_picture(picture)

    def _reset(self) -> None:
        """Begin an episode; only the first one is seeded."""
        result = self._env.reset(seed=self._seed)
        self._seed = None
        self._episode, self._steps = self._episode + 1, 0
        if not isinstance(result, tuple) or len(result) != 2:
            raise BrokenRule("reset must return (observation, info), as gymnasium's does")
        self._write(result[0], 0.0, False, False, result[1])

    def _step(self) -> None:
        action = self._writer.one(self._block["action"][self._index])
        result = self._env.step(action)
        self._steps += 1
        if not isinstance(result, tuple) or len(result) != 5:
            raise BrokenRule(
                "step must return (observation, reward, terminated, truncated, info), "
                "as gymnasium's does"
            )
        self._write(*result)

    def _write(self, obs: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> None:
        try:
            for reader in self._readers:
                self._block.obs[reader.name][self._index] = observation(reader, obs)
            self._block["reward"][self._index] = number("the reward", reward)
            self._block["terminated"][self._index] = flag("terminated", terminated)
            self._block["truncated"][self._index] = flag("truncated", truncated)
            for name in self._log:
                self._block[f"log/{name}"][self._index] = number(f"log {name}", info["log"][name])
        except BrokenRule as error:
            where = f"in step {self._steps}" if self._steps else "at the reset"
            raise BrokenRule(f"{error} ({where} of episode {self._episode})") from None


def build(target: str, kwargs: Mapping[str, Any]) -> Any:
    """Build the environment that `module:attribute` names; NoEnvironment if it is none."""
    factory = load(target)
    if not callable(factory):
        raise NoEnvironment(f"{target} is {kind(factory)}; name a class or a function")
    _check_arguments(target, factory, kwargs)
    try:
        env = factory(**kwargs)
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
        error.add_note(f"It was called as {target}({given}).")
        raise
    lacking = [name for name in ("observation_space", "action_space") if not hasattr(env, name)]
    if lacking:
        raise NoEnvironment(
            f"{target} builds no environment: {kind(env)} has no {' and no '.join(lacking)}"
        )
    return env


def _check_arguments(target: str, factory: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """Raise NoEnvironment for arguments that what builds the environment does not take."""
    if target != "gymnasium:make":
        _check_call(target, factory, kwargs)
        return
    own = inspect.signature(factory).parameters.keys() | {"render_mode"}
    passed = {name: value for name, value in kwargs.items() if name not in own}
    if passed:
        _check_call(kwargs["id"], *_registered(kwargs["id"], passed))


def _registered(env_id: str, passed: Mapping[str, Any]) -> tuple[Callable[..., Any], Any]:
    """What gymnasium calls to make an id, and with what."""
    import gymnasium
    from gymnasium.envs.registration import load_env_creator

    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    spec = gymnasium.spec(name)
    entry = spec.entry_point
    assert entry is not None, spec
    return load_env_creator(entry) if isinstance(entry, str) else entry, {**spec.kwargs, **passed}


def _check_call(name: str, called: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """Raise NoEnvironment unless `called` can be called with these arguments."""
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):  # written in C
        return
    try:
        signature.bind(**kwargs)
        return
    except TypeError as error:
        reason = str(error)
    taken = [
        each.name
        for each in signature.parameters.values()
        if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    takes = f"it takes {', '.join(taken)}" if taken else "it takes none"
    if unknown := [each for each in kwargs if each not in taken]:
        close = nearest(unknown[0], {squash(each): each for each in taken})
        hint = f"; did you mean {close[0]}?" if close else ""
        raise NoEnvironment(f"{name} has no argument {unknown[0]!r}{hint} ({takes})")
    raise NoEnvironment(f"{name}: {reason} (--env-arg NAME=VALUE gives it; {takes})")


def load(target: str) -> Any:
    """Import what `module:attribute` names; NoEnvironment if the module lacks it."""
    name, _, attribute = target.partition(":")
    module = importlib.import_module(name)
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError:
        known = {squash(each): each for each in vars(module) if not each.startswith("_")}
        close = f"; did you mean {near[0]}?" if (near := nearest(attribute, known)) else ""
        raise NoEnvironment(f"module {name!r} has no attribute {attribute!r}{close}") from None
