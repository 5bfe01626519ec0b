"""A process that has everything imported and forks real trainers for sweeps that are killed.

With the words `serve SOCKET` it serves. With `train SOCKET RUN [--resume]` it is to a sweep what
`dreamer-async trainer` is: it ends as its trainer ends, and passes SIGTERM on. With `sweep SOCKET
WORDS...` it is a command `dreamer-async sweep` whose trainers are these.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def serve(path: str) -> None:
    """Fork one process for each connection, which forks a trainer, until killed."""
    from fault_server import child  # imports all that a trainer needs

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    while True:
        connection, _ = listening.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listening.close()
            line = connection.makefile().readline()
            if not line:  # somebody has only looked whether we are there
                os._exit(0)
            request = json.loads(line)
            pid = os.fork()
            if pid == 0:
                connection.close()
                os.setsid()
                os._exit(child(request))
            answer(connection, pid)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            answer(connection, code)
            os._exit(0)
        connection.close()


def answer(connection: socket.socket, number: int) -> None:
    with suppress(OSError):  # whoever asked was killed
        connection.sendall(f"{number}\n".encode())


def train(path: str, run: str, *options: str) -> int:
    """Have a trainer forked, and end as it does."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    request = {"run": run, "resume": "--resume" in options, "inject": {}}
    connection.sendall(f"{json.dumps(request)}\n".encode())
    answers = connection.makefile()
    pid = int(answers.readline())
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(pid, number))
    code = int(answers.readline())
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


def sweep(path: str, *words: str) -> int:
    from dreamer_async import cli
    from dreamer_async.store.run_dir import RunDir
    from dreamer_async.sweep import work

    def trainer(run: RunDir, overrides: Sequence[str] = (), devices: int = 1) -> list[str]:
        options = ["--resume"] if run.events_path.exists() else []
        return [sys.executable, "-S", str(Path(__file__)), "train", path, str(run.path), *options]

    work.trainer = trainer
    return cli.main(["sweep", *words])


if __name__ == "__main__":
    what, where, *others = sys.argv[1:]
    sys.exit({"serve": serve, "train": train, "sweep": sweep}[what](where, *others))
