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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs import registration

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
BY_ID = "gymnasium:make"
"""The target of environments that are made by their id, which is among the arguments."""
MODE, PICTURES = "render_mode", "rgb_array"
"""The argument that has an environment draw itself, and its value for pictures."""


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


class Called(NamedTuple):
    """What builds an environment in the end, and with what."""

    name: str
    """As the user named it."""
    function: Callable[..., Any]
    """A class or a function."""
    kwargs: Mapping[str, Any]
    """Its keyword arguments."""


class Server:
    """One environment, and its row of the shared block."""

    def __init__(self, job: Mapping[str, Any], connection: Connection) -> None:
        random.seed(job["seed"])
        np.random.seed(job["seed"])  # some environments draw from the global generators
        self._seed: int | None = job["seed"]
        self._connection = connection
        self._env = build(job["target"], job["kwargs"], drawn=job["drawn"])
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
        if getattr(self._env, MODE, None) != PICTURES:
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


def build(target: str, kwargs: Mapping[str, Any], *, drawn: bool = False) -> Any:
    """Build the environment that `module:attribute` names; NoEnvironment if it is none.

    With `drawn` it is told to draw itself (`render_mode="rgb_array"`) where it says that it can.
    """
    factory = load(target)
    if not callable(factory):
        raise NoEnvironment(f"{target} is {kind(factory)}; name a class or a function")
    env_id = kwargs["id"] if target == BY_ID else ""
    with _packages(env_id):
        called = _registered(factory, kwargs) if env_id else Called(target, factory, kwargs)
        _check_call(*called)
        drawing = _drawing(called) if drawn and MODE not in kwargs else {}
        env = _call(target, factory, kwargs, drawing)
    lacking = [name for name in ("observation_space", "action_space") if not hasattr(env, name)]
    if lacking:
        raise NoEnvironment(
            f"{target} builds no environment: {kind(env)} has no {' and no '.join(lacking)}"
        )
    return env


@contextmanager
def _packages(env_id: str) -> Iterator[None]:
    """Raise NoEnvironment where a package is missing that an environment needs.

    Code of the user's keeps its traceback, except where gymnasium itself asks for a package.
    """
    try:
        yield
    except gymnasium.error.DependencyNotInstalled as error:
        raise NoEnvironment(_in_one_line(error)) from None
    except ModuleNotFoundError as error:
        if not env_id or ":" in env_id:
            raise
        raise NoEnvironment(f"it needs {error.name}, which is not installed") from None


def _call(
    target: str, factory: Callable[..., Any], kwargs: Mapping[str, Any], drawing: Mapping[str, str]
) -> Any:
    """Call what builds an environment, without `drawing` if it cannot be built with that."""
    if drawing:
        with suppress(Exception):
            return factory(**kwargs, **drawing)
    try:
        return factory(**kwargs)
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
        error.add_note(f"It was called as {target}({given}).")
        raise


def _registered(make: Callable[..., Any], kwargs: Mapping[str, Any]) -> Called:
    """What gymnasium calls to make an id; NoEnvironment if nobody has registered it."""
    env_id: str = kwargs["id"]
    module, _, name = env_id.rpartition(":")
    if module:
        _import(module)
    try:
        spec = gymnasium.spec(_versioned(name))
    except gymnasium.error.Error as error:
        raise NoEnvironment(_in_one_line(error)) from None
    entry = spec.entry_point
    if entry is None:
        raise NoEnvironment(f"{name} is registered only as many environments at once")
    own = inspect.signature(make).parameters.keys() | {MODE}
    passed = {name: value for name, value in kwargs.items() if name not in own}
    creator = registration.load_env_creator(entry) if isinstance(entry, str) else entry
    return Called(env_id, creator, {**spec.kwargs, **passed})


def _versioned(name: str) -> str:
    """An id with the newest version, where it has none, as gymnasium.make takes it."""
    namespace, plain, version = registration.parse_env_id(name)
    if version is None:
        version = registration.find_highest_version(namespace, plain)
    return registration.get_env_id(namespace, plain, version)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _drawing(called: Called) -> dict[str, str]:
    """The argument with which an environment draws itself; none where it does not say so."""
    try:
        parameters = inspect.signature(called.function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return {}
    takes = any(each.name == MODE or each.kind is each.VAR_KEYWORD for each in parameters)
    metadata = getattr(called.function, "metadata", None)
    modes = metadata.get("render_modes") if isinstance(metadata, Mapping) else [PICTURES]
    drawn = takes and PICTURES in (modes or ()) and MODE not in called.kwargs
    return {MODE: PICTURES} if drawn else {}


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
    """Import what `module:attribute` names; NoEnvironment if the module or that is not there."""
    name, _, attribute = target.partition(":")
    module = _import(name)
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError:
        known = {squash(each): each for each in vars(module) if not each.startswith("_")}
        close = f"; did you mean {near[0]}?" if (near := nearest(attribute, known)) else ""
        raise NoEnvironment(f"module {name!r} has no attribute {attribute!r}{close}") from None


def _import(name: str) -> ModuleType:
    """Import a module; NoEnvironment if it is not there, but not if one that it imports is not."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not error.name or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise NoEnvironment(f"there is no module {error.name!r}") from None
