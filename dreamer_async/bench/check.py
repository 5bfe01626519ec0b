"""What a GPU must show, in one call of under ten minutes: `python -m dreamer_async.bench.check`.

Each step is a process of its own with a limit of its own, so that one that fails or hangs costs the
others nothing, and what was found is written after every step. First everything is compiled, side
by side, into one cache that all later steps read. With `--train` a run learns Pong in what is left
of the time, and goes on with it in the next call. It needs PyTorch, envpool and gymnasium, and
pytest for the tests; no dashboard, no `just`, no installed package.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

from dreamer_async.bench.report import spell
from dreamer_async.config import known_settings
from dreamer_async.envs.children import bound
from dreamer_async.machine import process
from dreamer_async.machine.interpreter import environment, python
from dreamer_async.store.json_file import write_json_atomic

MINUTES = 9.5
"""Everything ends by then, or is ended."""
LEAST_S = 5.0
"""A step with less time than this is left out."""
COLD_S = 420.0
"""Limit for compiling an update where nothing is cached: 185 to 208 s on two processors, which
several of them share here."""
WARM_S = 150.0
"""Limit for what finds the cache full, 18 s before its first update, and measures."""
SAVING_S = 30.0
"""What a run gets to save when the time is over."""
GPU_TESTS = "tests/machine/test_gpu.py", "tests/fast/test_capture.py"
"""Named, since collecting all tests takes packages that a GPU machine may lack."""
RANK_TESTS = "tests/parallel/test_gpu.py"
FUSED = {
    "train.fused_filtering": ("size1m vectors", "size12m 64x64x3", "size200m 96x96x1"),
    "train.fused_imagination": ("size1m vectors",),
}
"""Settings that put Triton's kernels in the place of compiled code, where they exist, and what is
compared with and without them."""
WORDS = 2000
"""Characters of the end of a step's output that are kept."""


class Step(NamedTuple):
    """One thing to check."""

    name: str
    words: Sequence[str]
    """What to call after the interpreter."""
    limit_s: float
    env: Mapping[str, str] = {}
    first: bool = False
    """Belongs to those that are done first and side by side."""


def steps(seconds: float, device: str, devices: int = 1) -> list[Step]:
    """What is checked, what is worth most first; `devices` is how many GPUs can be seen."""
    on = "-s", f"train.device={device}"
    proprio = (
        *("--suite", "toy", "--task", "seek", "--size", "size1m"),
        *("-s", "train.batch_size=16", "-s", "train.batch_length=64"),
    )
    pixels = "--suite", "atari100k"
    subjects = {
        "size1m vectors": proprio,
        "size12m 64x64x3": (*pixels, "--size", "size12m"),
        "size200m 96x96x1": ("--suite", "atari", "--size", "size200m"),
        "size50m 64x64x3": (*pixels, "--size", "size50m"),
    }
    small, medium = subjects["size1m vectors"], subjects["size12m 64x64x3"]
    tests = "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"
    oracle = {"ORACLE_DEVICE": device}

    def bench(part: str, *words: str, share: float = 1.0) -> tuple[str, ...]:
        timed = "--seconds", f"{seconds * share:g}", "--json"
        return ("-m", "dreamer_async", "bench", part, *words, *on, *timed)

    def learner(name: str, *words: str, share: float = 1.0) -> tuple[str, ...]:
        return bench("learner", *subjects[name], *words, share=share)

    eager, compiled = ("-s", "train.compile=false"), ("-s", "train.capture=false")
    return [
        *(
            Step(f"compile {name}", learner(name, share=0.0), COLD_S, first=True)
            for name in subjects
        ),
        Step("tests on the device", (*tests, "-m", "gpu", *GPU_TESTS), 240),
        Step("official code's numbers", (*tests, "tests/agent/test_oracle_agent.py"), 90, oracle),
        Step("ceilings", bench("ceilings", share=0.5), 60),
        *(Step(name, learner(name), WARM_S) for name in subjects),
        Step("size12m, policy", bench("policy", *medium, *_envs(16)), WARM_S),
        Step("size12m, run at ratio 32", _pipeline(bench, pixels, 32), 240),
        Step("size12m, run at ratio 256", _pipeline(bench, pixels, 256), 240),
        *_second_device(seconds, small, devices),
        *(
            Step(f"{subject}, {name}", learner(subject, "-s", f"{name}=true"), COLD_S)
            for name, fitting in FUSED.items()
            for subject in fitting
            if name in known_settings()
        ),
        *(Step(f"{name}, not captured", learner(name, *compiled), WARM_S) for name in subjects),
        *(Step(f"{name}, eager", learner(name, *eager, share=0.5), WARM_S) for name in subjects),
        Step("size12m, float32", bench("learner", *medium, *_precise()), COLD_S),
    ]


