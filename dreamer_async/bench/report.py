"""What `bench` and `plan` print for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dreamer_async.bench.reference import NATIVE, Reference, references
from dreamer_async.fast.native.load import in_words
from dreamer_async.store.sizes import counted

Json = Mapping[str, Any]

NORMAL = 1.6
"""Times slower than another machine of two cores, up to which nothing is wrong."""
BUSY_SHARE = 0.25
"""Of the cores: a larger load of others makes times longer."""


def bench_lines(result: Json, part: str) -> list[str]:
    """The measured speeds, then those of others."""
    head = (
        f"{result['task']}, {result['size']} on {result['device']} in {result['precision']}; "
        f"{counted(result['cores'], 'core')} of {result['processor']}, "
        f"{counted(result['threads'], 'learner thread')}, "
        f"torch {result['torch']}"
    )
    if library := result.get("native"):
        head += f", native functions {in_words(library)}"
    title = f"{'':10}{'':36}{'median':>10}{'min':>10}{'max':>10}{'n':>6}"
    lines = [head, *load_warning(result), "", title]
    for row in result["results"]:
        times = "".join(f"{spell(row[name]):>10}" for name in ("median_s", "min_s", "max_s"))
        lines.append(f"{row['part']:10}{row['what']:36}{times}{row['n']:6}  {_per(row['unit'])}")
        lines += [f"{'':10}  {_detail(row['detail'])}"] if row["detail"] else []
    lines += ["", *verdicts(result)]
    others = references(part, result["size"])
    if others:
        lines += ["", "measured elsewhere:"]
    for other in others:
        speed = f"{spell(other.seconds):>10}  {other.software}, {other.machine}"
        lines.append(f"{other.part:10}{other.what:36}{speed}")
    return lines


def load_warning(result: Json) -> list[str]:
    """Say that other programs were at work, if they were."""
    if not _busy(result):
        return []
    load, cores = result["load"], counted(result["cores"], "core")
    return [
        f"warning: other programs were at work before (load {load:.1f} on {cores}): "
        "these times are longer than they would be"
    ]


def verdicts(result: Json) -> list[str]:
    """Whether the speeds are normal, by those of this program on other machines."""
    said = []
    for row in result["results"]:
        ours = _like(row, result)
        if ours is not None:
            times = row["median_s"] / ours.seconds
            judged = _judged(times, _busy(result))
            said.append(
                f"{row['part']:10}{row['what']}: {judged}, {times:.2g} times the "
                f"{spell(ours.seconds)} on {ours.machine}"
            )
    return said or [
        "nothing says whether that is normal: no update or acting step of this size, batch and "
        "kind of observation was measured on another machine like this"
    ]


def _like(row: Json, result: Json) -> Reference | None:
    """What the same thing took this program on another machine, None if nobody measured it.

    Updates were measured with two threads, everything in float32 and as the size has it.
    """
    if result["device"] != "cpu" or result["precision"] != "float32" or result["differs"]:
        return None
    if row["part"] == "learner" and result["threads"] < 2:
        return None
    words = row["what"].replace(",", "").split()
    if row["part"] == "learner" and words[-1] == "native":
        what = f"{result['sees']}, {words[1]}"
    elif row["part"] == "policy":
        what = f"{result['sees']}, {words[2]} row{'s' * (words[2] != '1')}"
    else:
        return None
    known = references(row["part"], result["size"])
    return next((r for r in known if (r.what, r.software) == (what, NATIVE)), None)


def _busy(result: Json) -> bool:
    """Whether other programs took time from what was measured."""
    return result["load"] >= BUSY_SHARE * result["cores"]


def _judged(times: float, busy: bool) -> str:
    if times <= NORMAL:
        return "normal"
    if busy:
        return "slow, as others are at work"
    return "slow" if times <= 2 * NORMAL else "much too slow: `doctor` may say why"


def _per(unit: str) -> str:
    """What one time belongs to; the times themselves have their units with them."""
    of = unit.removeprefix("s/")
    return f"per {of}" if of != unit else "" if unit == "s" else unit


def profile_lines(result: Json) -> list[str]:
    """Seconds per update by stage and by operation."""
    lines = [f"trace for https://ui.perfetto.dev: {result['trace']}"]
    for title in ("stages", "operations"):
        lines += ["", f"{title}, per update:"]
        lines += [f"{spell(seconds):>10}  {name}" for name, seconds in result[title].items()]
    return lines


def plan_lines(result: Json) -> list[str]:
    """What a run needs, one line each."""
    rows = {
        "parameters": f"{result['parameters']:,}",
        "replay": f"{result['replay_gb']:.2f} GB for {result['replay_steps']:,} steps",
        "checkpoints": f"{result['checkpoint_gb']:.2f} GB each, up to {result['checkpoints']}",
        "steps": f"{result['steps']:,} ({result['frames']:,} frames), reset rows included",
        "updates": f"{result['updates']:,} at train ratio {result['train_ratio']:g}",
        "memory": _memory(result),
        "on a GPU": _estimate(result),
        "learner": _hours(
            result["learner_hours"], result["update_s"], f"update, {result['update_how']}"
        ),
        "environments": _hours(result["env_hours"], result["step_s"], "step, alone"),
    }
    head = f"{result['task']}, {result['size']} on {result['device']} in {result['precision']}"
    return [head, *(f"{name:14}{text}" for name, text in rows.items() if text)]


def spell(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def _detail(detail: Json) -> str:
    shown = {
        name: f"{value:.1%}" if name.startswith("share") else f"{value:.3g}"
        for name, value in detail.items()
    }
    return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in shown.items())


def _memory(result: Json) -> str:
    peak, held = result["peak_gb"], result["held_gb"]
    if peak is None:
        return "not measured"
    if held is None:
        return f"{peak:.1f} GB for the learner"
    return (
        f"{held:.1f} GB of the GPU reserved for the learner, {peak:.1f} GB in tensors at the peak"
    )


def _estimate(result: Json) -> str:
    """What a GPU would hold, and where that is from; nothing where a GPU was asked itself."""
    if result["device"].startswith("cuda"):
        return ""
    if result["vram_gb"] is None:
        return "no estimate of its memory: no agent like this was measured"
    how = "compiled" if result["vram_compiled"] else "not compiled"
    return (
        f"about {result['vram_gb']:.1f} GB for the learner, and a context (an estimate: seen for "
        f"16x64 batches, {how}, on a simulated card)"
    )


def _hours(hours: float | None, seconds: float | None, what: str) -> str:
    if hours is None or seconds is None:
        return "not measured"
    return f"{hours:,.1f} hours ({spell(seconds)} per {what})"
