"""What ranks tell each other beside tensors: lines of JSON between rank 0 and each of the others.

Rank 0 listens, the others connect and show the token that only this launch knows. Sending never
waits, and what is heard is handed on at once, in the order in which it was sent. A rank that ends
closes its connection, however it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
from collections.abc import Callable
from typing import Any

LONGEST = 1 << 26
"""Bytes of the longest message."""
Message = dict[str, Any]


class RankLost(RuntimeError):
    """A rank ended without a message, or does not answer."""


class RankFailed(RuntimeError):
    """A rank has told what made it fail."""

    def __init__(self, rank: int, code: int, message: str) -> None:
        super().__init__(f"rank {rank}: {message}")
        self.code = code
        """Exit code of that failure."""


class RanksDiffer(RuntimeError):
    """Ranks that should hold the same weights do not."""


class Line:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, message: Message) -> None:
        """Send without waiting; to a rank that is gone it goes nowhere."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> Message | None:
        """The next message, or None where there will be no more."""
        try:
            line = await self._reader.readline()
            return json.loads(line) if line.endswith(b"\n") else None
        except (ConnectionError, ValueError):
            return None

    async def close(self) -> None:
        """Close it after what was sent has left."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(self._writer.drain(), 5.0)
        self._writer.close()


class Hub:
    """Rank 0's end of all connections."""

    def __init__(
        self, others: int, heard: Callable[[int, Message], None], lost: Callable[[int], None]
    ) -> None:
        """`heard` gets each message, `lost` each rank whose connection ends, on the event loop."""
        self._others, self._heard, self._lost = others, heard, lost
        self._lines: dict[int, Line] = {}
        self._complete = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.token = secrets.token_hex(16)

    async def listen(self, host: str) -> int:
        """Begin to listen; returns the port."""
        self._server = await asyncio.start_server(self._serve, host, 0, limit=LONGEST)
        return self._server.sockets[0].getsockname()[1]

    async def everybody(self) -> None:
        """Wait until all others are there."""
        await self._complete.wait()

    def send(self, message: Message, *, to: int | None = None) -> None:
        """Send to all others, or to one."""
        for rank, line in self._lines.items():
            if to in (None, rank):
                line.send(message)

    async def close(self) -> None:
        """Send what is left and close everything."""
        for line in self._lines.values():
            await line.close()
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # which asyncio's streams cannot bear
            await self._hear(Line(reader, writer))

    async def _hear(self, line: Line) -> None:
        hello = await line.receive() or {}
        rank = hello.get("rank")
        known = hmac.compare_digest(str(hello.get("token")), self.token)
        if not known or not isinstance(rank, int) or rank in self._lines:
            await line.close()
            return
        self._lines[rank] = line
        if len(self._lines) == self._others:
            self._complete.set()
        while (message := await line.receive()) is not None:
            self._heard(rank, message)
        self._lost(rank)


async def connect(host: str, port: int, rank: int, token: str) -> Line:
    """Another rank's end; raises RankLost where nobody listens."""
    try:
        line = Line(*await asyncio.open_connection(host, port, limit=LONGEST))
    except OSError as error:
        raise RankLost(f"rank 0 does not answer at {host}:{port}: {error}") from None
    line.send({"rank": rank, "token": token})
    return line
