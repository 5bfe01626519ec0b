"""Owned threads, stopping, and the watchdog."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest

from dreamer_async.run import aio
from dreamer_async.run.aio import Left, OwnedThread, Stop, first, hanging
from dreamer_async.store.exit_codes import STUCK


class Hang:
    """A call that does not return until it is released."""

    def __init__(self) -> None:
        self.started, self.release = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.started.set()
        self.release.wait(60)


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


def test_a_failed_setup_is_told_to_every_caller_and_nothing_is_called() -> None:
    result = run_script(  # a hang could not be ended from within
        """
        import asyncio
        from dreamer_async.run.aio import OwnedThread

        def refuse():
            raise RuntimeError("refused")

        async def main():
            with OwnedThread("broken", refuse) as thread:
                for _ in range(2):
                    try:
                        await thread.run(print, "called")
                    except RuntimeError as error:
                        print(error)

        asyncio.run(main())
        """
    )
    assert result.stdout.split("\n") == ["refused", "refused", ""], result.stderr
    assert "Traceback" not in result.stderr, "told once, to those who asked"


def test_cancellation_waits_for_the_running_call() -> None:
    async def scenario() -> None:
        started, release, ended = threading.Event(), threading.Event(), threading.Event()

        def call() -> None:
            started.set()
            release.wait(60)
            ended.set()

        with OwnedThread("worker") as thread:
            task = asyncio.create_task(thread.run(call))
            await asyncio.to_thread(started.wait, 60)
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done(), "the cancellation must wait for the call"
            release.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ended.is_set()

    asyncio.run(asyncio.wait_for(scenario(), 120))


@pytest.mark.faults
def test_what_hangs_is_left_behind_a_second_after_the_stop() -> None:
    """Whoever waits for it at a terminal presses ctrl+c again when it takes much longer."""

    async def scenario() -> None:
        hang = Hang()
        with OwnedThread("worker") as thread:
            task = asyncio.create_task(thread.run_or_leave(hang))
            await asyncio.to_thread(hang.started.wait, 60)
            stop, began = Stop(grace=60.0), time.monotonic()
            task.cancel()
            stop.request("enough")
            await asyncio.gather(asyncio.wait([task]), stop.overdue())
            assert 0.9 < time.monotonic() - began < 6.0
            stop.close()
            assert task.cancelled() and thread.left
            hang.release.set()
        while hanging():
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(scenario(), 120))


@pytest.mark.faults
@pytest.mark.parametrize("leave", [True, False], ids=["real", "control"])
def test_a_call_that_may_hang_is_left_behind_after_a_while(
    leave: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run` is the control, which waits for it."""
    monkeypatch.setattr(aio, "PATIENCE", 0.1)

    async def scenario() -> None:
        hang = Hang()
        with OwnedThread("worker") as thread:
            task = asyncio.create_task((thread.run_or_leave if leave else thread.run)(hang))
            await asyncio.to_thread(hang.started.wait, 60)
            task.cancel()
            await asyncio.wait([task], timeout=60 if leave else 1)
            assert task.done() == leave and thread.left == leave
            if leave:
                with pytest.raises(Left):
                    await thread.run(int)
                assert hanging()
            hang.release.set()
        assert task.cancelled() or not leave
        while hanging():
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_a_call_that_comes_back_in_time_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aio, "PATIENCE", 60.0)

    async def scenario() -> None:
        started = threading.Event()

        def call() -> None:
            started.set()
            time.sleep(0.1)

        with OwnedThread("worker") as thread:
            task = asyncio.create_task(thread.run_or_leave(call))
            await asyncio.to_thread(started.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not thread.left and await thread.run(lambda: 7) == 7
            with pytest.raises(ZeroDivisionError):
                await thread.run_or_leave(lambda: 1 // 0)
            thread.leave()
            assert not thread.left, "nothing was running"

    asyncio.run(scenario())


@pytest.mark.parametrize("waits", [OwnedThread.run, OwnedThread.run_or_leave])
def test_an_error_after_a_cancellation_is_dropped_in_silence(waits: Any) -> None:
    """Asyncio reports an error that nobody fetched."""
    reported: list[str] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: reported.append(context["message"]))
        started, release = threading.Event(), threading.Event()

        def fail() -> None:
            started.set()
            release.wait(60)
            raise ZeroDivisionError

        with OwnedThread("worker") as thread:
            task = asyncio.create_task(waits(thread, fail))
            await asyncio.to_thread(started.wait, 60)
            task.cancel()
            await asyncio.sleep(0)
            release.set()
            await asyncio.wait([task])
            assert task.cancelled()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    gc.collect()
    assert reported == []


def test_whoever_waits_for_a_call_that_is_given_up_hears_of_it() -> None:
    async def scenario() -> None:
        release = threading.Event()
        with OwnedThread("worker") as thread:
            task = asyncio.create_task(thread.run(release.wait, 60))
            await asyncio.sleep(0)
            thread.leave()
            with pytest.raises(Left, match="worker"):
                await task
            release.set()

    asyncio.run(scenario())


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
        [sys.executable, "-c", textwrap.dedent(body)], capture_output=True, text=True, timeout=120
    )


