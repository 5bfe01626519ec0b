"""What can be done to a trainer from within its process, by name: faults, and wrong programs.

A fault is what the world does to the trainer. A wrong program is a control: the checks that pass
for the real one have to fail for it.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from dreamer_async import envs
from dreamer_async.envs.suites import toy, toy_tasks
from dreamer_async.fast import choose
from dreamer_async.fast.native.load import Native
from dreamer_async.machine import process
from dreamer_async.replay import files as replay_files
from dreamer_async.replay import ring
from dreamer_async.replay.replay import Replay
from dreamer_async.run import (
    aio,
    evaluate,
    failures,
    gauges,
    learner,
    limiter,
    monitor,
    parts,
    pipeline,
    saver,
    telemetry,
)
from dreamer_async.run.ranks.follower import Follower
from dreamer_async.run.ranks.lead import Lead
from dreamer_async.run.ranks.team import Team
from dreamer_async.store import checkpoint, events, exit_codes
from dreamer_async.store.run_dir import RunDir

CANNOT = 99
"""Exit code of a trainer whose fault this machine does not allow."""

HANGS = "the environment hangs"
"""What a trainer whose environment hangs says before."""
BUILDS = "environments are being built"
"""What a trainer with slow environments says before."""

# -- dying and saving ----------------------------------------------------------------------------


def crash_at(count: int) -> None:
    """SIGKILL before the given call, counted from 1, that touches the disk in one save.

    It is a save of new updates that also removes an old checkpoint.
    """
    calls, saving, updates = [0], [False], list[int]()

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

    def watched(directory: Path, step: int, tensors: Any, manifest: Any, keep: int) -> Path:
        updates.append(manifest["updates"])
        saving[0] = not calls[0] and len(updates) > keep and updates[-1] > updates[0]
        try:
            return save(directory, step, tensors, manifest, keep)
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


def remove_before_saving(_: Any) -> None:
    """A wrong save: the checkpoint before goes first, to have room for the new one."""
    save = checkpoint.save

    def wrong(directory: Path, *args: Any) -> Path:
        if paths := list(checkpoint.candidates(directory)):
            checkpoint._remove(paths[0])
        return save(directory, *args)

    checkpoint.save = wrong


def keep_litter(_: Any) -> None:
    """A wrong start: what a crash left stays."""
    checkpoint.sweep = lambda directory: 0


def acknowledge_first(_: Any) -> None:
    """A wrong save: said to be on the disk before it is."""
    announce = saver.Saver._announce

    async def save(self: saver.Saver, learner_thread: Any, writer_thread: Any) -> None:
        path = self._run_dir.checkpoints / "step-000000000000"
        if not path.exists():
            await learner_thread.run(self._state.learned)
            path.mkdir(parents=True, exist_ok=True)
            (path / checkpoint.STATE).write_bytes(b"")
        announce(self, path, self._state.counters(), 0.0)

    saver.Saver.save = save


def publish_early(_: Any) -> None:
    """A wrong ring: the cursor moves before the step is there."""
    put, publish = Replay._put, Replay._publish

    def early(self: Replay, rows: Any, index: Any, value: Any) -> None:
        if not isinstance(index, slice):
            with self._lock:
                env = index // self.spec.capacity
                publish(self, env, self._cursors.reserved[env] - 1)
            time.sleep(0.02)  # a kill hits this often enough
        put(self, rows, index, value)

    Replay._put = early
    Replay._publish = lambda self, env, step: None


def file_limit(nbytes: int) -> None:
    """No file may grow beyond this once there is a checkpoint: the disk is full."""
    announce = saver.Saver._announce

    def then_limit(self: saver.Saver, path: Path, counters: Any, seconds: float) -> None:
        announce(self, path, counters, seconds)
        resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))

    saver.Saver._announce = then_limit


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


def _hang() -> None:
    """Do not come back, from when somebody asks for a stop."""
    print(HANGS, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        ctypes.CDLL(None).pause()  # comes back after a signal


def environment_hangs(after: int) -> None:
    """A recv that does not come back, when somebody asks for a stop."""
    _break_environment(after, _hang)


def dies_filling_the_replay(after: int) -> None:
    """kill -9 when so many pieces of what was recorded are in the ring, and the next is wanted."""
    fill = Replay.fill

    def some(pieces: Iterable[Any]) -> Iterator[Any]:
        yield from itertools.islice(pieces, after)
        os.kill(os.getpid(), signal.SIGKILL)

    Replay.fill = lambda self, pieces: fill(self, some(pieces))


def update_hangs(after: int) -> None:
    """An update that does not come back, when somebody asks for a stop."""
    from dreamer_async.agent.trainer import Trainer

    update, calls = Trainer.update, [0]

    def hanging(self: Trainer, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] == after:
            _hang()
        return update(self, *args)

    Trainer.update = hanging  # pyright: ignore[reportAttributeAccessIssue]


def silent_update_hangs(after: int) -> None:
    """As `update_hangs`, without a word, which nobody could take."""
    globals()["print"] = lambda *args, **options: None
    update_hangs(after)


def evaluation_hangs(_: Any) -> None:
    """Episodes of an evaluation that never end, in C."""

    def hang(*args: Any, **options: Any) -> Any:
        while True:
            ctypes.CDLL(None).pause()

    evaluate.play = hang


def waits_for_environments(_: Any) -> None:
    """A wrong stop: it waits for whatever a thread does."""
    aio.OwnedThread.run_or_leave = aio.OwnedThread.run
    aio.OwnedThread.leave = lambda self: None


def slow_updates(seconds: float) -> None:
    """Updates that take at least so long."""
    step = learner.Learner.step

    def slow(self: learner.Learner) -> learner.Report:
        time.sleep(seconds)
        return step(self)

    learner.Learner.step = slow


def slow_environments(seconds: float) -> None:
    """Environments that take long to build; somebody asks for a stop meanwhile."""

    def build(*_: Any) -> Any:
        print(BUILDS, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)
        raise AssertionError("nobody wants them any more")

    parts.make_env = build


def compiling_hangs(_: Any) -> None:
    """An update that takes for ever to compile; somebody asks for a stop meanwhile."""
    learner.Learner.compiles = property(lambda self: True, lambda self, value: None)  # pyright: ignore
    learner.Learner.warm_up = lambda self: _hang()  # pyright: ignore


def builds_in_the_loop(_: Any) -> None:
    """A wrong start: environments are built where signals would be heard."""

    async def run(self: aio.OwnedThread, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    aio.OwnedThread.run_or_leave = run


def fails_without_saving(_: Any) -> None:
    """A wrong end: what failed is all that counts."""

    async def nothing(parts: Any) -> None:
        return None

    pipeline._save_after_failure = nothing


# -- who reads, who listens ----------------------------------------------------------------------


def full_pipe(_: Any) -> None:
    """What is printed goes into a pipe that is full, and that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while os.write(writer, bytes(4096)):
            pass
    os.set_blocking(writer, True)
    for standard in (1, 2):
        os.dup2(writer, standard)
    os.set_inheritable(reader, True)  # or the pipe would be a broken one


