"""Where the time goes: one strip a stage of the pipeline, and what would make it faster.

The collector's and the learner's stages follow one another inside each of them; the two run at
the same time. A stage's share is the part of wall-clock time that it took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import NamedTuple

from dreamer_async.tui.draw.picture import Meter
from dreamer_async.tui.draw.text import count, plain, plural, short, size
from dreamer_async.tui.read.progress import Phase
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show.names import STAGES

AVERAGED = 10
"""Gauges events, that is seconds, that the strips average."""
WAITS = 0.15
"""Share of waiting from which on a side counts as held up."""

AT_ZERO = 0.005
"""Shares below this are written as 0 %; such stages share a line."""

LEARNER = ("sample", "transfer", "update", "gpu_wait", "write_latents")


class Wait(NamedTuple):
    """Time that a stage waits, and for whom."""

    share: float
    whom: str
    wanted: bool = False
    """Whether that is how it is set up: the train ratio holds the collector back."""


@dataclass(frozen=True)
class Strip:
    """One stage."""

    label: str
    busy: float | None
    """Share of the time; None if the trainer does not say."""
    waits: tuple[Wait, ...] = ()
    """Largest first."""


class Verdict(NamedTuple):
    """What limits the run."""

    limit: str
    faster: str
    """What would make it faster; may be empty."""


def shares(view: RunView) -> Mapping[str, float]:
    """Mean share of each stage over the last seconds, by its name without `stage/`.

    Only seconds of the phase that is on count: a pause says nothing about what limits.
    """
    last = view.recent[-1].phase if view.recent else ""
    newest = list(
        islice(takewhile(lambda gauges: gauges.phase == last, reversed(view.recent)), AVERAGED)
    )
    result: dict[str, float] = {}
    for name in {name for gauges in newest for name in gauges.values if name.startswith("stage/")}:
        known = [v for gauges in newest if (v := gauges.values.get(name)) is not None]
        if known:
            result[name.removeprefix("stage/")] = min(1.0, max(0.0, sum(known) / len(known)))
    return result


def strips(view: RunView) -> list[Strip]:
    """One strip for each stage, in the order in which data passes through them."""
    share = shares(view)
    learner = sum(share.get(name, 0.0) for name in LEARNER)
    held = share.get("ratio_wait", learner if view.started and view.started.sync else 0.0)
    environments = Wait(share.get("env_wait", 0.0), "the environments")
    acting = Wait(share.get("policy", 0.0), "actions")
    sync = view.started is not None and view.started.sync
    learning = Wait(held, "the learner" if sync else "the train ratio", wanted=not sync)
    steps = Wait(share.get("learner_wait", 0.0), "new steps")
    waits = {
        "env_wait": (acting, learning),
        "policy": (environments, learning),
        "insert": (environments, learning),
        "sample": (Wait(learner - share.get("sample", 0.0), "the update"), steps),
        "transfer": (Wait(learner - share.get("transfer", 0.0), "the update"), steps),
        "update": (Wait(learner - share.get("update", 0.0), "its data"), steps),
        "gpu_wait": (Wait(learner - share.get("gpu_wait", 0.0), "the learner's other work"), steps),
        "write_latents": (Wait(learner - share.get("write_latents", 0.0), "the update"), steps),
    }
    if "gpu_wait" not in share:  # on a CPU nobody waits for another processor
        del waits["gpu_wait"]
    return [
        Strip(STAGES[f"stage/{name}"], share.get(name), tuple(sorted(these, reverse=True)))
        for name, these in waits.items()
    ]


def verdict(view: RunView, phase: Phase) -> Verdict:
    """Say in one sentence what limits the run, and in one what would make it faster."""
    if phase.name != "training":
        return _not_training(view, phase)
    share = shares(view)
    if not share:
        return Verdict("The trainer has not said yet where its time goes.", "")
    learner = sum(share.get(name, 0.0) for name in LEARNER)
    if view.started is not None and view.started.sync:
        return Verdict(
            f"Lockstep: collecting and learning take turns, the learner {learner:.0%} of the time.",
            "Without --sync both run at the same time.",
        )
    if share.get("learner_wait", 0.0) < WAITS:
        return _learner_limits(view, share, learner)
    return _collector_limits(share)


def _learner_limits(view: RunView, share: Mapping[str, float], learner: float) -> Verdict:
    held = share.get("ratio_wait", 0.0)
    reading = share.get("sample", 0.0) + share.get("write_latents", 0.0)
    gpu, update = share.get("gpu_wait", 0.0), share.get("update", 0.0)
    if gpu > max(reading, update):
        limit = f"The GPU limits: the learner waits for it {gpu:.0%} of the time"
        limit += f", the collector waits {held:.0%} for the learner." if held >= WAITS else "."
        return Verdict(limit, _faster_updates(view))
    if reading > update + gpu:
        return Verdict(
            f"The replay limits: the learner spends {reading:.0%} of its time on reading and "
            "writing it.",
            "More free memory, or the replay on a faster disk (--replay-dir).",
        )
    limit = f"The update limits: the learner is busy {learner:.0%} of the time"
    limit += f", the collector waits {held:.0%} for it." if held >= WAITS else "."
    return Verdict(limit, _faster_updates(view))


def _faster_updates(view: RunView) -> str:
    run = view.started
    ways = []
    if run is not None and run.device == "cpu":
        ways.append("a GPU")
    if run is not None and not run.compiled:
        ways.append("compiled updates (--compile)")
    if run is not None and run.device != "cpu" and run.precision == "float32":
        ways.append("--precision bfloat16")
    ways.append("a smaller --size")
    sentence = f"Faster: {', '.join(ways[:-1])} or {ways[-1]}" if ways[1:] else f"Faster: {ways[0]}"
    return f"{sentence}. A lower --ratio gives more steps per update, but learns less from each."


def _collector_limits(share: Mapping[str, float]) -> Verdict:
    idle = share.get("learner_wait", 0.0)
    parts = {name: share.get(name, 0.0) for name in ("env_wait", "policy", "insert")}
    worst = max(parts, key=lambda name: parts[name])
    whom, faster = {
        "env_wait": ("The environments limit", "more --envs, or more threads (-s env.threads=N)"),
        "policy": ("Acting limits", "more --envs for each call, or a smaller --size"),
        "insert": ("Writing the replay limits", "the replay on a faster disk (--replay-dir)"),
    }[worst]
    return Verdict(
        f"{whom}: the collector spends {parts[worst]:.0%} of its time there, "
        f"the learner waits {idle:.0%} for new steps.",
        f"Faster: {faster}.",
    )


def _not_training(view: RunView, phase: Phase) -> Verdict:
    sentences = {
        "prefill": "Prefill: environments fill the replay; updates begin when enough is in it.",
        "compiling": "Compiling the update; this takes minutes, once."
        + (
            "" if view.started and view.started.sync else " Environments fill the replay meanwhile."
        ),
        "starting": "Starting.",
        "paused": "Paused: collecting and learning wait. p resumes.",
        "stopping": "Stopping: the last checkpoint is being saved.",
        "resuming": "Resuming from the last checkpoint.",
        "lost": "No trainer is running; the strips show its last state.",
    }
    return Verdict(sentences.get(phase.name, "The run has ended; the strips show its end."), "")


# -- the short lists of the overview ---------------------------------------------------------


def pipeline(view: RunView) -> list[Meter]:
    """How each stage of the pipeline spends its time; the same means as on the strips."""
    share = {f"stage/{name}": value for name, value in shares(view).items()}
    known = [name for name in STAGES if name in share]
    idle = [name for name in known if share[name] < AT_ZERO]
    meters = [
        _stage(name, share.get(name)) for name in known or tuple(STAGES)[:5] if name not in idle
    ]
    pairs = [idle[i : i + 2] for i in range(0, len(idle), 2)]
    return [*meters, *(Meter("" if i else "at 0%", in_a_row(p)) for i, p in enumerate(pairs))]


def in_a_row(names: Sequence[str]) -> str:
    """The stages that share a line, by what they are called."""
    return ", ".join(STAGES[name] for name in names)


_WAITING = {
    "stage/ratio_wait": "bar-held",  # as it should be
    "stage/gpu_wait": "bar-wait",
    "stage/learner_wait": "bar-wait",
}
"""Looks of stages that are waiting; in all others something works."""


def _stage(name: str, share: float | None) -> Meter:
    """Show a share of 0..1, or that it is not known."""
    look = _WAITING.get(name, "bar")
    if share is None:
        return Meter(STAGES[name], "–", 0.0, look)
    return Meter(STAGES[name], f"{share:.0%}", share, look)


def replay(view: RunView) -> list[Meter]:
    """How full the ring is, and whether training keeps pace with collecting."""
    gauges = view.gauges
    fill, gigabytes = gauges.get("replay/fill"), gauges.get("replay/gb")
    steps, queue = gauges.get("replay/steps"), gauges.get("replay/online_queue")
    lag, age = gauges.get("policy/lag"), gauges.get("replay/sample_age")
    actual, target = gauges.get("ratio/actual"), gauges.get("ratio/target")
    room = size(gigabytes * 1e9) if gigabytes is not None else "–"
    if view.started is not None and view.started.replay_capacity:
        room += f" for {plain(view.started.replay_capacity)}"
    return [
        Meter("fill", "–" if fill is None else f"{fill:.0%}", fill or 0.0),
        Meter("train ratio", f"{short(actual)} of {'–' if target is None else plain(target)}"),
        Meter("size", room),
        Meter("policy lag", "–" if lag is None else plural(lag, "update")),
        Meter("sampled age", "–" if age is None else plural(age, "step")),
        Meter("online queue", "–" if queue is None else plural(queue, "window")),
        Meter("steps added", "–" if steps is None else count(steps)),
    ]
