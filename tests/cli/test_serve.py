"""The dashboard in a browser: keys arrive, from nobody but who may press them, and no flood."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from dreamer_async.store.run_dir import RunDir
from tests.tui.test_app import trainer

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

aiohttp = pytest.importorskip("aiohttp")
pytest.importorskip("textual_serve")

from dreamer_async.cli.serve import BYTES_PER_SECOND, MOST_DASHBOARDS, Allowance, bounded_size  # noqa: E402  after the check that its libraries are here

RECORDED = Path(__file__).parents[1] / "data" / "tui" / "catch.jsonl"
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDir]:
    """A run whose trainer is this process."""
    run = RunDir.create(tmp_path_factory.mktemp("runs"), "catch", config={})
    run.events_path.write_bytes(RECORDED.read_bytes())
    with trainer(run):
        yield run


class Served(NamedTuple):
    """A server that a terminal would show."""

    process: subprocess.Popen[bytes]
    address: str
    """As it was printed: with the token."""

    @property
    def port(self) -> int:
        return int(self.address.split(":")[2].split("/")[0])

    @property
    def socket(self) -> str:
        """Where its page connects to."""
        return f"{self.address}ws?width=120&height=40"


@contextlib.contextmanager
def serving(run: RunDir) -> Iterator[Served]:
    """`watch --serve` of the run, at a port that nobody else has taken meanwhile."""
    words = [sys.executable, "-m", "dreamer_async", "watch", str(run.path), "--serve", "--port"]
    environment = os.environ | {"TERM": "xterm-256color"}
    for _ in range(5):
        port = free_port()
        with tempfile.TemporaryFile() as out:
            server = subprocess.Popen([*words, str(port)], stdout=out, env=environment)
            try:
                wait_until(lambda port=port, server=server: listens(port) or has_ended(server))
                if not has_ended(server):
                    text = os.pread(out.fileno(), 1 << 16, 0).decode()
                    printed = re.findall(r"http://localhost:\d+/[\w-]{32}/", text)
                    yield Served(server, *printed)
                    return
            finally:
                server.send_signal(signal.SIGINT)
                end(server)
    raise AssertionError("it has ended by itself each time")


def free_port() -> int:
    """A port at which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process, not for ever."""
    try:
        process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def shared(run: RunDir) -> Iterator[Served]:
    with serving(run) as served:
        yield served


@pytest.fixture
def served(shared: Served) -> Served:
    """The server of all tests that leave it well; no dashboard of theirs is there any more."""
    wait_until(lambda: children(shared.process.pid) == [])
    return shared


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def listens(port: int) -> bool:
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

    async def send(self, *message: Any) -> None:
        await self._connection.send_json(message)

    async def press(self, keys: str) -> None:
        self._shown = b""
        await self.send("stdin", keys)

    async def closed(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            while not self._connection.closed:
                await self._connection.receive()
        return True


@contextlib.asynccontextmanager
async def browser(served: Served) -> AsyncIterator[Browser]:
    """A page that shows the dashboard once it is there."""
    async with aiohttp.ClientSession() as session, session.ws_connect(served.socket) as connection:
        page = Browser(connection)
        await page.see("returns", "TRAINING")
        yield page


def children(pid: int) -> list[int]:
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(word) for word in words]


def runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


def test_keys_of_a_browser_arrive(run: RunDir, served: Served) -> None:
    async def scenario() -> None:
        async with aiohttp.ClientSession() as session:
            async with session.get(served.address) as answer:
                text = await answer.text()
                assert answer.status == 200 and run.name in text
                assert f"ws:{served.address.removeprefix('http:')}ws" in text
                assert answer.headers["X-Frame-Options"] == "DENY"
                assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
                assert answer.headers["Referrer-Policy"] == "no-referrer"
            origin = {"Origin": f"http://localhost:{served.port}"}
            async with session.ws_connect(served.socket, headers=origin) as connection:
                browser = Browser(connection)
                await browser.see("returns", "TRAINING")
                await browser.press("3")
                await browser.see("env stepping")
                await browser.press("?")
                await browser.see("esc closes", "Next page")
                await browser.press("?p")
                await browser.see("asked the trainer to pause")
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
def test_no_other_page_reaches_the_dashboard(served: Served, headers: dict[str, str]) -> None:
    """Not even one that knows the token."""

    async def scenario() -> None:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(served.socket, headers=headers)
            assert refused.value.status == 403
            async with session.get(served.address, headers=headers) as answer:
                assert answer.status == 403

    asyncio.run(scenario())


def test_without_the_token_there_is_nothing(served: Served) -> None:
    root = f"http://localhost:{served.port}"
    token = served.address.split("/")[3]
    wrong = token[:-1] + ("b" if token[-1] == "a" else "a")
    paths = ("", "static/js/textual.js", "ws", f"{wrong}/", f"{wrong}/ws", f"ws?token={token}")

    async def scenario() -> None:
        async with aiohttp.ClientSession() as session:
            for path in paths:
                async with session.get(f"{root}/{path}") as answer:
                    assert answer.status == 403, path
                    assert token not in await answer.text()
                    assert answer.headers["X-Frame-Options"] == "DENY"
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(f"{root}/{wrong}/ws")
            async with session.get(f"{served.address}static/js/textual.js") as answer:
                assert answer.status == 200

    asyncio.run(scenario())
    assert children(served.process.pid) == []


def test_no_size_makes_a_large_dashboard(served: Served) -> None:
    async def scenario() -> int:
        async with browser(served) as page:
            for size in (10**9, 300, 10**300, -5, 10**9):
                await page.send("resize", {"width": size, "height": size})
            await page.press("3")
            await page.see("env stepping")
            (dashboard,) = children(served.process.pid)
            return int(Path(f"/proc/{dashboard}/statm").read_text().split()[1])

    pages = asyncio.run(scenario())
    assert pages * os.sysconf("SC_PAGE_SIZE") < 600e6
    assert bounded_size(10**9, -3) == (500, 1) and bounded_size(120, 40) == (120, 40)


@pytest.mark.parametrize(
    "message",
    [["stdin", "x" * 20_000], ["stdin", 7], ["resize", {"width": "1"}], {"stdin": "q"}, ["?"]],
    ids=["long", "number", "size", "no list", "unknown"],
)  # fmt: skip
def test_a_message_that_no_browser_sends_ends_its_connection(served: Served, message: Any) -> None:
    async def scenario() -> None:
        async with browser(served) as page:
            await page._connection.send_json(message)
            assert await page.closed()
        async with browser(served):
            pass  # the server is well

    asyncio.run(scenario())


def test_an_allowance_lets_a_burst_pass_and_then_its_rate() -> None:
    now = 0.0
    allowance = Allowance(100, clock=lambda: now)
    assert [allowance.take(50) for _ in range(4)] == [0, 0, 0.5, 1.0]
    now = 1.5
    assert allowance.take(50) == 0
    now = 60
    assert allowance.take(100) == 0 and allowance.take(1) == 0.01


def test_a_flood_of_messages_waits_outside(served: Served) -> None:
    """Answers come no faster than the allowance, whatever is sent at once."""
    flood = BYTES_PER_SECOND * 3

    async def scenario() -> float:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(served.socket) as connection,
        ):
            began = time.monotonic()
            for _ in range(flood // 1000):
                await connection.send_json(["ping", "x" * 990])
            answers = 0
            async with asyncio.timeout(PATIENCE_S):
                while answers < flood // 1000:
                    answers += "pong" in str((await connection.receive()).data)
            return time.monotonic() - began

    assert asyncio.run(scenario()) > 1.5


def test_there_are_not_many_dashboards_at_once(served: Served) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            for _ in range(MOST_DASHBOARDS):
                await stack.enter_async_context(session.ws_connect(served.socket))
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(served.socket)
            assert refused.value.status == 503

    asyncio.run(scenario())
    wait_until(lambda: children(served.process.pid) == [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_dashboards_end_with_the_server(run: RunDir, number: signal.Signals) -> None:
    async def scenario(served: Served) -> list[int]:
        async with browser(served):
            dashboards = children(served.process.pid)
            served.process.send_signal(number)
            await asyncio.to_thread(served.process.wait, PATIENCE_S)
            return dashboards

    with serving(run) as served:
        (dashboard,) = asyncio.run(scenario(served))
        wait_until(lambda: not runs(dashboard))


@pytest.mark.parametrize("bound", [True, False], ids=["bound", "control"])
def test_the_kernel_ends_a_dashboard_that_was_told_its_server(run: RunDir, bound: bool) -> None:
    """It waits for keys from this test, so that only the kernel can know that its server died."""
    start = (
        "import os, subprocess, sys, time\n"
        f"words = [sys.executable, '-m', 'dreamer_async.tui', {str(run.path)!r}]\n"
        "words += ['--web', str(os.getpid())]\n"
        f"child = subprocess.Popen(words[:{5 + bound}])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", start],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"TEXTUAL_DRIVER": "textual.drivers.web_driver:WebDriver"},
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        dashboard = int(server.stdout.readline())
        try:
            assert server.stdout.readline() == b"__GANGLION__\n"
            server.kill()
            server.wait()
            if bound:
                wait_until(lambda: not runs(dashboard))
            else:
                time.sleep(0.5)
                assert runs(dashboard)
        finally:
            server.kill()
            with contextlib.suppress(ProcessLookupError):
                os.kill(dashboard, signal.SIGKILL)