def prints_itself(_: Any) -> None:
    """A wrong log: it prints, and waits for whoever reads."""

    class Direct:
        def __init__(self, stream: Any) -> None:
            self.write, self.flush = stream.write, stream.flush

        def close(self) -> None:
            pass

    pipeline.Output = Direct


def listeners_count(_: Any) -> None:
    """A wrong telemetry: what fails to show an event fails to train."""

    def emit(self: telemetry.Telemetry, event: events.Event) -> None:
        self._writer.emit(event)
        for listener in self._listeners:
            listener.show(event)

    telemetry.Telemetry.emit = emit


def known_by_its_path(_: Any) -> None:
    """A wrong trainer: where its directory was is where it is."""

    @contextmanager
    def held(self: RunDir) -> Iterator[RunDir]:
        yield self

    RunDir.held = held


def environment_aborts(after: int) -> None:
    """What a failed assertion in C++ does."""
    _break_environment(after, os.abort)


def environment_lies(after: int) -> None:
    """A reward that is not finite."""
    step = toy_tasks.Seek.step

    calls = [0]

    def wrong(self: toy_tasks.Seek, ids: Any, action: Any) -> Any:
        outcome = step(self, ids, action)
        calls[0] += 1
        if calls[0] >= after:
            outcome.reward[0] = float("nan")
        return outcome

    toy_tasks.Seek.step = wrong


