"""Where blocking work meets the event loop: owned threads, signals, the watchdog, the runner.

Long blocking calls (environment `recv`, acting, updates, file writes) each have one named
daemon thread of their own, never the loop's default executor: `asyncio.run` joins executor
threads for ever, so that one call stuck in C would keep a finished run from exiting.
"""

from __future__ import annotations

import asyncio
import faulthandler
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

from dreamer_async.machine.signals import ECHO, Wishes, heeded
from dreamer_async.store import exit_codes

T = TypeVar("T")

RANKS_ECHO = 10.0
"""ECHO for one of several ranks: what a group of processes gets, torchrun passes on besides, at
its own pace. It ends by itself who does not end."""
PATIENCE = 1.0
"""Seconds for which a stop waits for a call that may never come back, such as `recv`."""
_TICK = 0.1
"""Seconds; a suspended process (SIGSTOP) loses at most one of them of its grace period."""


class Left(Exception):
    """A call was given up: it may run for ever, and nobody waits for it any more."""


class OwnedThread:
    """A daemon thread that runs one call after the other for the event loop.

    `setup` runs first in the new thread; use it for per-thread state such as
    `torch.set_num_threads`, without which a fresh thread may run a thousand times slower. If it
    raises, no call is made: each `run` raises that error instead.
    """

    def __init__(self, name: str, setup: Callable[[], None] | None = None) -> None:
        self.left = False
        """Whether a call was given up; the thread is of no use from then on."""
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._setup = setup
        self._unusable: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run the call in the thread and await its result; raises what the call or `setup` raised.

        Cancellation waits for the call to finish before it is passed on, so that nobody
        touches what the thread still uses; an error of the call is then dropped. Raises Left if
        the call is given up, or was before.
        """
        return await _uninterrupted(self._put(function, *args))

    async def run_or_leave(self, function: Callable[..., T], *args: Any) -> T:
        """As `run`, for a call that nobody may wait for: cancellation gives it up after PATIENCE.

        The thread is left behind with the call, and with whatever that uses.
        """
        done = self._put(function, *args)
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError:
            try:
                await asyncio.wait([done], timeout=PATIENCE)
            finally:
                self.leave()
                _drop_error(done)
            raise
        return done.result()

    def leave(self) -> None:
        """Give up the calls that have not come back: those who wait for them get Left."""
        for done in [each for each in self._waiting if not each.done()]:
            if not self.left:
                _left.append(self._thread)
            self.left = True
            done.set_exception(Left(f"the thread {self._thread.name} was left behind"))
            _drop_error(done)

    def _put(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._waiting.add(done)
        done.add_done_callback(self._waiting.discard)
        if self.left:
            self.leave()
            return done

        def call() -> None:
            try:
                if self._unusable is not None:
                    raise self._unusable
                result = function(*args)
            except BaseException as error:
                _post(loop, _fail, done, error)
            else:
                _post(loop, _finish, done, result)

        self._calls.put(call)
        return done

    def close(self, timeout: float = 5.0) -> None:
        """Let queued calls finish and end the thread; give up waiting after `timeout` s."""
        self._calls.put(None)
        self._thread.join(0.0 if self.left else timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _serve(self) -> None:
        try:
            if self._setup is not None:
                self._setup()
        except BaseException as error:  # the thread lives on to tell whoever calls it
            self._unusable = error
        while (call := self._calls.get()) is not None:
            call()


async def _uninterrupted(done: asyncio.Future[T]) -> T:
    """Its result, once it is there; cancellation is raised then, instead.

    Not by `asyncio.shield`: from Python 3.14 on it reports an error that comes after a
    cancellation even where somebody fetches it.
    """
    cancelled: asyncio.CancelledError | None = None
    while not done.done():
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        _drop_error(done)
        raise cancelled
    return done.result()


def _drop_error(done: asyncio.Future[Any]) -> None:
    """Let asyncio know that nobody will fetch it: it would report it as forgotten."""
    done.exception()


def _post(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, *args)


def _finish(done: asyncio.Future[T], result: T) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)


class Stop:
    """The wish to stop: an event with a reason, and a deadline once it is set.

    Set by the first signal, by a request through the run directory, or by the pipeline
    itself. From then on a watchdog ends the process after `grace` seconds.
    """

    def __init__(self, grace: float, echo: float | None = None) -> None:
        """`echo` is ECHO unless it is given."""
        self.reason = ""
        self._echo = echo
        self._event = asyncio.Event()
        self._watchdog = Watchdog(grace)
        self._wishes = Wishes()

    @property
    def requested(self) -> bool:
        """Whether anybody has asked."""
        return self._event.is_set()

    def request(self, reason: str) -> None:
        """Ask for a graceful stop; later reasons do not replace the first."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()
            self._watchdog.arm()

    async def wait(self) -> str:
        """Wait until somebody asks; returns the reason."""
        await self._event.wait()
        return self.reason

    async def interrupt(self) -> None:
        """Wait as `wait` does and return nothing, for what a stop may cut short."""
        await self._event.wait()

    async def overdue(self) -> None:
        """Wait until somebody has asked and what answers at all has had the time to."""
        await self._event.wait()
        await asyncio.sleep(PATIENCE)

    def bound(self) -> None:
        """Let the watchdog bound the end of a run that nobody asked for, too."""
        self._watchdog.arm()

    def succeeded(self) -> None:
        """From now on the watchdog ends the process as a stop that went well: all is saved."""
        self._watchdog.code = 0

    def on_signals(self) -> None:
        """Let the first SIGINT, SIGTERM or SIGHUP ask, and the second end the process."""
        loop = asyncio.get_running_loop()
        for number in heeded():
            loop.add_signal_handler(number, self._signalled, number)

    def close(self) -> None:
        """Call the watchdog off: the stop has succeeded."""
        self._watchdog.disarm()

    def _signalled(self, number: int) -> None:
        """A stop that somebody else has asked for is no signal: all ranks of a run get the first.

        Another rank's wish may be heard before the signal that both were sent.
        """
        if self._wishes.insists(number, ECHO if self._echo is None else self._echo):
            os._exit(128 + number)
        self.request(f"signal {signal.Signals(number).name}")