@pytest.mark.faults
def test_a_thread_stuck_in_c_is_bounded_by_the_watchdog() -> None:
    result = run_script(
        """
        import ctypes
        from dreamer_async.run import aio

        async def main():
            stop = aio.Stop(grace=0.5)
            thread = aio.OwnedThread("stuck")
            stop.request("test")
            await thread.run(ctypes.CDLL(None).pause)

        aio.run(main())
        """
    )
    assert result.returncode == STUCK
    assert "not stopped after" in result.stderr
    assert "stuck" in result.stderr or "_serve" in result.stderr


STOPPED = """
import asyncio, sys
from dreamer_async.run import aio

async def main():
    stop = aio.Stop(grace=float(sys.argv[1]))
    stop.request("test")
    print("armed", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.sleep(float(sys.argv[2]))
    stop.close()

aio.run(main())
"""


@pytest.mark.faults
@pytest.mark.parametrize(("after", "code"), [(0.0, 0), (60.0, STUCK)])
def test_time_in_which_the_process_is_suspended_is_no_delay(after: float, code: int) -> None:
    """SIGSTOP for longer than the grace period; the control takes too long once it runs.

    A machine that is too busy to answer in so short a time gets more of it.
    """
    codes = []
    for grace in (0.5, 4.0, 16.0):
        codes.append(suspended(grace, after))
        if codes[-1] == code:
            return
    raise AssertionError(codes)


def suspended(grace: float, after: float) -> int:
    child = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(grace), str(after)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "armed\n"
    child.send_signal(signal.SIGSTOP)
    time.sleep(1.25 * grace)
    child.send_signal(signal.SIGCONT)
    child.communicate("go on\n", timeout=120)
    return child.returncode


@pytest.mark.faults
@pytest.mark.parametrize(("echo", "code"), [(60.0, 0), (0.0, 128 + signal.SIGTERM)])
def test_the_same_signal_at_once_is_an_echo(echo: float, code: int) -> None:
    """As timeout(1) sends it; the control takes every second signal seriously."""
    result = run_script(
        f"""
        import asyncio, os, signal
        from dreamer_async.run import aio

        async def main():
            aio.ECHO = {echo}
            stop = aio.Stop(grace=60)
            stop.on_signals()
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                await stop.wait()
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)
            stop.close()

        aio.run(main())
        """
    )
    assert result.returncode == code


@pytest.mark.faults
@pytest.mark.parametrize(("signals", "code"), [(1, 0), (2, 128 + signal.SIGTERM)])
def test_the_first_signal_after_somebody_elses_wish_is_no_second_one(
    signals: int, code: int
) -> None:
    """Another rank, or a request through the run directory, may ask before the signal comes."""
    result = run_script(
        f"""
        import asyncio, os, signal
        from dreamer_async.run import aio

        async def main():
            aio.ECHO = 0.0
            stop = aio.Stop(grace=60)
            stop.on_signals()
            stop.request("rank 1: signal SIGTERM")
            for _ in range({signals}):
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(0.1)
            stop.close()
            print(stop.reason)

        aio.run(main())
        """
    )
    assert result.returncode == code
    assert code or result.stdout == "rank 1: signal SIGTERM\n"


@pytest.mark.faults
def test_a_second_signal_ends_the_process_at_once() -> None:
    result = run_script(
        """
        import asyncio, os, signal
        from dreamer_async.run import aio

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