def memory_runs_out(after: int) -> None:
    """An allocation that no machine can serve, in an update."""
    from dreamer_async.agent.trainer import Trainer

    update, calls = Trainer.update, [0]

    def greedy(self: Trainer, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] > after:
            torch.empty(1 << 60, dtype=torch.uint8)
        return update(self, *args)

    Trainer.update = greedy  # pyright: ignore[reportAttributeAccessIssue]


def replay_does_not_fit(_: Any) -> None:
    """The disk has no room for the replay."""

    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "no room for the replay")

    parts.open_replay = refused


def compiles(how: str) -> None:
    """Updates are compiled as on a GPU, by a compiler that leaves all as it is, or "fails"."""
    from dreamer_async.fast.cuda.backend import CUDA
    from dreamer_async.fast.cuda.updates import Updates

    take_place = parts.take_place
    parts.take_place = lambda train: take_place(train)._replace(backend=CUDA, problem="")

    def fails(*_: Any) -> Any:
        raise MemoryError("no memory to compile") if how == "ends" else RuntimeError("no compiler")

    def compile_(self: Updates, backend: str = "") -> None:
        if how != "works":
            self.trainer.regions = self.trainer.regions._replace(total=fails)

    Updates.compile = compile_


def weights_drift(after: int) -> None:
    """One weight changes by itself before an update."""
    from dreamer_async.agent.trainer import Trainer

    update, calls = Trainer.update, [0]

    def drifting(self: Trainer, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] == after:
            next(self.agent.parameters()).data.view(-1)[0] += 1e-3
        return update(self, *args)

    Trainer.update = drifting  # pyright: ignore[reportAttributeAccessIssue]


# -- suspending, signals -------------------------------------------------------------------------


def suspended(after: int) -> None:
    """SIGSTOP in the middle of training; the server sends SIGCONT later."""
    _break_environment(after, lambda: os.kill(os.getpid(), signal.SIGSTOP))


def suspended_while_stopping(after: int) -> None:
    """SIGTERM, and SIGSTOP once the watchdog counts, before the run can end."""
    arm, armed = aio.Watchdog.arm, threading.Event()

    def tell(self: aio.Watchdog) -> None:
        arm(self)
        armed.set()

    def suspend() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        armed.wait()
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.2)  # a watchdog that counts wrong bites first

    aio.Watchdog.arm = tell
    _break_environment(after, suspend)


def impatient_watchdog(_: Any) -> None:
    """A wrong watchdog: it counts the time in which the process was suspended."""

    def wait(self: aio.Watchdog) -> None:
        if not self._disarmed.wait(self._seconds):
            os._exit(exit_codes.STUCK)

    aio.Watchdog._wait = wait


def no_watchdog(_: Any) -> None:
    """A wrong stop: nothing bounds it."""
    aio.Watchdog.arm = lambda self: None


def deaf(_: Any) -> None:
    """A wrong trainer: signals do what they do to any process."""
    aio.Stop.on_signals = lambda self: None