def _second_device(seconds: float, subject: Sequence[str], devices: int) -> list[Step]:
    """The same update on the second GPU, and a run on both, where two can be seen."""
    words = "-m", "dreamer_async", "bench", "learner", *subject, "-s", "train.device=cuda:1"
    timed = "--seconds", f"{seconds:g}", "--json"
    tests = "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"
    if devices < 2:
        return []
    return [
        Step("size1m vectors on cuda:1", (*words, *timed), WARM_S),
        Step("two ranks by NCCL", (*tests, "-m", "gpu", RANK_TESTS), COLD_S),
    ]


def _envs(count: int) -> tuple[str, ...]:
    return "--envs", str(count)


def _precise() -> tuple[str, ...]:
    return "--precision", "float32"


def _pipeline(bench: Any, suite: Sequence[str], ratio: int) -> tuple[str, ...]:
    ratio_words = "-s", f"train.train_ratio={ratio}"
    return bench("pipeline", *suite, "--size", "size12m", *_envs(16), *ratio_words)


@dataclass
class _Running:
    """A step that has begun; what it says goes to a file, as a pipe that nobody reads fills up."""

    step: Step
    child: subprocess.Popen[bytes]
    output: IO[bytes]
    began: float

    def end(self, limit: float) -> dict[str, Any]:
        """Wait for its end, which comes at the limit at last; says how it ended."""
        try:
            self.child.wait(max(0.0, self.began + limit - time.monotonic()))
            code = self.child.returncode
            ended = "ok" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
            ended = f"took more than {limit:.3g} s"
        with self.output:
            self.output.seek(0)
            output = self.output.read().decode(errors="replace")
        seconds = round(time.monotonic() - self.began, 1)
        result = {"step": self.step.name, "ended": ended, "seconds": seconds}
        if (found := _json(output)) is not None:
            return result | {"bench": found}
        return result | {"output": output[-WORDS:]}


def start(step: Step, folder: Path) -> _Running:
    """Begin a step."""
    output = TemporaryFile()  # noqa: SIM115  closed at the step's end
    child = subprocess.Popen(
        bound(python(*step.words)),
        cwd=folder,
        env=environment() | dict(step.env),
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # what it started ends with it
    )
    return _Running(step, child, output, time.monotonic())


def run(step: Step, folder: Path, left: float = float("inf")) -> dict[str, Any]:
    """Do one step in the time that is left; the result has its JSON if it printed any."""
    return start(step, folder).end(min(step.limit_s, left))


def run_side_by_side(chosen: Sequence[Step], folder: Path, left: float) -> list[dict[str, Any]]:
    """Do steps at the same time, as they need mostly processors of the host."""
    begun = [start(step, folder) for step in chosen]
    return [running.end(min(running.step.limit_s, left)) for running in begun]


