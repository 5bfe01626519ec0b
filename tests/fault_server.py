"""A process that has everything imported and forks trainers, which die as they are told.

Reads one JSON request per line, {"run", "resume", "inject": {name: argument}, "kill_after":
seconds, "saved" or null, "suspended": seconds}, and answers with {"pid"} at once and with {"code":
exit code, or minus the signal, "seconds"} at the end. A trainer that suspends itself is continued
after `suspended` seconds. What a trainer prints is appended to trainer.log in its run directory.
Forking saves the seconds that importing torch takes, so that many kills fit into a test.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import uvloop  # noqa: F401  imported before the fork
from injections import FAULTS

from dreamer_async.run import pipeline
from dreamer_async.store.run_dir import RunDir


def child(request: dict[str, Any]) -> int:
    """Be the trainer; never returns to the server's loop."""
    run = RunDir(Path(request["run"]))
    log = os.open(run.path / "trainer.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
    for name, argument in request["inject"].items():
        FAULTS[name](argument)
    code = pipeline.main(run, plain=True, resume=request["resume"])
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os._exit(child(request))
        print(json.dumps({"pid": pid}), flush=True)
        status = killed(pid, request)
        code, seconds = os.waitstatus_to_exitcode(status), time.monotonic() - began
        print(json.dumps({"code": code, "seconds": seconds}), flush=True)


def killed(pid: int, request: dict[str, Any]) -> int:
    """Kill a child when its time has come, and return its exit status."""
    run, when = RunDir(Path(request["run"])), request["kill_after"]
    if when == "saved":
        while not any(run.checkpoints.glob("step-*")):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.002)
    elif when is not None:
        time.sleep(when)
    if when is not None:
        os.kill(pid, signal.SIGKILL)
    while os.WIFSTOPPED(status := os.waitpid(pid, os.WUNTRACED)[1]):
        time.sleep(request["suspended"])
        os.kill(pid, signal.SIGCONT)
    return status


if __name__ == "__main__":
    serve()