def terminal(name: str) -> None:
    """A terminal of its own, as the shell gives it to the first process of a window."""
    os.setsid()
    descriptor = os.open(name, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


def allowed(task: str) -> None:
    """A task that is code, named on the command line."""
    envs.allow_code(task)


def gauges_often(interval: float) -> None:
    """Rounds of gauges and answers closer together than a second."""
    report_every = monitor.Monitor.report_every
    monitor.Monitor.report_every = lambda self, seconds: report_every(self, interval)


# -- clocks --------------------------------------------------------------------------------------


def _jumping() -> Callable[[], float]:
    """A wall clock that is a day ahead or behind in turns, thirty times a second."""
    real, monotonic = time.time, time.monotonic
    return lambda: real() + (86_400.0 if int(monotonic() * 30) % 2 else -86_400.0)


def clock_jumps(_: Any) -> None:
    """The wall clock jumps; gauges come often enough to see it."""
    time.time = _jumping()
    defaults = events.EventWriter.__init__.__kwdefaults__
    assert defaults is not None
    defaults["clock"] = time.time
    gauges_often(0.02)


def intervals_by_wall_clock(_: Any) -> None:
    """A wrong trainer: rates and the time between checkpoints come from the wall clock."""
    jumping = _jumping()
    rates = gauges.Rates
    gauges.Rates = lambda: rates(clock=jumping)
    saver.time = SimpleNamespace(monotonic=jumping)


# -- disks ---------------------------------------------------------------------------------------


def _mount(source: str, target: Path, kind: str, flags: int, data: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [source.encode(), os.fsencode(target), kind.encode(), flags, data.encode() or None]
    if libc.mount(*words) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


def _own_mounts() -> None:
    """Give this process mounts of its own, or end it with CANNOT where that is not allowed."""
    libc, new_mounts, new_user = ctypes.CDLL(None, use_errno=True), 0x20000, 0x10000000
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(new_mounts if user == 0 else new_mounts | new_user) != 0:
        os._exit(CANNOT)
    if user != 0:  # stay who we are in the new name space
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    private_recursively = 1 << 18 | 1 << 14
    _mount("none", Path("/"), "", private_recursively)


def read_only(directory: str) -> None:
    """A directory on a disk that is mounted read-only."""
    bind, remount, readonly = 1 << 12, 1 << 5, 1
    _own_mounts()
    _mount(directory, Path(directory), "", bind)
    _mount("none", Path(directory), "", bind | remount | readonly)


def small_disk(directory: str) -> None:
    """A directory on a disk of 40 kB, which is too small for two checkpoints."""
    _own_mounts()
    _mount("tmpfs", Path(directory), "tmpfs", 0, "size=40k")


def small_disk_for_a_while(directory: str) -> None:
    """As `small_disk`, but somebody makes room after the first save that failed."""
    small_disk(directory)
    failed = saver.Saver._failed

    def then_grow(self: saver.Saver, error: OSError) -> None:
        failed(self, error)
        _mount("tmpfs", Path(directory), "tmpfs", 1 << 5, "size=40m")

    saver.Saver._failed = then_grow


def disk_that_fills(given: Sequence[Any]) -> None:
    """A directory on a disk that has room for what is in it and this many bytes more."""
    directory, more = given
    files = {path: path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()}
    _own_mounts()
    size = sum(-(-len(data) // 4096) * 4096 for data in files.values()) + more
    _mount("tmpfs", Path(directory), "tmpfs", 0, f"size={size}")
    for path, data in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


def file_limit_at_the_end(nbytes: int) -> None:
    """No file may grow beyond this from the last save on."""
    save_last = saver.Saver.save_last

    async def limited(self: saver.Saver, *args: Any, **options: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))
        await save_last(self, *args, **options)

    saver.Saver.save_last = limited


def last_save_as_any(_: Any) -> None:
    """A wrong end: a last save that fails is a warning, as if another one came."""

    async def save(
        self: saver.Saver, learner_thread: Any, writer_thread: Any, *, exact: bool
    ) -> None:
        await self.save(learner_thread, writer_thread)

    saver.Saver.save_last = save


def makes_no_room(_: Any) -> None:
    """A wrong end: what a last checkpoint is worth more than stays."""
    saver.Saver._make_room = lambda self, error: 0


def gives_up_at_once(_: Any) -> None:
    """A wrong trainer: the first save that fails ends it."""
    saver.SAVE_FAILURES = 1


def events_refused(first: int, last: int = 60) -> None:
    """The disk takes no event from the given one on, for a while."""
    emit, write, calls = events.EventWriter.emit, os.write, [0]

    def refused(descriptor: int, data: bytes) -> int:
        calls[0] += 1
        if first <= calls[0] < last:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    def emits(self: events.EventWriter, event: events.Event) -> None:
        with mock.patch.object(events.os, "write", refused):
            emit(self, event)

    events.EventWriter.emit = emits


def events_must_be_written(_: Any) -> None:
    """A wrong stream: an event that the disk refuses ends the run."""
    emit = events.EventWriter.emit

    def strict(self: events.EventWriter, event: events.Event) -> None:
        before = self.dropped
        emit(self, event)
        if self.dropped > before:
            raise OSError(errno.ENOSPC, "No space left on device")

    events.EventWriter.emit = strict


def sparse_ring(_: Any) -> None:
    """A wrong ring: as long as it has to be, on a disk that nobody asked for the room."""
    ring.check_space = replay_files.check_space = lambda path, needed: needed
    ring.os.posix_fallocate = lambda descriptor, start, size: os.ftruncate(descriptor, start + size)


def swallow_fsync_errors(_: Any) -> None:
    """A wrong save: what fsync says is not heard."""
    fsync = os.fsync

    def deaf_fsync(descriptor: int) -> None:
        with suppress(OSError):
            fsync(descriptor)

    checkpoint.os.fsync = deaf_fsync


def thread_setup_fails(name: str) -> None:
    """The named thread of the pipeline cannot be set up, as where its device is refused."""
    original = parts._thread

    def refused() -> None:
        raise RuntimeError("the device refused")

    def thread(stack: Any, which: str, threads: int, *also: Any) -> aio.OwnedThread:
        return original(stack, which, threads, *([refused] if which == name else also))

    parts._thread = thread


def no_native_functions(problem: str) -> None:
    """A machine that has neither a compiler nor a prebuilt library."""
    choose.load = lambda: Native(None, problem)


def ranks_agree_on_nothing(_: Any) -> None:
    """Wrong ranks: each computes with what it has."""
    Lead.common = Follower.common = Team.common


# -- environments, memory ------------------------------------------------------------------------


def trust_environments(_: Any) -> None:
    """A wrong adapter: rows are stored as they come."""
    toy.check_rows = lambda spec, rows: rows


def poisoned_batches(count: int) -> None:
    """As many batches in a row, from the tenth on, whose rewards are not finite."""
    from dreamer_async.agent.trainer import Trainer

    update, calls = Trainer.update, [0]

    def poisoned(self: Trainer, batch: Any, noise: Any) -> Any:
        calls[0] += 1
        if 10 <= calls[0] < 10 + count:
            batch.reward.fill_(float("nan"))
        return update(self, batch, noise)

    Trainer.update = poisoned


def trust_gradients(_: Any) -> None:
    """A wrong optimiser: it takes what comes, finite or not."""
    from dreamer_async.agent import optim

    def take(finite: torch.Tensor, old: list[torch.Tensor], new: list[torch.Tensor]) -> None:
        for target, value in zip(old, new, strict=True):
            target.copy_(value)

    optim.keep_if = take


def little_memory(nbytes: int) -> None:
    """The machine has only this much memory left."""
    pipeline.available_memory = lambda: nbytes


def no_word_for_memory(_: Any) -> None:
    """A wrong trainer: running out of memory is an error like any other."""
    failures.is_out_of_memory = lambda error: False


def silent_crash(_: Any) -> None:
    """A wrong trainer: it dies in C without a word."""
    process.show_crashes = lambda: None


def memory_limit(megabytes: int) -> None:
    """The kernel grants this much more from the tenth update on, which then wants more."""
    from dreamer_async.agent.trainer import Trainer

    update, calls, kept = Trainer.update, [0], []

    def greedy(self: Trainer, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 10:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            limit = used + (megabytes << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if calls[0] >= 10:
            kept.append(torch.zeros(megabytes << 19, dtype=torch.uint8))
        return update(self, *args)

    Trainer.update = greedy  # pyright: ignore[reportAttributeAccessIssue]


def debt_explodes(_: Any) -> None:
    """A wrong resume: what the steps in the ring had paid for is to be replayed at once."""
    start = limiter.TrainRatio.start

    def generous(self: limiter.TrainRatio, debt: float | None = None) -> None:
        start(self, None if debt is None else debt + 30 * self.cost)

    limiter.TrainRatio.start = generous


FAULTS: Mapping[str, Callable[[Any], object]] = {
    name: function
    for name, function in globals().items()
    if callable(function) and getattr(function, "__module__", "") == __name__ and name[0] != "_"
}
"""Every function of this file whose name does not begin with an underscore."""
