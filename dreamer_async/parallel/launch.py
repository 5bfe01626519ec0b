"""Starting the ranks of a run on this machine, by the launcher of torchrun."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from dreamer_async.machine.interpreter import SAFE, environment
from dreamer_async.machine.signals import Wishes, heeded
from dreamer_async.store import exit_codes
from dreamer_async.store.events import RunFinished, next_generation
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.summary import last_records


def launch(
    run: RunDir,
    devices: int,
    *,
    resume: bool,
    overrides: Sequence[str] = (),
    restarts: int = 0,
    grace: float = 60.0,
) -> int:
    """Run so many ranks to their end; the exit code of the run.

    After a death all are started anew, `restarts` times at most. The first signal to this process
    is passed to all of them, and they have `grace` seconds; the second ends all at once.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ |= environment()
    os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(int(grace) + 5)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=restarts,
        monitor_interval=0.1,
        signals_to_handle="SIGQUIT",  # others are handled here
    )
    options = [*(["--resume"] if resume else []), *(f"--set={text}" for text in overrides)]
    words = [SAFE, "-m", "dreamer_async", "trainer", *options, str(run.path)]

    def pass_on(number: int) -> None:
        raise SignalException(f"signal {number}", signal.Signals(number))

    signals, own = Insistence(pass_on), next_generation(run.events_path)
    try:
        signals.listen()
        elastic_launch(config, sys.executable)(*words)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        return _of(run, own, codes)
    except SignalException as error:
        late = time.monotonic() - signals.wishes.since >= grace
        return _told(run, own, exit_codes.STUCK if late else 128 + error.sigval)
    return 0


class Insistence:
    """Tells a first signal from a second one, which ends this process and its ranks at once."""

    def __init__(self, first: Callable[[int], None]) -> None:
        """`first` is called with the number of the first signal, and may raise."""
        self._first = first
        self.wishes = Wishes()

    def listen(self) -> None:
        """Handle signals from now on; in the main thread."""
        for number in heeded():
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, _: FrameType | None) -> None:
        heard = self.wishes.first
        if self.wishes.insists(number):
            kill_ranks()
            os._exit(128 + number)
        if not heard:
            self._first(number)


def kill_ranks() -> None:
    """Kill every child that leads a session, as torchrun starts ranks, and all that is in it."""
    for path in Path("/proc/self/task").glob("*/children"):
        for child in path.read_text().split():
            with contextlib.suppress(OSError):
                if os.getsid(int(child)) == int(child):
                    os.killpg(int(child), signal.SIGKILL)


def _of(run: RunDir, own: int, codes: dict[int, int]) -> int:
    """The exit code of a run whose ranks have ended with these, of those that failed first."""
    for rank, code in sorted(codes.items()):
        if code < 0:
            name = signal.Signals(-code).name
            print(f"error: rank {rank} was ended by {name}", file=sys.stderr, flush=True)
    failed = [code for code in codes.values() if code > 0]
    return _told(run, own, max(failed, default=exit_codes.RANK))


def _told(run: RunDir, own: int, otherwise: int) -> int:
    """The exit code that the run itself has told at its end.

    What a generation before `own` has told is of an earlier trainer: a resume that fails before it
    has restored the run writes nothing.
    """
    told = [record for record in last_records(run) if record.generation >= own]
    last = told[-1].event if told else None
    return last.exit_code if isinstance(last, RunFinished) else otherwise
