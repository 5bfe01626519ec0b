"""The dashboard in a browser: keys arrive, and no other page may press them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dreamer_async.run_dir import RunDir

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

aiohttp = pytest.importorskip("aiohttp")
pytest.importorskip("textual_serve")

RECORDED = Path(__file__).parent / "data" / "tui" / "catch.jsonl"
PATIENCE_S = 60.0


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    """A run whose trainer is this test."""
    run = RunDir.create(tmp_path, "catch", config={})
    run.events_path.write_bytes(RECORDED.read_bytes())
    with run.lock():
        yield run


@pytest.fixture
def port(run: RunDir) -> Iterator[int]:
    """Where `watch --serve` listens."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "dreamer_async", "watch", str(run.path)]
    with subprocess.Popen(
        [*words, "--serve", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"TERM": "xterm-256color"},
    ) as server:
        try:
            end = time.monotonic() + PATIENCE_S
            while not _listens(port):
                assert time.monotonic() < end and server.poll() is None
                time.sleep(0.05)
            yield port
        finally:
            server.send_signal(signal.SIGINT)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Browser:
    """A page that shows the dashboard: what it was sent, and keys to press."""

    def __init__(self, connection: ClientWebSocketResponse) -> None:
        self._connection = connection
        self._shown = b""

    async def see(self, *words: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not all(word.encode() in self._shown for word in words):
                message = await self._connection.receive()
                assert message.type == aiohttp.WSMsgType.BINARY or message.data, message
                if isinstance(message.data, bytes):
                    self._shown += message.data

    async def press(self, keys: str) -> None:
        self._shown = b""
        await self._connection.send_json(["stdin", keys])

    async def closed(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            while not self._connection.closed:
                await self._connection.receive()
        return True


def test_keys_of_a_browser_arrive(run: RunDir, port: int) -> None:
    async def scenario() -> None:
        page = f"http://localhost:{port}"
        async with aiohttp.ClientSession() as session:
            async with session.get(page) as answer:
                assert answer.status == 200 and run.name in await answer.text()
            url = f"{page}/ws?width=120&height=40"
            async with session.ws_connect(url, headers={"Origin": page}) as connection:
                browser = Browser(connection)
                await browser.see("returns", "TRAINING")
                await browser.press("3")
                await browser.see("env stepping")
                await browser.press("?")
                await browser.see("esc closes", "Next page")
                await browser.press("?p")
                await browser.see("pause asked for")
                assert [request.command for request in run.take_requests()] == ["pause"]
                await browser.press("q")
                assert await browser.closed()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Host": "example.org"},
    ],
)
def test_no_other_page_reaches_the_dashboard(port: int, headers: dict[str, str]) -> None:
    async def scenario() -> None:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"http://localhost:{port}/ws", headers=headers)
            assert refused.value.status == 403

    asyncio.run(scenario())
