"""A process that has everything imported and forks trainers, which die as they are told.

Reads one JSON request per line, {"run", "resume", "inject": {name: argument}, "kill_after":
seconds, "saved" or null}, and answers with {"code": exit code, or minus the signal, "seconds"}.
What a trainer prints is appended to trainer.log in its run directory. Forking saves the seconds
that importing torch takes, so that many kills fit into a test.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import uvloop  # noqa: F401  imported before the fork

from dreamer_async import checkpoint, pipeline, restore
from dreamer_async.replay import Replay
from dreamer_async.run_dir import RunDir
from envs import toy

Injection = Callable[[Any], None]


# -- faults ----------------------------------------------------------------------------------


def crash_at(count: int) -> None:
    """SIGKILL before the given call, counted from 1, that touches the disk in one save.

    It is the first save that also removes an old checkpoint.
    """
    calls, saving, saved = [0], [False], [0]

    def counted(module: Any, name: str) -> None:
        original = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if saving[0]:
                calls[0] += 1
                if calls[0] == count:
                    os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(module, name, call)

    for module, name in (
        (checkpoint.shutil, "rmtree"),
        (checkpoint.os, "rename"),
        (checkpoint.os, "fsync"),
        (checkpoint.os, "mkdir"),
        (checkpoint, "save_file"),
    ):
        counted(module, name)
    save = checkpoint.save

    def watched(*args: Any, **kwargs: Any) -> Path:
        saved[0] += 1
        saving[0] = saved[0] == args[-1] + 1
        try:
            return save(*args, **kwargs)
        finally:
            saving[0] = False

    checkpoint.save = watched


def overwrite_in_place(_: Any) -> None:
    """A wrong save: one directory, overwritten, with the manifest first."""

    def save(
        directory: Path, step: int, tensors: dict[str, torch.Tensor], manifest: Any, keep: int
    ) -> Path:
        final = directory / "step-000000000001"
        final.mkdir(parents=True, exist_ok=True)
        state = final / "new"
        checkpoint.save_file(tensors, state)
        data = state.read_bytes()
        record = {**manifest, "format": checkpoint.FORMAT}
        record["sha256"] = checkpoint.hashlib.sha256(data).hexdigest()
        record[checkpoint.OWN_HASH] = checkpoint._manifest_hash(record)
        (final / checkpoint.MANIFEST).write_text(json.dumps(record))
        time.sleep(0.1)  # a kill hits this often enough
        checkpoint.os.rename(state, final / checkpoint.STATE)
        return final

    checkpoint.save = save


def acknowledge_first(_: Any) -> None:
    """A wrong save: said to be on the disk before it is."""
    announce = restore.Saver._announce

    async def save(self: restore.Saver, learner_thread: Any, writer_thread: Any) -> None:
        path = self._run_dir.checkpoints / "step-000000000000"
        if not path.exists():
            await learner_thread.run(self._learner.state)
            path.mkdir(parents=True, exist_ok=True)
            (path / checkpoint.STATE).write_bytes(b"")
        announce(self, path, 0.0)

    restore.Saver.save = save


def publish_early(_: Any) -> None:
    """A wrong ring: the cursor moves before the step is there."""
    put, publish = Replay._put, Replay._publish

    def early(self: Replay, rows: Any, index: Any, value: Any) -> None:
        if not isinstance(index, slice):
            with self._lock:
                env = index // self.spec.capacity
                publish(self, env, self._reserved[env] - 1)
            time.sleep(0.002)
        put(self, rows, index, value)

    Replay._put = early
    Replay._publish = lambda self, env, step: None


def file_limit(nbytes: int) -> None:
    """No file may grow beyond this once there is a checkpoint: the disk is full."""
    import resource

    announce = restore.Saver._announce

    def then_limit(self: restore.Saver, path: Path, seconds: float) -> None:
        announce(self, path, seconds)
        resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))

    restore.Saver._announce = then_limit


def fsync_error(after: int) -> None:
    """Every fsync of a checkpoint fails from the given one on."""
    original, calls = os.fsync, [0]

    def fsync(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] > after:
            raise OSError(5, "Input/output error")
        original(descriptor)

    checkpoint.os.fsync = fsync


def _break_environment(after: int, how: Callable[[], object]) -> None:
    recv, calls = toy.ToyEnv.recv, [0]

    def broken(self: toy.ToyEnv) -> Any:
        calls[0] += 1
        if calls[0] == after:
            how()
        return recv(self)

    toy.ToyEnv.recv = broken


def environment_hangs(after: int) -> None:
    """A recv that does not come back, when somebody asks for a stop."""

    def hang() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            ctypes.CDLL(None).pause()  # comes back after a signal

    _break_environment(after, hang)


def environment_aborts(after: int) -> None:
    """What a failed assertion in C++ does."""
    _break_environment(after, os.abort)


def environment_lies(after: int) -> None:
    """A reward that is not finite."""
    step = toy.Seek.step

    calls = [0]

    def wrong(self: toy.Seek, ids: Any, action: Any) -> Any:
        outcome = step(self, ids, action)
        calls[0] += 1
        if calls[0] >= after:
            outcome.reward[0] = float("nan")
        return outcome

    toy.Seek.step = wrong


def memory_runs_out(after: int) -> None:
    """An allocation that no machine can serve, in an update."""
    from dreamer_async.agent.update import Trainer

    update, calls = Trainer.update, [0]

    def greedy(self: Trainer, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] > after:
            torch.empty(1 << 60, dtype=torch.uint8)
        return update(self, *args)

    Trainer.update = greedy  # pyright: ignore[reportAttributeAccessIssue]


FAULTS: dict[str, Injection] = {
    f.__name__: f
    for f in (
        crash_at,
        overwrite_in_place,
        acknowledge_first,
        publish_early,
        file_limit,
        fsync_error,
        environment_hangs,
        environment_aborts,
        environment_lies,
        memory_runs_out,
    )
}


# -- forking ---------------------------------------------------------------------------------


def child(request: dict[str, Any]) -> int:
    """Be the trainer; never returns to the server's loop."""
    run = RunDir(Path(request["run"]))
    log = os.open(run.path / "trainer.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
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
            time.sleep(0.01)
    elif when is not None:
        time.sleep(when)
    if when is not None:
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


if __name__ == "__main__":
    serve()
