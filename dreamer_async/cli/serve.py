"""The dashboard in a browser on this machine, through textual-serve (extra `serve`).

Whoever reaches a dashboard may stop the run. So it listens on localhost only; the address that is
printed holds a random token, without which other users of this machine get nothing; pages of other
sites may neither use nor frame it; and no browser can make a dashboard large or busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shlex
import time
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web
from textual_serve.app_service import AppService
from textual_serve.download_manager import DownloadManager
from textual_serve.server import Server, to_int

from dreamer_async.cli.launch import dashboard_command, environment
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import SweepDir

HOSTS = ("localhost", "127.0.0.1")
"""What a browser may have been told; any other name may be somebody's who points it here."""
LARGEST_SIZE = 500, 200
"""Columns and rows of a dashboard at most; its memory and time grow with both."""
LONGEST_MESSAGE = 16_384
"""Bytes; a longer message ends its connection."""
BYTES_PER_SECOND = 4_096
"""Of messages, in the long run: some hundred events of a mouse. The rest waits in the browser."""
RESIZE_SECONDS = 0.25
"""Time between two changes of size; of those in between only the last one counts."""
MOST_DASHBOARDS = 8
"""Each is a process of its own."""
END_SECONDS = 5.0
"""How long a dashboard may take to leave before it is killed."""
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


class Allowance:
    """Bytes that may pass: so many per second, and as many at once after a silence."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._left, self._time = rate, clock()

    def take(self, count: int) -> float:
        """Let `count` bytes pass; returns the seconds to wait before any more."""
        now = self._clock()
        self._left = min(self._rate, self._left + self._rate * (now - self._time)) - count
        self._time = now
        return max(0.0, -self._left / self._rate)


class DashboardProcess(AppService):
    """One dashboard, for one connection."""

    def __init__(
        self, line: Sequence[str], socket: web.WebSocketResponse, downloads: DownloadManager
    ) -> None:
        super().__init__(
            shlex.join(line),
            write_bytes=socket.send_bytes,
            write_str=socket.send_str,
            close=self._close,
            download_manager=downloads,
        )
        self._line, self._socket = line, socket
        self._size: tuple[int, int] | None = None
        self._resizing: asyncio.Task[None] | None = None

    async def _close(self) -> None:
        await self._socket.close()

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        """Start the dashboard itself and no shell, whose child would not end with the server.

        This forks in the main thread, with whose end the kernel ends the dashboard.
        """
        columns, rows = bounded_size(width, height)
        self._process = process = await create_subprocess_exec(
            *self._line,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=self._build_environment(columns, rows),
        )
        self._stdin = process.stdin
        return process

    async def set_terminal_size(self, width: int, height: int) -> None:
        """Change the size soon, unless it changes again before."""
        self._size = bounded_size(width, height)
        if self._resizing is None or self._resizing.done():
            self._resizing = asyncio.create_task(self._resize())

    async def _resize(self) -> None:
        while (size := self._size) is not None:
            self._size = None
            await super().set_terminal_size(*size)
            await asyncio.sleep(RESIZE_SECONDS)

    async def stop(self) -> None:
        """Ask the process to leave, and kill it if it does not."""
        if self._resizing is not None:
            self._resizing.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await super().stop()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def bounded_size(width: float, height: float) -> tuple[int, int]:
    """A size that a dashboard can draw."""
    columns, rows = LARGEST_SIZE
    return max(1, min(int(width), columns)), max(1, min(int(height), rows))


class LocalServer(Server):
    """Serves dashboards to whoever knows its token, and to no page but its own."""

    def __init__(self, line: Sequence[str], port: int, title: str) -> None:
        super().__init__(shlex.join(line), host="localhost", port=port, title=title)
        self.token = secrets.token_urlsafe(24)
        self._line = line
        self._sockets: set[web.WebSocketResponse] = set()

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"{self.public_url}/{self.token}/"

    async def _make_app(self) -> web.Application:
        """Put everything that textual-serve serves below the token."""
        outer = web.Application(middlewares=[self._guard])
        outer.add_subapp(f"/{self.token}/", await super()._make_app())
        outer.on_response_prepare.append(_add_headers)
        return outer

    async def on_startup(self, app: web.Application) -> None:
        print(f"{self.title}: {self.address}")
        print("anyone with this address can stop the run; ctrl+c ends the server", flush=True)

    async def on_shutdown(self, app: web.Application) -> None:
        """Close every connection, else the server would wait for a minute until they end."""
        gone = WSCloseCode.GOING_AWAY
        await asyncio.gather(*(socket.close(code=gone) for socket in self._sockets))

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Answer nothing to who does not know the token, or asks under a foreign name."""
        ours = {f"{host}:{self.port}" for host in HOSTS}
        given = request.path.split("/")[1]
        knows = secrets.compare_digest(given.encode(errors="replace"), self.token.encode())
        if request.host not in ours or not knows:
            raise web.HTTPForbidden(text="open the address that `watch --serve` printed")
        origin = request.headers.get("Origin")  # programs send none; they are this machine's
        if origin not in (None, *(f"http://{host}" for host in ours)):
            raise web.HTTPForbidden(text="this dashboard is for its own page only")
        return await handler(request)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Show a dashboard until one of both sides leaves."""
        if len(self._sockets) >= MOST_DASHBOARDS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_DASHBOARDS} dashboards are open already")
        socket = web.WebSocketResponse(heartbeat=15, max_msg_size=LONGEST_MESSAGE)
        dashboard = DashboardProcess(self._line, socket, self.download_manager)
        width, height = (to_int(request.query.get(key, ""), 80) for key in ("width", "height"))
        self._sockets.add(socket)
        try:
            await socket.prepare(request)
            await dashboard.start(width, height)
            await self._process_messages(socket, dashboard)
        finally:
            self._sockets.discard(socket)
            await dashboard.stop()
        return socket

    async def _process_messages(
        self, websocket: web.WebSocketResponse, app_service: AppService
    ) -> None:
        """Pass on what a browser sends, no faster than a dashboard can follow."""
        allowance = Allowance(BYTES_PER_SECOND)
        async for message in websocket:
            if message.type != WSMsgType.TEXT or not await _pass_on(message.data, app_service):
                await websocket.close(code=WSCloseCode.POLICY_VIOLATION)
                return
            await asyncio.sleep(allowance.take(len(message.data)))


async def _pass_on(text: str, dashboard: AppService) -> bool:
    """Do what one message asks for; False if it asks for nothing that we know."""
    try:
        match json.loads(text):
            case ["stdin", str(keys)]:
                await dashboard.send_bytes(keys.encode(errors="replace"))
            case ["resize", {"width": int(width), "height": int(height)}]:
                await dashboard.set_terminal_size(width, height)
            case ["ping", data]:
                await dashboard.remote_write_str(json.dumps(["pong", data]))
            case ["focus", *_]:
                await dashboard.focus()
            case ["blur", *_]:
                await dashboard.blur()
            case _:
                return False
    except (ValueError, RecursionError):  # no JSON, or numbers of thousands of digits
        return False
    return True


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def serve_dashboard(runs: Sequence[RunDir | SweepDir], options: Sequence[str], port: int) -> int:
    """Serve the dashboard to browsers on this machine until interrupted."""
    os.environ.update(environment())  # textual-serve starts one dashboard for each browser
    line = dashboard_command(*runs, options=[*options, "--web", str(os.getpid())])
    name = "".join(letter for letter in runs[0].name if letter.isprintable())
    LocalServer(line, port, f"dreamer-async {name}").serve()
    return 0
