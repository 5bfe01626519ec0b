"""A process with one gymnasium environment in it, at the other end of `processes.py`.

It gets its job as JSON over a socket, answers with the specs, receives the shared block, and then
obeys one-word commands. It never outlives the trainer: a closed socket ends it, also in the middle
of a step.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import operator
import os
import random
import select
import signal
import threading
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

import numpy as np

from envs import wire
from envs.block import Block
from envs.spaces import ObsReader, UnsupportedSpace, read_space, write_actions
from envs.spec import EnvSpec

LONGEST_TRACEBACK = 60_000
ORPHAN_SECONDS = 1.0
"""How long a step may go on after the trainer is gone."""


def main(socket: int) -> None:
    """Serve one environment over the socket with this file descriptor."""
    for ignored in (signal.SIGINT, signal.SIGHUP):  # the trainer decides when to stop
        signal.signal(ignored, signal.SIG_IGN)
    faulthandler.enable()
    os.set_inheritable(socket, False)
    os.dup2(2, 1)  # whatever an environment prints must not mix with the trainer's output
    threading.Thread(target=_die_with_trainer, args=(socket,), daemon=True).start()
    connection = Connection(socket)
    try:
        job = json.loads(connection.recv_bytes())
        Server(job, connection).run()
    except EOFError:
        return
    except UnsupportedSpace as error:
        connection.send_bytes(wire.answer(wire.REFUSED, str(error)))
    except Exception:
        report = traceback.format_exc()[-LONGEST_TRACEBACK:]
        connection.send_bytes(wire.answer(wire.FAILED, report))


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
        self._env = load(job["target"])(**job["kwargs"])
        self._readers: tuple[ObsReader, ...] = read_space(self._env.observation_space)
        self._writer = write_actions(self._env.action_space)
        obs = {reader.name: reader.spec for reader in self._readers}
        self._log: tuple[str, ...] = tuple(getattr(self._env, "log_names", ()))
        frames: int = getattr(self._env, "frames_per_step", 1)
        spec = EnvSpec(job["suite"], job["task"], obs, self._writer.spec, frames, self._log)
        specs = json.dumps(wire.encode_spec(spec))
        connection.send_bytes(wire.answer(wire.READY, specs))
        self._index: int = job["env_id"]
        self._block = Block(spec, job["num_envs"], recv_handle(connection))

    def run(self) -> None:
        """Obey commands until told to close."""
        while (command := self._connection.recv_bytes()) != wire.CLOSE:
            if command == wire.RESET:
                self._reset()
            else:
                self._step()
            self._connection.send_bytes(wire.answer(wire.ROW))
        self._env.close()

    def _reset(self) -> None:
        """Begin an episode; only the first one is seeded."""
        result = self._env.reset(seed=self._seed)
        self._seed = None
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError("reset must return (observation, info), as gymnasium's does")
        self._write(result[0], 0.0, False, False, result[1])

    def _step(self) -> None:
        action = self._writer.one(self._block["action"][self._index])
        result = self._env.step(action)
        if not isinstance(result, tuple) or len(result) != 5:
            raise TypeError(
                "step must return (observation, reward, terminated, truncated, info), "
                "as gymnasium's does"
            )
        self._write(*result)

    def _write(self, obs: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> None:
        for reader in self._readers:
            value = reader.read(_batched(obs))[0]
            column = self._block.obs[reader.name]
            if value.shape != column.shape[1:] or value.dtype != column.dtype:
                raise ValueError(
                    f"observation {reader.name} is {value.dtype} {list(value.shape)}, but its "
                    f"space says {column.dtype} {list(column.shape[1:])}"
                )
            column[self._index] = value
        self._block["reward"][self._index] = reward
        self._block["terminated"][self._index] = terminated
        self._block["truncated"][self._index] = truncated
        for name in self._log:
            self._block[f"log/{name}"][self._index] = info["log"][name]


def _batched(obs: Any) -> Any:
    """Add a batch axis of one to each array of a nested observation."""
    if isinstance(obs, Mapping):
        return {key: _batched(value) for key, value in obs.items()}
    return np.asarray(obs)[None]


def load(target: str) -> Any:
    """Import what `module:attribute` names."""
    module, _, attribute = target.partition(":")
    return operator.attrgetter(attribute)(importlib.import_module(module))
