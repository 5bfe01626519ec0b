"""The trainer's end of a session: a VectorEnv whose rows come from the program that calls us.

All bodies of a session step together. An answer leaves with the next `recv`, after the rows that it
answers have been stored: whoever has an action knows that its observation is kept.

Legend: E bodies, which are the environments of the run.
"""

from __future__ import annotations

import json
import os
import selectors
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs import wire
from dreamer_async.envs.block import Block, anonymous_file
from dreamer_async.envs.session import address
from dreamer_async.envs.spec import EnvSpec, StepBatch
from dreamer_async.envs.vector import Requests, VectorEnv, check_rows

PARENT = "DREAMER_SESSION"
"""Environment variable: the process whose session this trainer is, and which it ends with."""
TICK = 0.2
"""Seconds after which a wait looks whether it has become pointless."""
DRAIN_SECONDS = 5.0
"""How long a receiver may take to leave after `close`."""


class Flags(NamedTuple):
    """What a program says of its rows, [E]."""

    is_first: NDArray[np.bool_]
    executed: NDArray[np.bool_]
    """Something else was done than was sent."""


class Server(VectorEnv):
    """E bodies of one program; see VectorEnv.

    `gone` is called, once, when the program that this trainer was started for has ended its
    session or itself. A trainer that nobody's session started waits for the next program instead.
    """

    def __init__(
        self, spec: EnvSpec, num_bodies: int, folder: Path, gone: Callable[[], object]
    ) -> None:
        self.spec, self.num_envs, self.batch_size = spec, num_bodies, num_bodies
        self._requests = Requests(spec.action, num_bodies, num_bodies)
        self._ids = np.arange(num_bodies, dtype=np.int32)
        self._block = Block(spec, num_bodies, anonymous_file())
        self._parent = int(os.environ.get(PARENT, "0"))
        self._gone, self._left = gone, False
        self._notices: deque[str] = deque()
        self._folder = folder
        self._listener = address.listen(folder)
        self._caller: Connection | None = None
        self._acted = False
        self._sending = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    @property
    def in_flight(self) -> int:
        return self._requests.in_flight

    def start(self) -> None:
        with self._sending:
            self._requests.take_all()

    def send(self, action: NDArray[Any], env_id: NDArray[np.int32]) -> None:
        """Keep actions until the rows that they answer are stored: see `recv`."""
        with self._sending:
            self._requests.take(action, env_id)
            self._block["action"][env_id] = action
            self._acted = True

    def recv(self) -> StepBatch:
        """Answer the rows before, which are stored by now, and wait for the next ones."""
        with self._requests.receiving:
            self.answer()
            is_first, executed = self._hear()
            self._requests.put(self._ids)
            return check_rows(self.spec, self._rows(is_first, executed=bool(executed.any())))

    def _rows(self, is_first: NDArray[np.bool_], *, executed: bool) -> StepBatch:
        """Copy rows out of the shared block, where the program has put what it did instead."""
        terminated = self._block["terminated"].astype(np.bool_)
        return StepBatch(
            env_id=self._ids.copy(),
            obs={name: column.copy() for name, column in self._block.obs.items()},
            reward=self._block["reward"].astype(np.float32),
            is_first=is_first,
            is_last=terminated | self._block["truncated"].astype(np.bool_),
            is_terminal=terminated,
            executed=self._block["action"].copy() if executed else None,
        )

    def answer(self) -> None:
        """Say that the actions lie in the block; that the program is gone is heard later."""
        if self._acted and self._caller is not None:
            with suppress(OSError):
                self._caller.send_bytes(wire.ROW)
        self._acted = False

    def _hear(self) -> Flags:
        """Wait for rows, whoever brings them, and return what is said of each."""
        while True:
            self._requests.check_open()
            if self._parent and os.getppid() != self._parent:
                self._leave()
            for key, _ in self._selector.select(TICK):
                if key.fileobj is self._listener:
                    self._welcome()
                elif (flags := self._read()) is not None:
                    return flags

    def _read(self) -> Flags | None:
        """Take the flags of the next rows; None if the program has gone."""
        caller = self._caller
        assert caller is not None
        try:
            kind, _, flags = caller.recv_bytes().partition(b"\n")
        except (EOFError, OSError):
            self._dismiss()
            return None
        assert kind == wire.ROW and len(flags) == 2 * self.num_envs, (kind, flags)
        said = np.frombuffer(flags, np.uint8).astype(np.bool_)
        return Flags(said[: self.num_envs], said[self.num_envs :])

    def _welcome(self) -> None:
        """Take a program in, or send it away while another one is here."""
        accepted, _ = self._listener.accept()
        caller = Connection(accepted.detach())
        if self._caller is not None:
            with suppress(OSError):
                caller.send_bytes(wire.answer(wire.REFUSED, "another program steps it"))
            caller.close()
            return
        greeting = {"spec": wire.encode_spec(self.spec), "bodies": self.num_envs}
        try:
            caller.send_bytes(wire.answer(wire.READY, json.dumps(greeting)))
            send_handle(caller, self._block.fd, 0)
        except OSError:
            caller.close()
            return
        self._caller = caller
        self._selector.register(caller, selectors.EVENT_READ)

    def _dismiss(self) -> None:
        """Forget a program that has gone; its running episodes are cut by the next one's first."""
        assert self._caller is not None
        self._selector.unregister(self._caller)
        self._caller.close()
        self._caller = None
        self._notices.append("the program that stepped this session has gone")
        if self._parent:
            self._leave()

    def _leave(self) -> None:
        """Let the run end; whoever calls from now on is meant for the next trainer."""
        if not self._left:
            self._left = True
            self._selector.unregister(self._listener)
            self._listener.close()
            address.remove(self._folder)
            self._gone()

    def notices(self) -> list[str]:
        return [self._notices.popleft() for _ in range(len(self._notices))]

    def close(self) -> None:
        """Let a receiver leave and close every file; a program that waits hears it at once."""
        if not self._requests.close():
            return
        with self._requests.draining(DRAIN_SECONDS) as alone:
            if not self._left:
                address.remove(self._folder)
            if alone:
                self._free()

    def _free(self) -> None:
        self._selector.close()
        self._listener.close()
        if self._caller is not None:
            self._caller.close()
        self._block.close()