def _json(output: str) -> dict[str, Any] | None:
    """The line that is JSON, if there is one: other lines may be warnings."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                return json.loads(line)
            except ValueError:
                continue
    return None


def lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short table of what was found."""
    table = []
    for result in results:
        table.append(f"{result['step']:32}{result['ended']:24}{result['seconds']:6.1f} s")
        for row in result.get("bench", {}).get("results", []):
            detail = ", ".join(f"{name} {value:.3g}" for name, value in row["detail"].items())
            table.append(f"  {row['what']:46}{spell(row['median_s']):>10}  {detail}")
        if result["ended"] != "ok" and "output" in result:
            table += [f"  | {line}" for line in result["output"].splitlines()[-6:]]
    return table


def check(
    chosen: Sequence[Step],
    target: Path,
    folder: Path,
    minutes: float,
    *,
    about: Mapping[str, Any],
    runs: Path | None = None,
) -> int:
    """Do all steps that there is time for; 1 if one of them did not end well.

    `about` describes the machine. With `runs` a run that is kept there learns Pong for the rest
    of the time.
    """
    began, results = time.monotonic(), []

    def left() -> float:
        return minutes * 60 + began - time.monotonic()

    def note(more: Sequence[dict[str, Any]]) -> None:
        results.extend(more)
        write_json_atomic(target, {"machine": about, "steps": results})
        print("\n".join(lines(more)), flush=True)

    first = [step for step in chosen if step.first]
    if first and left() > LEAST_S:
        note(run_side_by_side(first, folder, left()))
    for step in chosen[len(first) if results else 0 :]:
        late = {"step": step.name, "ended": "no time left", "seconds": 0.0}
        note([run(step, folder, left()) if left() > LEAST_S else late])
    if runs is not None and left() > 2 * SAVING_S:
        note([learn_pong(runs, folder, left() - SAVING_S)])
    print(f"{(time.monotonic() - began) / 60:.1f} of {minutes:g} minutes", flush=True)
    return int(any(result["ended"] != "ok" for result in results))


def learn_pong(runs: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Learn for so long, from where an earlier call stopped; the run can be resumed again."""
    words = ["train", "atari100k", "--task", "pong"]
    if runs.is_dir() and any(runs.iterdir()):
        words = ["resume", "last"]
    where = "--plain", "--runs-dir", str(runs.resolve())
    step = Step("atari100k pong", ("-m", "dreamer_async", *words, *where), seconds)
    running = start(step, folder)
    try:
        running.child.wait(seconds)
    except subprocess.TimeoutExpired:
        running.child.terminate()  # it saves and ends with 0
    return running.end(seconds + SAVING_S)


def machine() -> dict[str, Any]:
    """What it ran on; says what is wrong where that cannot be found out."""
    words = (
        "import json, torch; d = torch.cuda; on = d.is_available();"
        "print(json.dumps({'torch': torch.__version__, 'cuda': torch.version.cuda,"
        "'devices': d.device_count(),"
        "'device': d.get_device_name() if on else None, 'python': __import__('sys').version}))"
    )
    said = subprocess.run(
        python("-c", words), capture_output=True, text=True, check=False, timeout=120
    )
    return _json(said.stdout) or {"problem": said.stderr[-WORDS:]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the words and check."""
    parser = argparse.ArgumentParser(prog="python -m dreamer_async.bench.check")
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"), help="JSON to write")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds per measurement")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="end everything by then")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", default="", help="steps whose names contain this")
    parser.add_argument(
        "--train", type=Path, metavar="RUNS", help="then learn Pong, in a run kept in this folder"
    )
    given = parser.parse_args(arguments)
    process.isolate_compile_cache()  # for all steps: tests alone would have one of their own
    about = machine()
    every = steps(given.seconds, given.device, about.get("devices", 0))
    chosen = [step for step in every if given.only in step.name]
    if not chosen:
        parser.error(f"no step's name contains {given.only!r}")
    folder = Path(__file__).resolve().parents[2]
    return check(chosen, given.out, folder, given.minutes, about=about, runs=given.train)


if __name__ == "__main__":
    sys.exit(main())
