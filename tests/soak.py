"""A real run under disturbance for as long as one likes: does anything grow, is anything lost?

    python tests/soak.py --minutes 25 toy
    python tests/soak.py --minutes 25 gym --task Taxi-v4       worker processes are killed too
    python tests/soak.py --minutes 2 --leak toy                the control: it must complain

The trainer is the real command. It is suspended and continued, paused and resumed, asked for
checkpoints; dashboards attach and are suspended and killed. Two calm stretches, after the warm-up
and at the end, say whether it is as fast as before. A run gets slower or faster as it learns and
as the machine gets busy, so a twin, the same command left in peace, is measured in the same
stretches: only what the disturbed run lost beyond its twin was lost to the disturbance.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dreamer_async.store import checkpoint, events
from dreamer_async.store.run_dir import RunDir

SAMPLE_SECONDS = 2.0
WARM_SHARE = 0.25
"""Share of the time after which caches, pools and the replay's queue are as large as they get."""
SLACK_MB = 24.0
"""Private memory may grow by this much, or by SLACK_SHARE of itself."""
SLACK_SHARE = 0.03
SPEED_SLACK = 0.1
"""Share of its updates per processor second that a run may lose beyond its twin."""
MOST_WORKER_KILLS = 3
"""A worker of an environment is replaced three times, and then the run has to end."""


@dataclass(frozen=True)
class Sample:
    """What one trainer occupies at one moment."""

    seconds: float
    private_mb: float
    """Memory that is backed by no file: heap, stacks, tensors."""
    files: int
    """Open descriptors."""
    threads: int
    shared: int
    """Files of this user in /dev/shm, whoever made them."""
    user: float = 0.0
    """Processor seconds spent in the program so far."""
    system: float = 0.0
    """Processor seconds spent in the kernel for it so far."""
    faults: int = 0
    """Pages mapped so far, without a disk."""
    disk_faults: int = 0
    """Pages read from a disk so far."""


