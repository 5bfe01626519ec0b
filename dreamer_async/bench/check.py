"""What a GPU must show, in one call of under ten minutes: `python -m dreamer_async.bench.check`.

Each step is a process of its own with a limit of its own, so that one that fails or hangs costs the
others nothing, and what was found is written after every step. It needs PyTorch, envpool and
gymnasium, and pytest for the first two steps; no dashboard, no `just`, no installed package.
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
from pathlib import Path
from typing import Any, NamedTuple

from dreamer_async.bench.report import spell
from dreamer_async.interpreter import environment, python
from dreamer_async.run_dir import write_json_atomic
from envs.children import bound

MINUTES = 9.5
"""Steps that would begin later than this are left out."""
GPU_TESTS = "tests/test_gpu.py", "tests/test_agent_capture.py"
"""Named, since collecting all tests takes packages that a GPU machine may lack."""
WORDS = 2000
"""Characters of the end of a step's output that are kept."""


class Step(NamedTuple):
    """One thing to check."""

    name: str
    words: Sequence[str]
    """What to call after the interpreter."""
    limit_s: float
    env: Mapping[str, str] = {}


def steps(seconds: float, device: str) -> list[Step]:
    """What is checked, what is worth most first."""
    on = "-s", f"train.device={device}"
    proprio = (
        *("--suite", "toy", "--task", "seek", "--size", "size1m"),
        *("-s", "train.batch_size=16", "-s", "train.batch_length=64"),
    )
    pixels = "--suite", "atari100k"
    tests = "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"
    oracle = {"ORACLE_DEVICE": device}

    def bench(part: str, *words: str, share: float = 1.0) -> tuple[str, ...]:
        timed = "--seconds", f"{seconds * share:g}", "--json"
        return ("-m", "dreamer_async", "bench", part, *words, *on, *timed)

    eager, compiled = ("-s", "train.compile=false"), ("-s", "train.capture=false")
    return [
        Step("tests on the device", (*tests, "-m", "gpu", *GPU_TESTS), 150),
        Step("official code's numbers", (*tests, "tests/test_oracle_agent.py"), 60, oracle),
        Step("ceilings", bench("ceilings", share=0.5), 40),
        Step("size1m vectors", bench("learner", *proprio), 90),
        Step("size12m 64x64x3", bench("learner", *pixels, "--size", "size12m"), 90),
        Step("size200m 96x96x1", bench("learner", "--suite", "atari", "--size", "size200m"), 110),
        Step("size12m, policy", bench("policy", *pixels, "--size", "size12m", *_envs(16)), 90),
        Step("size12m, run at ratio 32", _pipeline(bench, pixels, 32), 120),
        Step("size12m, run at ratio 256", _pipeline(bench, pixels, 256), 120),
        Step("size50m 64x64x3", bench("learner", *pixels, "--size", "size50m"), 90),
        Step("size1m vectors, not captured", bench("learner", *proprio, *compiled), 60),
        Step(
            "size12m, not captured", bench("learner", *pixels, "--size", "size12m", *compiled), 60
        ),
        Step("size1m vectors, eager", bench("learner", *proprio, *eager, share=0.5), 60),
        Step("size12m, float32", bench("learner", *pixels, "--size", "size12m", *_precise()), 90),
    ]


def _envs(count: int) -> tuple[str, ...]:
    return "--envs", str(count)


def _precise() -> tuple[str, ...]:
    return "--precision", "float32"


def _pipeline(bench: Any, suite: Sequence[str], ratio: int) -> tuple[str, ...]:
    ratio_words = "-s", f"train.train_ratio={ratio}"
    return bench("pipeline", *suite, "--size", "size12m", *_envs(16), *ratio_words)


def run(step: Step, folder: Path) -> dict[str, Any]:
    """Do one step; the result says how it ended, and has its JSON if it printed any."""
    began = time.monotonic()
    process = subprocess.Popen(
        bound(python(*step.words)),
        cwd=folder,
        env=environment() | dict(step.env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # what it started ends with it
    )
    try:
        output, _ = process.communicate(timeout=step.limit_s)
        ended = "ok" if process.returncode == 0 else f"exit code {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        ended = f"took more than {step.limit_s:g} s"
    result = {"step": step.name, "ended": ended, "seconds": round(time.monotonic() - began, 1)}
    if (found := _json(output)) is not None:
        return result | {"bench": found}
    return result | {"output": output[-WORDS:]}


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


def check(chosen: Sequence[Step], target: Path, folder: Path, minutes: float) -> int:
    """Do all steps that there is time for; 1 if one of them did not end well."""
    began, results = time.monotonic(), []
    for step in chosen:
        if time.monotonic() - began > minutes * 60:
            results.append({"step": step.name, "ended": "no time left", "seconds": 0.0})
        else:
            results.append(run(step, folder))
        write_json_atomic(target, {"machine": machine(), "steps": results})
        print("\n".join(lines(results[-1:])), flush=True)
    return int(any(result["ended"] != "ok" for result in results))


def machine() -> dict[str, Any]:
    """What it ran on; says what is wrong where that cannot be found out."""
    words = (
        "import json, torch; d = torch.cuda; on = d.is_available();"
        "print(json.dumps({'torch': torch.__version__, 'cuda': torch.version.cuda,"
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
    parser.add_argument("--minutes", type=float, default=MINUTES, help="begin no step after this")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", default="", help="steps whose names contain this")
    given = parser.parse_args(arguments)
    chosen = [step for step in steps(given.seconds, given.device) if given.only in step.name]
    if not chosen:
        parser.error(f"no step's name contains {given.only!r}")
    folder = Path(__file__).resolve().parents[2]
    return check(chosen, given.out, folder, given.minutes)


if __name__ == "__main__":
    sys.exit(main())
