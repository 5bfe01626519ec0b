"""Processes that never outlive this one, whatever ends it and whatever they are doing then.

The kernel kills them (PR_SET_PDEATHSIG): a thread of theirs that waits for our end would not run
while C holds the GIL, nor in a process that is stopped. What they start themselves is not bound.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

WORKER = "DREAMER_ENV_WORKER"
"""Environment variable that only the processes have in which environments are built."""

_BIND = (  # 1 is PR_SET_PDEATHSIG in sys/prctl.h; the parent may have died before the call
    "import ctypes, os, signal, sys; "
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.getppid() == int(sys.argv[1]) or os._exit(1); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


def start(
    command: Sequence[str],
    *,
    stdout: int | None = None,
    stderr: int | None = None,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """`subprocess.Popen`, without stdin, of a command that dies with this process; see `bound`.

    Linux watches the thread that forks, not its process: all children come from a thread that
    lives as long as the process does.
    """

    def fork() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            bound(command),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            env=env,
        )

    return _starter(os.getpid()).submit(fork).result()


def bound(command: Sequence[str]) -> list[str]:
    """The command, an absolute path with its arguments, as one that dies with its parent thread.

    A small interpreter asks the kernel for it and then becomes the command. Linux only; elsewhere
    the command is left as it is.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _BIND, str(os.getpid()), *command]


def stand_in(program: str) -> str:
    """A program that becomes `program`, bound to the thread that starts it; see `bound`.

    For libraries that start a program by its path. It is a script in memory that lives as long as
    this process. Where memory must not be executed it is `program` itself.
    """
    return _stand_in(program, os.getpid())


@cache
def _stand_in(program: str, _pid: int) -> str:
    if sys.platform != "linux":
        return program
    script = f'#!/bin/sh\nexec {shlex.join(bound([program]))} "$@"\n'
    writing = os.memfd_create("stand-in")
    with open(writing, "w") as file:
        file.write(script)
        file.flush()  # a file that is open for writing cannot be executed
        reading = os.open(f"/proc/self/fd/{writing}", os.O_RDONLY)
    path = f"/proc/{os.getpid()}/fd/{reading}"
    return path if os.access(path, os.X_OK) else program


@cache
def _starter(_pid: int) -> ThreadPoolExecutor:
    """The thread that forks; another one in a process that was forked itself."""
    return ThreadPoolExecutor(1, "start of processes")