def measure(pid: int, since: float) -> Sample:
    """Look at a process through /proc."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return Sample(
        seconds=time.monotonic() - since,
        private_mb=int(fields["RssAnon"].split()[0]) / 1024,
        files=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(fields["Threads"]),
        shared=shared_files(),
        user=int(stat[11]) / tick,
        system=int(stat[12]) / tick,
        faults=int(stat[7]),
        disk_faults=int(stat[9]),
    )


def shared_files() -> int:
    return sum(1 for entry in os.scandir("/dev/shm") if entry.stat().st_uid == os.getuid())


def growth(samples: Sequence[Sample]) -> tuple[Sample, Sample]:
    """Medians over the first and the last quarter of what came after the warm-up."""
    assert len(samples) >= 16, f"{len(samples)} samples say nothing"
    kept = samples[int(WARM_SHARE * len(samples)) :]
    quarter = len(kept) // 4
    return _median(kept[:quarter]), _median(kept[-quarter:])


def _median(samples: Sequence[Sample]) -> Sample:
    rows = [asdict(sample) for sample in samples]
    middle = {name: statistics.median_high(row[name] for row in rows) for name in rows[0]}
    return Sample(**middle)


def leaks(samples: Sequence[Sample]) -> list[str]:
    """Name everything that grew beyond its slack."""
    before, after = growth(samples)
    slack = max(SLACK_MB, SLACK_SHARE * before.private_mb)
    limits = {"private_mb": slack, "files": 0, "threads": 0, "shared": 0}
    return [
        f"{name} grew from {getattr(before, name):g} to {getattr(after, name):g}"
        for name, limit in limits.items()
        if getattr(after, name) - getattr(before, name) > limit
    ]


Stretch = tuple[float, float]
"""Begin and end on the monotonic clock."""


# -- the run -------------------------------------------------------------------------------------


class Run:
    """A trainer in a session of its own, and what is done to it."""

    def __init__(self, root: Path, words: Sequence[str], *, leak: bool, seed: int) -> None:
        program = [sys.executable, str(Path(__file__).resolve()), "leaky"]
        program = program if leak else [sys.executable, "-m", "dreamer_async"]
        self.log = open(root / "log", "wb")  # noqa: SIM115  it lives as long as the run
        self.trainer = subprocess.Popen(
            [*program, "train", *words, "--plain", "--runs-dir", str(root / "runs")],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.began = time.monotonic()
        self.samples: list[Sample] = []
        self.done: Counter[str] = Counter()
        self.chance = random.Random(seed)
        self.stop_seconds = 0.0
        self._gauges: list[tuple[float, int, int]] | None = None
        self._root = root
        self._dashboards: list[tuple[subprocess.Popen[bytes], int, float]] = []

    @property
    def run_dir(self) -> RunDir:
        return RunDir.find(self._root / "runs", "last")

    def wait_until_training(self, seconds: float = 300.0) -> None:
        """Wait for the first metrics."""
        for _ in self._while(seconds, 0.5):
            with suppress(ValueError):
                if any(isinstance(e, events.Metrics) for e in self.events()):
                    return
        raise AssertionError(f"not training after {seconds:.0f} s: {self.output()[-500:]}")

    def events(self) -> list[events.Event]:
        return [record.event for record in events.read_events(self.run_dir.events_path)[0]]

    def output(self) -> str:
        return (self._root / "log").read_text(errors="replace")

    def check(self) -> None:
        """Fail unless the trainer is still there."""
        code = self.trainer.poll()
        assert code is None, f"the trainer ended with {code}: {self.output()[-2000:]}"

    def sample(self) -> None:
        """Note what the trainer occupies now."""
        self.samples.append(measure(self.trainer.pid, self.began))

    def disturb(self) -> None:
        """Do one thing to the run, by chance."""
        kinds = [self._suspend, self._attach, self._ask_checkpoint, self._pause, self._kill_worker]
        self.chance.choice(kinds)()

    def end(self) -> int:
        """Ask for a stop by SIGTERM; returns the exit code."""
        for process, _, _ in self._dashboards:
            signal_all(process, signal.SIGKILL)
        self.tend_dashboards()
        self.trainer.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        code = self.trainer.wait(300)
        self.stop_seconds = time.monotonic() - asked
        self.log.close()
        return code

    def rates(self, stretch: Stretch) -> dict[str, float]:
        """What the run did in a stretch: per second, per update, and per second of the processor.

        On a machine with other work only the numbers per update and per processor second compare.
        """
        since, until = (moment - self.began for moment in stretch)
        samples = [sample for sample in self.samples if since <= sample.seconds <= until]
        first, last = samples[0], samples[-1]
        (updates, steps), (updates_then, steps_then) = self._progress(first), self._progress(last)
        seconds, done = last.seconds - first.seconds, updates_then - updates
        busy = last.user - first.user + last.system - first.system
        return {
            "seconds": round(seconds),
            "steps/s": round((steps_then - steps) / seconds, 2),
            "updates/s": round(done / seconds, 3),
            "updates/cpu s": round(done / busy, 3),
            "steps/update": round((steps_then - steps) / max(done, 1e-9), 2),
            "user s/update": round((last.user - first.user) / max(done, 1e-9), 4),
            "system s/update": round((last.system - first.system) / max(done, 1e-9), 4),
            "faults/update": round((last.faults - first.faults) / max(done, 1e-9), 1),
            "disk faults": last.disk_faults - first.disk_faults,
        }

    def _progress(self, sample: Sample) -> tuple[float, float]:
        """Updates and agent steps at the moment of a sample, interpolated between gauges."""
        if self._gauges is None:
            records = events.read_events(self.run_dir.events_path)[0]
            self._gauges = [
                (record.mono - self.began, record.event.updates, record.event.env_steps)
                for record in records
                if isinstance(record.event, events.Gauges)
            ]
        times, updates, steps = zip(*self._gauges, strict=True)
        moment = sample.seconds
        return float(np.interp(moment, times, updates)), float(np.interp(moment, times, steps))

    def _while(self, seconds: float, pause: float) -> Iterator[None]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            yield
            time.sleep(pause)

    # -- disturbances ----------------------------------------------------------------------------

    def _suspend(self) -> None:
        self.done["suspended"] += 1
        self.trainer.send_signal(signal.SIGSTOP)
        time.sleep(self.chance.uniform(0.1, 3.0))
        self.trainer.send_signal(signal.SIGCONT)

    def _ask_checkpoint(self) -> None:
        self.done["checkpoint asked"] += 1
        self.run_dir.request("checkpoint")

    def _pause(self) -> None:
        self.done["paused"] += 1
        self.run_dir.request("pause")
        time.sleep(self.chance.uniform(1.5, 3.0))
        self.run_dir.request("resume")

    def _kill_worker(self) -> None:
        """Kill -9 a worker process of an environment, where there are any."""
        threads = Path(f"/proc/{self.trainer.pid}/task").glob("*/children")
        children = [int(pid) for thread in threads for pid in thread.read_text().split()]
        workers = [pid for pid in children if is_worker(pid)]
        if workers and self.done["worker killed"] < MOST_WORKER_KILLS:
            self.done["worker killed"] += 1
            os.kill(self.chance.choice(workers), signal.SIGKILL)

    def _attach(self) -> None:
        """Open a dashboard on a terminal of its own; every second one is suspended at first."""
        self.done["dashboard attached"] += 1
        master, slave = pty.openpty()
        line = [sys.executable, "-m", "dreamer_async", "watch", str(self.run_dir.path)]
        environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
        process = subprocess.Popen(
            line, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        until = time.monotonic() + self.chance.uniform(4.0, 12.0)
        self._dashboards.append((process, master, until))
        if self.done["dashboard attached"] % 2:
            threading.Timer(3.0, suspend, [process]).start()

    def tend_dashboards(self) -> None:
        """Read what dashboards draw, and kill -9 those whose time has come."""
        for entry in list(self._dashboards):
            process, master, until = entry
            with suppress(OSError):
                while select.select([master], [], [], 0)[0] and os.read(master, 1 << 16):
                    pass
            if time.monotonic() >= until or process.poll() is not None:
                signal_all(process, signal.SIGKILL)
                process.wait()
                os.close(master)
                self._dashboards.remove(entry)


def watch(runs: Sequence[Run], seconds: float, *, disturb: bool = False) -> Stretch:
    """Sample runs for some time; the first is disturbed every few seconds if asked for."""
    began = next_sample = next_fault = time.monotonic()
    while time.monotonic() < began + seconds:
        for run in runs:
            run.check()
            run.tend_dashboards()
        if time.monotonic() >= next_sample:
            next_sample = time.monotonic() + SAMPLE_SECONDS
            for run in runs:
                run.sample()
        if disturb and time.monotonic() >= next_fault:
            next_fault = time.monotonic() + runs[0].chance.uniform(2.0, 8.0)
            runs[0].disturb()
        time.sleep(0.25)
    return began, time.monotonic()


def suspend(process: subprocess.Popen[bytes]) -> None:
    """SIGSTOP, unless it has ended meanwhile."""
    signal_all(process, signal.SIGSTOP)


def signal_all(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal a dashboard with the process behind which it runs, unless both have ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def is_worker(pid: int) -> bool:
    with suppress(OSError):
        return b"dreamer_async.envs.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


# -- the verdict ---------------------------------------------------------------------------------


def losses(run: Run) -> list[str]:
    """Name everything that the run lost or got wrong, read from what it left on the disk."""
    wrong: list[str] = []
    reader = events.EventReader(run.run_dir.events_path)
    records = []
    while batch := reader.read():
        records += batch
    seen = [record.event for record in records]
    if reader.skipped:
        wrong.append(f"{reader.skipped} lines of the event stream cannot be read")
    steps = [e.env_steps for e in seen if isinstance(e, events.Gauges)]
    if steps != sorted(steps):
        wrong.append("agent steps went back")
    negative = [
        name
        for e in seen
        if isinstance(e, events.Gauges)
        for name, value in e.values.items()
        if name.startswith(("rate/", "stage/")) and (value or 0.0) < 0
    ]
    if negative:
        wrong.append(f"negative rates: {Counter(negative)}")
    wrong += [
        f"error: {e.message}" for e in seen if isinstance(e, events.Warned) and e.level == "error"
    ]
    saved = sum(isinstance(e, events.Checkpointed) for e in seen)
    if run.done["checkpoint asked"] and saved < 2:
        wrong.append(f"{saved} checkpoints after {run.done['checkpoint asked']} requests")
    found, skipped = checkpoint.newest(run.run_dir.checkpoints)
    if found is None or skipped:
        wrong.append(f"checkpoints that do not verify: {skipped}")
    return wrong


def slower(run: Sequence[dict[str, float]], twin: Sequence[dict[str, float]]) -> list[str]:
    """Name a loss of speed between two stretches that the twin did not have."""
    kept, usual = (
        after["updates/cpu s"] / before["updates/cpu s"] for before, after in (run, twin)
    )
    if kept >= (1 - SPEED_SLACK) * usual:
        return []
    return [f"speed fell to {kept:.2f} of what it was, of the twin to {usual:.2f}"]


def soak(
    root: Path,
    words: Sequence[str],
    minutes: float,
    *,
    leak: bool = False,
    twin: bool = False,
    seed: int = 0,
) -> dict:
    """Run, disturb, measure; returns the report, whose `faults` should be empty."""
    runs = []
    try:
        for name, leaking in [("run", leak), *([("twin", False)] if twin else [])]:
            (root / name).mkdir()
            runs.append(Run(root / name, words, leak=leaking, seed=seed))
        for run in runs:
            run.wait_until_training()
        stretches = _stages(runs, 60.0 * minutes)
        codes = [run.end() for run in runs]
    finally:
        for run in runs:
            run.trainer.kill()
            run.trainer.wait()
    rates = [[run.rates(stretch) for stretch in stretches] for run in runs]
    faults = [f"exit code {code}" for code in codes if code]
    faults += leaks(runs[0].samples) + losses(runs[0]) + (slower(*rates) if twin else [])
    return {
        "command": f"train {' '.join(words)}",
        "minutes": round((stretches[1][1] - runs[0].began) / 60, 1),
        "disturbances": dict(runs[0].done),
        "stopped and saved in s": round(runs[0].stop_seconds, 2),
        "faults": faults,
        "run": _account(runs[0], rates[0]),
        **({"twin": _account(runs[1], rates[1])} if twin else {}),
    }


def _stages(runs: Sequence[Run], seconds: float) -> tuple[Stretch, Stretch]:
    """Warm up, watch in peace, disturb, watch in peace; returns the two calm stretches."""
    calm = seconds / 8
    watch(runs, seconds * WARM_SHARE - calm)
    before = watch(runs, calm)
    watch(runs, seconds * (1 - WARM_SHARE) - calm, disturb=True)
    watch(runs, 12.0)  # the last dashboards end
    return before, watch(runs, calm)


def _account(run: Run, rates: Sequence[dict[str, float]]) -> dict:
    """What a run occupied and did in the first and the last stretch."""
    names = ("before", "after")
    sizes = [
        {name: getattr(sample, name) for name in ("private_mb", "files", "threads", "shared")}
        for sample in growth(run.samples)
    ]
    return {n: size | rate for n, size, rate in zip(names, sizes, rates, strict=True)}


def leaky(arguments: Sequence[str]) -> int:
    """The real command with a leak in its once-a-second round: memory, files, threads, time."""
    from dreamer_async import cli
    from dreamer_async.run.monitor import Monitor

    report, kept = Monitor.report, []

    def leaking(self: Monitor) -> None:
        report(self)
        kept.append(os.urandom(1 << 20))
        end = time.thread_time() + 0.005 * len(kept)
        while time.thread_time() < end:
            pass
        os.dup(0)
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        tempfile.mkstemp(prefix="soak-control-", dir="/dev/shm")

    Monitor.report = leaking
    return cli.main(arguments)


def remove_planted() -> None:
    """Remove what `leaky` left in /dev/shm."""
    for path in Path("/dev/shm").glob("soak-control-*"):
        path.unlink()


def main() -> int:
    if sys.argv[1:2] == ["leaky"]:
        return leaky(sys.argv[2:])
    parser = argparse.ArgumentParser(description="Soak a real run.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--leak", action="store_true", help="the control: leak on purpose")
    parser.add_argument("--alone", action="store_true", help="without the undisturbed twin")
    options, words = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as root:
        report = soak(
            Path(root), words or ["toy"], options.minutes, leak=options.leak, twin=not options.alone
        )
    if options.leak:
        remove_planted()
    print(json.dumps(report, indent=1))
    return int(bool(report["faults"]))


if __name__ == "__main__":
    sys.exit(main())
