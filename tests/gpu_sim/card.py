"""One simulated card, or several: processes that run on them and what the stubs saw of these."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer_async.store import events
from dreamer_async.store.run_dir import RunDir
from tests.gpu_sim.set_up import libraries
from tests.tiny_run import make_run, read

ROOT = Path(__file__).resolve().parents[2]
PROBES = Path(__file__).with_name("probes")
INTERPRETED: dict[str, Any] = {"TORCHDYNAMO_DISABLE": "1"}
"""`torch.compile` hands back what it was given, for a check that need not wait for it; updates are
recorded as ever."""
BROKEN = re.compile(r"UNSAFE|PAGEABLE copy|SYNC of a capturing|ERROR|waits for an event outside")
"""What the log says of a call that CUDA refuses, or that would break a recording."""
FOREIGN = "FAKE_|TRITON_INTERPRET$"
"""What of our own environment is not meant for the card: ordinary tests interpret their kernels."""
PATIENCE_S = 600.0
"""Longest wait for a process that compiles nothing."""
COMPILING_S = 1800.0
"""Longest wait for one that may have to compile, on few and busy processors."""


@dataclass(frozen=True)
class Ended:
    """A process that has ended, and what it did to the cards."""

    code: int
    output: str
    log: Sequence[str]
    """Lines of the stubs: `[thread] what on which device`."""

    def lines(self, pattern: str) -> list[str]:
        """What the log says that fits a pattern."""
        return [line for line in self.log if re.search(pattern, line)]

    @property
    def broken(self) -> list[str]:
        """Calls that were refused, or would be."""
        return self.lines(BROKEN.pattern)


@dataclass(frozen=True)
class Card:
    """The folder that `set_up` made, and one for what a check writes."""

    folder: Path
    scratch: Path

    def environment(self, **settings: object) -> dict[str, str]:
        """The environment of a process on cards described by `FAKE_...` settings."""
        cache, stubs = self.folder / "cache", str(libraries(self.folder))
        return {
            **{n: text for n, text in os.environ.items() if not re.match(FOREIGN, n)},
            "LD_LIBRARY_PATH": stubs,
            "PYTHONPATH": os.pathsep.join([str(self.folder / "site"), str(ROOT)]),
            "PYTHONPYCACHEPREFIX": str(cache / "bytecode"),
            "PYTHONWARNINGS": "ignore",
            "TRITON_LIBCUDA_PATH": stubs,
            "TRITON_CACHE_DIR": str(cache / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
            "OMP_NUM_THREADS": "1",
            "FAKE_LOG": str(self.scratch / "log"),
            "FAKE_NODES": str(self.scratch / "nodes"),
            **{name: str(value) for name, value in settings.items()},
        }

    def start(self, *words: str, **settings: object) -> subprocess.Popen[bytes]:
        """Start Python with these words; its output goes to a file of the scratch folder."""
        (self.scratch / "log").unlink(missing_ok=True)
        with open(self.scratch / "output", "wb") as output:
            return subprocess.Popen(
                [str(self.folder / "env/bin/python"), *words], cwd=ROOT, stdout=output,
                stderr=subprocess.STDOUT, env=self.environment(**settings),
            )  # fmt: skip

    def end(self, process: subprocess.Popen[bytes], patience: float = PATIENCE_S) -> Ended:
        """Wait for the end of a process, which may not take longer than this."""
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler prints where it hangs
            process.wait()
            raise AssertionError(f"no end after {patience:g} s: {self.output()[-4000:]}") from None
        log = self.scratch / "log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return Ended(code, self.output(), lines)

    def output(self) -> str:
        """What the process said so far."""
        return (self.scratch / "output").read_text(errors="replace")

    def call(self, *words: str, patience: float = PATIENCE_S, **settings: object) -> Ended:
        """Run Python with these words."""
        return self.end(self.start(*words, **settings), patience)

    def nodes(self) -> Counter[str]:
        """Nodes of the last recording by name."""
        counts: Counter[str] = Counter()
        for line in (self.scratch / "nodes").read_text().splitlines():
            count, name = line.split("\t", 1)
            counts[name] += int(count)
        return counts

    def run(self, *overrides: str, task: str = "catch") -> RunDir:
        """A tiny run whose updates would be compiled and recorded, and that no loss ends."""
        settings = "train.compile=true", "train.skip_limit=1000000", "train.steps=300"
        return make_run(self.scratch, *settings, *overrides, task=task)


def trainer(run: RunDir) -> tuple[str, ...]:
    """The words that train a run in the foreground."""
    return "-m", "dreamer_async", "trainer", str(run.path)


def wait_until(process: subprocess.Popen[bytes], until: Callable[[], bool]) -> None:
    """Poll until something is true of a process that goes on."""
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        assert process.poll() is None, f"ended early with {process.returncode}"
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.05)


def phase(run: RunDir) -> str:
    """What the run is doing, by its own events; empty before the first."""
    found = [event.phase for event in read(run) if isinstance(event, events.PhaseChanged)]
    return found[-1] if found else ""


def updates(run: RunDir) -> int:
    """Updates that the run has reported; not by their metrics, which read a number of the card."""
    return max(
        [event.updates for event in read(run) if isinstance(event, events.Gauges)], default=0
    )


def ending(run: RunDir) -> events.RunFinished:
    """How the run says that it ended."""
    return [event for event in read(run) if isinstance(event, events.RunFinished)][-1]
