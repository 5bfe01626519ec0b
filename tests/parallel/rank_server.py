"""A process that has everything imported and forks the ranks of a run, as torchrun starts them.

Reads one JSON request per line, {"run", "ranks", "resume", "inject": {rank: {name: argument}},
"kill": [rank, moment, seconds], "signal": number or null}: `kill` is a SIGKILL so long after the
processes have been "started", this start of the run has "begun" its stream, or a checkpoint was
"saved", and `signal` goes to all ranks as soon as there is one. Answers {"codes": [...], "seconds"}
at the end. Ranks that live PATIENCE seconds longer than the first of them get a SIGTERM: torchrun
does so, at once, and ends in this way what has not met rank 0 yet.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401  the first exchange of ranks does; once here, not in each
import torch.distributed as dist
from fault_server import child as trainer

from dreamer_async.store.run_dir import RunDir

PATIENCE = 40.0


def child(request: dict[str, Any], rank: int, port: int) -> int:
    """Be one rank; never returns to the server's loop."""
    names = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": request["ranks"],
        "LOCAL_WORLD_SIZE": request["ranks"], "MASTER_ADDR": "localhost", "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": 0,
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    os.environ |= {name: str(value) for name, value in names.items()}
    return trainer(request | {"inject": request["inject"].get(str(rank), {})})


def serve() -> None:
    for line in sys.stdin:
        request, began = json.loads(line), time.monotonic()
        store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        pids = []
        for rank in range(request["ranks"]):
            pids.append(os.fork())
            if pids[-1] == 0:
                os._exit(child(request, rank, store.port))
        codes = ended(pids, request)
        print(json.dumps({"codes": codes, "seconds": time.monotonic() - began}), flush=True)


def ended(pids: list[int], request: dict[str, Any]) -> list[int]:
    """Do to the ranks what is asked, wait for all, and return their exit codes or minus signals."""
    run, reached = RunDir(Path(request["run"])), {"started": time.monotonic()}
    stream, kill, number = size(run), request["kill"], request["signal"]
    codes: dict[int, int] = {}
    first: float | None = None
    while len(codes) < len(pids):
        time.sleep(0.005)
        for pid in pids:
            if pid not in codes and (status := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(status[1])
                first = first or time.monotonic()
        if size(run) > stream:
            reached.setdefault("begun", time.monotonic())
        if saved := any(run.checkpoints.glob("step-*")):
            reached.setdefault("saved", time.monotonic())
        if kill and time.monotonic() >= reached.get(kill[1], float("inf")) + kill[2]:
            send(pids[kill[0]], signal.SIGKILL, codes)
            kill = None
        if number and saved:
            for pid in pids:
                send(pid, number, codes)
            number = None
        if first is not None and time.monotonic() - first > PATIENCE:
            for pid in pids:
                send(pid, signal.SIGTERM, codes)
            first = time.monotonic()
    return [codes[pid] for pid in pids]


def size(run: RunDir) -> int:
    """Bytes of the run's event stream."""
    return run.events_path.stat().st_size if run.events_path.exists() else 0


def send(pid: int, number: int, codes: dict[int, int]) -> None:
    """Send a signal to a rank that has not ended."""
    if pid not in codes:
        os.kill(pid, number)


if __name__ == "__main__":
    serve()
