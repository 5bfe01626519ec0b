"""The program's end of a session: values in its own spaces, checked, and rows to the trainer.

No torch, no threads, no event loop: what a control loop pays for a step is one copy, one word to
the trainer and one word back. This module imports gymnasium.

Legend: E bodies.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs import wire
from dreamer_async.envs.block import Block
from dreamer_async.envs.native.actions import write_actions
from dreamer_async.envs.native.executed import ExecutedReader
from dreamer_async.envs.spaces import read_space
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.values import flag, number, observation
from dreamer_async.envs.view import View


class Hung(ConnectionError):
    """The trainer has closed the connection, or refuses it; the message is its reason or empty."""


class Row:
    """What one body has just seen; BrokenRule, before anybody learns of it, if it cannot be."""

    executed: NDArray[Any] | None = None
    """What was done to come here, as an agent would have decided; None for what it did decide."""

    def __init__(
        self, readers: Sequence[Any], obs: Any, reward: Any, terminated: Any, truncated: Any
    ) -> None:
        self.obs = {reader.name: observation(reader, obs) for reader in readers}
        self.reward = number("the reward", reward)
        self.terminated = flag("terminated", terminated)
        self.truncated = flag("truncated", truncated)


class Caller:
    """One connection to a trainer."""

    def __init__(
        self,
        connected: socket.socket,
        spec: EnvSpec,
        num_bodies: int,
        spaces: tuple[gymnasium.Space[Any], gymnasium.Space[Any]],
        view: View,
    ) -> None:
        """Greet the trainer; Hung with its reason if it does not want us."""
        self._connection = Connection(connected.detach())
        self._num_bodies = num_bodies
        self._readers = read_space(spaces[0], view)
        self._writer, self._executed = write_actions(spaces[1]), ExecutedReader(spaces[1])
        self._owed = False
        try:
            kind, body = wire.split(self._hear())
            if kind != wire.READY:
                raise Hung(body)
            greeting = json.loads(body)
            theirs = wire.decode_spec(spec.suite, spec.task, greeting["spec"])
            assert (theirs, greeting["bodies"]) == (spec, num_bodies), (theirs, spec)
            self._block = Block(spec, num_bodies, recv_handle(self._connection))
        except BaseException:
            self._connection.close()
            raise

    def row(
        self, obs: Any, reward: Any, terminated: Any, truncated: Any, executed: Any = None
    ) -> Row:
        """Read what one body delivers, and what it did where that is not what it was told."""
        row = Row(self._readers, obs, reward, terminated, truncated)
        if executed is not None:
            row.executed = self._executed.read(executed)
        return row

    def exchange(self, rows: Sequence[Row], is_first: NDArray[np.bool_]) -> list[Any]:
        """Hand over one row of each body and wait for its action; Hung if the trainer has gone."""
        if self._owed:  # an interrupt cut the last wait short
            self._take_answer()
        for body, row in enumerate(rows):
            for name, value in row.obs.items():
                self._block.obs[name][body] = value
            self._block["reward"][body] = 0.0 if is_first[body] else row.reward
            self._block["terminated"][body] = row.terminated
            self._block["truncated"][body] = row.truncated
            if row.executed is not None:  # in the place of what the trainer had sent
                self._block["action"][body] = row.executed
        executed = np.array([row.executed is not None for row in rows])
        try:
            self._connection.send_bytes(wire.ROW + b"\n" + is_first.tobytes() + executed.tobytes())
        except OSError:
            raise Hung from None
        self._owed = True
        self._take_answer()
        return [self._writer.one(self._block["action"][body]) for body in range(self._num_bodies)]

    def _take_answer(self) -> None:
        self._hear()
        self._owed = False

    def _hear(self) -> bytes:
        try:
            return self._connection.recv_bytes()
        except (EOFError, OSError):
            raise Hung from None

    def close(self) -> None:
        """Hang up; may be called twice."""
        if not self._connection.closed:
            self._connection.close()
            self._block.close()
