"""Owned threads, stopping, and the watchdog."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading

import pytest

from dreamer_async.aio import EXIT_STUCK, OwnedThread, first


def test_calls_run_in_one_thread_in_order_after_its_setup() -> None:
    seen: list[str] = []

    async def scenario() -> None:
        with OwnedThread("worker", lambda: seen.append(threading.current_thread().name)) as thread:
            names = [await thread.run(lambda: threading.current_thread().name) for _ in range(3)]
            assert names == ["worker"] * 3

    asyncio.run(scenario())
    assert seen == ["worker"]


def test_an_error_reaches_the_caller_and_the_thread_lives_on() -> None:
    async def scenario() -> None:
        with OwnedThread("worker") as thread:
            with pytest.raises(ZeroDivisionError):
                await thread.run(lambda: 1 // 0)
            assert await thread.run(lambda: 7) == 7

    asyncio.run(scenario())


def test_cancellation_waits_for_the_running_call() -> None:
    async def scenario() -> None:
        started, release, ended = threading.Event(), threading.Event(), threading.Event()

        def call() -> None:
            started.set()
            release.wait(5)
            ended.set()

        with OwnedThread("worker") as thread:
            task = asyncio.create_task(thread.run(call))
            await asyncio.to_thread(started.wait, 5)
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done(), "the cancellation must wait for the call"
            release.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ended.is_set()

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_first_returns_the_winner_and_cancels_the_rest() -> None:
    cancelled: list[bool] = []

    async def forever() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return "never"

    async def soon() -> str:
        await asyncio.sleep(0)
        return "soon"

    assert asyncio.run(first(forever(), soon())) == "soon"
    assert cancelled == [True]


def run_script(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)], capture_output=True, text=True, timeout=60
    )


@pytest.mark.faults
def test_a_thread_stuck_in_c_is_bounded_by_the_watchdog() -> None:
    result = run_script(
        """
        import ctypes
        from dreamer_async import aio

        async def main():
            stop = aio.Stop(grace=0.5)
            thread = aio.OwnedThread("stuck")
            stop.request("test")
            await thread.run(ctypes.CDLL(None).pause)

        aio.run(main())
        """
    )
    assert result.returncode == EXIT_STUCK
    assert "not stopped after" in result.stderr
    assert "stuck" in result.stderr or "_serve" in result.stderr


@pytest.mark.faults
def test_a_second_signal_ends_the_process_at_once() -> None:
    result = run_script(
        """
        import asyncio, os, signal
        from dreamer_async import aio

        async def main():
            stop = aio.Stop(grace=60)
            stop.on_signals()
            os.kill(os.getpid(), signal.SIGTERM)
            print(await stop.wait(), flush=True)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)

        aio.run(main())
        """
    )
    assert result.stdout.strip() == "signal SIGTERM"
    assert result.returncode == 130
