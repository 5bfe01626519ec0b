"""Python environments, each in a process of its own, behind the interface of VectorEnv.

Workers are not in lockstep: each answers when its step is done, and `recv` takes the first
`batch_size` answers. Rows and actions lie in a shared block; the sockets carry one word each way.

A worker is started by a command and not by `multiprocessing`: its thread count can be set without
touching our own environment variables, the user's main script is not imported again, and nothing
is pickled. A worker that dies or hangs is replaced a few times: its episode is cut, and its next
row is_first. What Python was doing in it then lies in a file without a name that it shares with
us. An exception in an environment is not worth a second try and becomes EnvError.

Legend: N rows of one batch, E environments.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import send_handle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs import children, wire
from dreamer_async.envs.block import Block, anonymous_file
from dreamer_async.envs.spec import EnvSpec, StepBatch
from dreamer_async.envs.suite import Options
from dreamer_async.envs.vector import EnvError, Requests, VectorEnv, check_rows, env_seed
from dreamer_async.envs.words import Words

MAX_RESTARTS = 3
"""How often a worker may be replaced."""
HANG_SECONDS = 300.0
"""How long a step or a reset may take before the worker counts as hung."""
START_SECONDS = 300.0
"""How long building an environment may take."""
LONGEST_TRACE = 20_000
"""Bytes of what a crashed or hung worker was doing that are shown."""
EXIT_SECONDS = 1.0
"""How long a worker may take from closing its socket to its end."""
CLOSE_SECONDS = 5.0
"""How long workers may take to finish before they are killed."""

_COMMAND = (
    "import json, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "sys.path[:] = json.loads(sys.argv[1]); "
    "from dreamer_async.envs.worker import main; main(*map(int, sys.argv[2:]))"
)


@dataclass(frozen=True)
class Source:
    """Where a worker finds its environment."""

    suite: str
    """Our suite."""
    task: str
    """Our name of the task."""
    target: str
    """`module:attribute` of something that returns a gymnasium environment."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Its keyword arguments, as JSON can carry them."""
    search: tuple[str, ...] = ()
    """Folders in which modules are also looked for, after everywhere else."""
    remark: str = ""
    """What the user should know of why it comes from there."""

    def called_with(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """All keyword arguments; ValueError where the user gives one of ours."""
        if ours := sorted(self.kwargs.keys() & args.keys()):
            raise ValueError(
                f"{self.suite} {self.task}: {ours[0]} is no argument for --env-arg; --task names it"
            )
        return {**self.kwargs, **args}


@dataclass
class Worker:
    """One process and what we know about it."""

    process: subprocess.Popen[bytes]
    """The process."""
    connection: Connection
    """Our end of its socket."""
    trace: int
    """File in which a crash leaves what Python was doing."""
    hung: bool = False
    """It was told to crash because it owed a row for too long."""
    fresh: bool = True
    """Its next request must be a reset."""
    asked: float = 0.0
    """When the request in flight was made, in monotonic seconds."""


class WorkerDied(EnvError):
    """A worker ended without a word."""


class ProcessEnv(VectorEnv):
    """E processes; see VectorEnv."""

    def __init__(
        self, source: Source, options: Options, *, hang_seconds: float = HANG_SECONDS
    ) -> None:
        self.num_envs, self.batch_size = options.num_envs, options.batch_size
        self._source, self._seed, self._hang_seconds = source, options.seed, hang_seconds
        self._view, self._drawn = options.view, options.drawn
        self._kwargs = source.called_with(options.view.args)
        self._restarts = [0] * self.num_envs
        self._notices: deque[str] = deque()
        self._selector = selectors.DefaultSelector()
        self._sending = threading.Lock()
        self._workers: list[Worker] = []
        self._words = Words()
        try:
            for env_id in range(self.num_envs):  # they build their environments side by side
                self._workers.append(self._launch(env_id))
            for entry in enumerate(self._workers):
                self.spec = self._greet(*entry)
            self._block = Block(self.spec, self.num_envs, anonymous_file())
            for entry in enumerate(self._workers):
                self._hand_over(*entry)
        except BaseException:
            self._finish(0.0)
            raise
        self._requests = Requests(self.spec.action, self.num_envs, self.batch_size)
        self._is_first = np.zeros(self.num_envs, np.bool_)
        self._ready: deque[int] = deque()

    @property
    def source(self) -> Source:
        """Where the environments come from, to measure these workers against others."""
        return self._source

    @property
    def in_flight(self) -> int:
        return self._requests.in_flight

    def start(self) -> None:
        with self._sending:
            for env_id in self._requests.take_all().tolist():
                self._workers[env_id].fresh = True
                self._ask(env_id)

    def send(self, action: NDArray[Any], env_id: NDArray[np.int32]) -> None:
        with self._sending:
            self._requests.take(action, env_id)
            self._block["action"][env_id] = action
            for each in env_id.tolist():
                self._ask(each)

    def _ask(self, env_id: int) -> None:
        """Request a row; that a worker is dead is noticed by `recv`."""
        worker = self._workers[env_id]
        worker.asked = time.monotonic()
        with suppress(OSError):
            worker.connection.send_bytes(wire.RESET if worker.fresh else wire.STEP)

    def recv(self) -> StepBatch:
        with self._requests.receiving:
            while len(self._ready) < self.batch_size:
                self._wait()
            ids = np.array([self._ready.popleft() for _ in range(self.batch_size)], np.int32)
            if self.batch_size == self.num_envs:
                ids.sort()
            rows = self._rows(ids)
            self._requests.put(ids)
            return check_rows(self.spec, rows)

    def render(self, env_id: int) -> NDArray[np.uint8] | None:
        """As in VectorEnv; also None if the worker has died, which the next `recv` notices."""
        if not self._drawn or env_id in self._requests.pending:
            return None
        connection = self._workers[env_id].connection
        try:
            connection.send_bytes(wire.DRAW)
            if not connection.poll(self._hang_seconds):
                raise EnvError(f"{self._name(env_id)} does not draw itself")
            kind, _, body = connection.recv_bytes().partition(b"\n")
        except (EOFError, OSError):
            return None
        if kind != wire.PICTURE:
            raise EnvError(f"{self._name(env_id)} failed: {body.decode(errors='replace')}")
        return wire.decode_picture(body)

    def _rows(self, ids: NDArray[np.int32]) -> StepBatch:
        """Copy rows out of the shared block."""
        terminated = self._block["terminated"][ids].astype(np.bool_)
        return StepBatch(
            env_id=ids,
            obs={name: column[ids] for name, column in self._block.obs.items()},
            reward=self._block["reward"][ids].astype(np.float32),
            is_first=self._is_first[ids],
            is_last=terminated | self._block["truncated"][ids].astype(np.bool_),
            is_terminal=terminated,
            log={name: self._block[f"log/{name}"][ids] for name in self.spec.log},
        )

    def _wait(self) -> None:
        """Wait for answers, and kill workers that owe one for too long."""
        answers = self._selector.select(self._patience())
        for key, _ in answers:
            self._listen(key.data)
        if not answers:
            for worker in self._overdue(time.monotonic() - self._hang_seconds):
                # its socket closes, and the next wait replaces it; the first signal leaves a trace
                worker.process.send_signal(signal.SIGKILL if worker.hung else signal.SIGABRT)
                worker.hung = True

    def _patience(self) -> float:
        """Seconds until the oldest request is too old."""
        oldest = min((worker.asked for worker in self._overdue(time.monotonic())), default=0.0)
        return max(0.01, oldest + self._hang_seconds - time.monotonic())

    def _overdue(self, since: float) -> list[Worker]:
        """Workers that were asked before a moment and have not answered."""
        with self._sending:
            owing = self._requests.pending.difference(self._ready)
            return [self._workers[i] for i in owing if self._workers[i].asked <= since]

    def _listen(self, env_id: int) -> None:
        """Take in one answer of a worker."""
        worker = self._workers[env_id]
        try:
            kind, body = wire.split(worker.connection.recv_bytes())
        except (EOFError, OSError):
            self._replace(env_id)
            return
        if kind != wire.ROW:
            raise EnvError(f"{self._name(env_id)} failed: {body}")
        self._is_first[env_id] = worker.fresh
        worker.fresh = bool(self._block["terminated"][env_id] or self._block["truncated"][env_id])
        self._ready.append(env_id)

    def _replace(self, env_id: int) -> None:
        """Start another worker in place of one that died, and ask it for the row that is owed."""
        old = self._workers[env_id]
        self._selector.unregister(old.connection)
        worker = self._relaunch(env_id, self._ending(old))
        with self._sending:
            if self._requests.closed:  # too late for close to have seen this worker
                _stop(worker, 0.0)
                _free(worker)
                raise RuntimeError("the environments are closed")
            _free(old)
            self._workers[env_id] = worker
            if env_id in self._requests.pending.difference(self._ready):
                self._ask(env_id)

    def _relaunch(self, env_id: int, reason: str) -> Worker:
        """Start workers until one is ready; EnvError when too many have died."""
        while True:
            if self._requests.closed:
                raise RuntimeError("the environments are closed")
            self._restarts[env_id] += 1
            if self._restarts[env_id] > MAX_RESTARTS:
                raise EnvError(
                    f"{self._name(env_id)} died {self._restarts[env_id]} times, "
                    f"the last time: {reason}"
                )
            self._notices.append(
                f"{self._name(env_id)} is replaced ({self._restarts[env_id]} of at most "
                f"{MAX_RESTARTS} times) and its episode cut, because it died: {reason}"
            )
            worker = self._launch(env_id)
            try:
                self._greet(env_id, worker)
                self._hand_over(env_id, worker)
                return worker
            except WorkerDied:
                reason = self._ending(worker)
                _free(worker)
            except BaseException:
                _stop(worker, 0.0)
                _free(worker)
                raise

    def _launch(self, env_id: int) -> Worker:
        """Start a process and give it its job."""
        (ours, theirs), trace = Pipe(), anonymous_file()
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        path = [*sys.path, *self._source.search]
        with theirs:
            process = children.start(
                [
                    sys.executable,
                    "-P",  # a json.py of the working directory would run
                    "-c",
                    _COMMAND,
                    json.dumps(path),
                    f"{theirs.fileno()}",
                    f"{trace}",
                ],
                stdout=self._words.fd,
                stderr=self._words.fd,
                pass_fds=[theirs.fileno(), trace],
                env={**os.environ, **one_thread, children.WORKER: "1"},
            )
        source = self._source
        job = {
            "suite": source.suite,
            "task": source.task,
            "target": source.target,
            "kwargs": self._kwargs,
            "drawn": self._drawn,
            "kinds": dict(self._view.kinds),
            "image": self._view.image,
            "env_id": env_id,
            "num_envs": self.num_envs,
            "seed": env_seed(self._seed, env_id, self._restarts[env_id]),
        }
        with suppress(OSError):  # that it is dead is noticed when it does not greet
            ours.send_bytes(json.dumps(job).encode())
        return Worker(process, ours, trace)

    def _greet(self, env_id: int, worker: Worker) -> EnvSpec:
        """Wait until a worker has built its environment, and check that it is like the others."""
        if not worker.connection.poll(START_SECONDS):
            worker.process.kill()
            raise EnvError(f"{self._name(env_id)} was not ready after {START_SECONDS:.0f} seconds")
        try:
            kind, body = wire.split(worker.connection.recv_bytes())
        except (EOFError, OSError):
            raise WorkerDied(
                f"{self._name(env_id)} died at its start: {self._ending(worker)}"
            ) from None
        if kind == wire.REFUSED:
            raise ValueError(f"{self._source.suite} {self._source.task}: {body}")
        if kind != wire.READY:
            raise EnvError(f"{self._name(env_id)} could not be built:\n{body}")
        spec = wire.decode_spec(self._source.suite, self._source.task, json.loads(body))
        spec = replace(spec, remarks=tuple(filter(None, [self._source.remark])))
        if spec != getattr(self, "spec", spec):
            raise EnvError(f"{self._name(env_id)} has other spaces than the first one had")
        return spec

    def _hand_over(self, env_id: int, worker: Worker) -> None:
        """Give a worker the shared block, and listen to it from now on."""
        try:
            send_handle(worker.connection, self._block.fd, worker.process.pid)
        except OSError:
            raise WorkerDied(
                f"{self._name(env_id)} died at its start: {self._ending(worker)}"
            ) from None
        self._selector.register(worker.connection, selectors.EVENT_READ, env_id)

    def _name(self, env_id: int) -> str:
        return f"environment {env_id} of {self._source.suite} {self._source.task}"

    def _ending(self, worker: Worker) -> str:
        """Say how a worker ended that has closed its socket, and what it was doing if known."""
        how = _exit_of(worker)
        if worker.hung:
            how = f"not answering for {self._hang_seconds:.0f} seconds"
        trace = os.pread(worker.trace, LONGEST_TRACE, 0).decode(errors="replace")
        trace = trace.partition("\n\nExtension modules:")[0].strip()
        return f"{how}:\n{trace}" if trace else how

    def workers(self) -> list[int]:
        return [worker.process.pid for worker in self._workers]

    def notices(self) -> list[str]:
        return [self._notices.popleft() for _ in range(len(self._notices))]

    def close(self) -> None:
        """Ask workers to finish, kill those that do not, and wait for a receiver to leave."""
        if self._requests.close():
            with self._sending:
                for worker in self._workers:
                    with suppress(OSError):
                        worker.connection.send_bytes(wire.CLOSE)
            self._finish(CLOSE_SECONDS)

    def _finish(self, seconds: float) -> None:
        """End all workers within a time; a receiver then sees their sockets close and leaves."""
        deadline = time.monotonic() + seconds
        for worker in self._workers:
            _stop(worker, deadline - time.monotonic())
        if not hasattr(self, "_requests"):
            self._free()
            return
        with self._requests.draining(CLOSE_SECONDS) as alone:
            if alone:
                self._free()

    def _free(self) -> None:
        """Close every file."""
        self._selector.close()
        self._words.close()
        for worker in self._workers:
            _free(worker)
        if hasattr(self, "_block"):
            self._block.close()


def _stop(worker: Worker, seconds: float) -> None:
    """Wait for a process to end, and kill it if it does not."""
    try:
        worker.process.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        worker.process.kill()
        worker.process.wait()


def _free(worker: Worker) -> None:
    """Close what we hold of a worker that has ended."""
    worker.connection.close()
    os.close(worker.trace)


def _exit_of(worker: Worker) -> str:
    """Say how a worker ended that has closed its socket: signal 9 (Killed), or exit code 3."""
    _stop(worker, EXIT_SECONDS)
    code = worker.process.returncode
    if code < 0:
        return f"signal {-code} ({signal.strsignal(-code)})"
    return f"exit code {code}"