class Watchdog:
    """Ends the process when a stop takes too long, after printing where every thread hangs."""

    def __init__(self, seconds: float) -> None:
        self.code = exit_codes.STUCK
        """What the process ends with."""
        self._seconds = seconds
        self._disarmed = threading.Event()
        self._armed = False

    def arm(self) -> None:
        """Begin to count, once."""
        if not self._armed:
            self._armed = True
            threading.Thread(target=self._wait, name="watchdog", daemon=True).start()

    def disarm(self) -> None:
        """Let the process live, armed or not."""
        self._disarmed.set()

    def _wait(self) -> None:
        """Count short waits: the time in which the process is suspended is not a delay."""
        for _ in range(math.ceil(self._seconds / _TICK)):
            if self._disarmed.wait(_TICK):
                return
        if self.code:
            in_time(self._say)
        os._exit(self.code)

    def _say(self) -> None:
        print(f"not stopped after {self._seconds:.0f} s; threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)


def innermost(error: BaseException) -> BaseException:
    """The first error of a group of them, however deep; any other as it is."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def in_time(function: Callable[..., object], *args: Any, seconds: float = 2.0) -> bool:
    """Call something that may hang, such as printing into a full pipe; tells whether it ended."""
    thread = threading.Thread(target=function, args=args, name="in time", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def hanging() -> bool:
    """Whether a call that was given up still runs.

    The interpreter must not end by itself then: C++ that comes back to it would be torn apart.
    """
    return any(thread.is_alive() for thread in _left)


def leave(thread: threading.Thread) -> None:
    """Give up a thread that does not end: the interpreter must not end by itself then."""
    _left.append(thread)


_left: list[threading.Thread] = []
"""Threads with a call that was given up."""


async def first(*waits: Coroutine[Any, Any, T]) -> T:
    """Return the result of the coroutine that ends first and cancel the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine on uvloop."""
    import uvloop

    return uvloop.run(main)
