"""Starting the ranks of a run on this machine, by the launcher of torchrun."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Sequence

from dreamer_async.machine.interpreter import SAFE, environment
from dreamer_async.store import exit_codes
from dreamer_async.store.events import RunFinished, read_events
from dreamer_async.store.run_dir import RunDir


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

    After a death all are started anew, `restarts` times at most. A signal to this process is passed
    to all of them, and they have `grace` seconds.
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
    )
    options = [*(["--resume"] if resume else []), *(f"--set={text}" for text in overrides)]
    words = [SAFE, "-m", "dreamer_async", "trainer", *options, str(run.path)]
    try:
        elastic_launch(config, sys.executable)(*words)
    except ChildFailedError as error:
        return _of(run, {rank: failure.exitcode for rank, failure in error.failures.items()})
    except SignalException:
        return _told(run, exit_codes.STUCK)
    return 0


def _of(run: RunDir, codes: dict[int, int]) -> int:
    """The exit code of a run whose ranks have ended with these, of those that failed first."""
    for rank, code in sorted(codes.items()):
        if code < 0:
            name = signal.Signals(-code).name
            print(f"error: rank {rank} was ended by {name}", file=sys.stderr, flush=True)
    return _told(run, max((code for code in codes.values() if code > 0), default=exit_codes.RANK))


def _told(run: RunDir, otherwise: int) -> int:
    """The exit code that the run itself has told at its end."""
    records, _ = read_events(run.events_path)
    last = records[-1].event if records else None
    return last.exit_code if isinstance(last, RunFinished) else otherwise
