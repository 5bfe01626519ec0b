"""What metrics are called, in which order they are drawn and which are always there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from dreamer_async.tui.read.limits import Limits

LABELS: Mapping[str, str] = {
    "loss/reward": "reward",
    "loss/cont": "continue",
    "loss/dyn": "dynamics KL",
    "loss/rep": "represent. KL",
    "loss/actor": "actor",
    "loss/critic": "critic",
    "loss/replay_critic": "replay critic",
    "policy/entropy": "entropy",
    "opt/grad_norm": "grad norm",
    "loss/total": "total",
    "return/mean": "imagined return",
    "value/mean": "value",
    "adv/mag": "advantage",
    "policy/randomness": "randomness",
    "imagine/reward": "imagined reward",
    "rssm/posterior_entropy": "posterior ent.",
    "rssm/prior_entropy": "prior entropy",
    "opt/update_rms": "update rms",
}
"""What the charts are called, in their order; reconstructions come before all of them."""

STAGES: Mapping[str, str] = {
    "stage/env_wait": "env stepping",
    "stage/ratio_wait": "ratio wait",
    "stage/policy": "policy",
    "stage/update": "update",
    "stage/gpu_wait": "GPU wait",
    "stage/sample": "replay sample",
    "stage/learner_wait": "learner wait",
    "stage/transfer": "transfer",
    "stage/write_latents": "latents back",
    "stage/insert": "replay insert",
}
"""What stages of the pipeline are called, by importance: a low terminal shows the first five."""

REQUIRED = tuple(LABELS)[:9]
"""Always on the screen; the rest fills the room that is left."""

FREE = ("loss/dyn", "loss/rep")
"""Losses that have no gradient below a number of free nats."""


def reconstructions(names: Iterable[str]) -> list[str]:
    """Name the reconstruction losses: every loss that is none of the known ones."""
    return [name for name in names if name.startswith("loss/") and name not in LABELS]


def required_charts(names: Iterable[str]) -> list[str]:
    """Name the metrics that are always drawn: reconstructions, then every other loss."""
    return [*(reconstructions(names) or ["loss/image"]), *REQUIRED]


def optional_charts(drawable: Collection[str]) -> list[str]:
    """Name the metrics that fill the room which is left."""
    return [name for name in tuple(LABELS)[len(REQUIRED) :] if name in drawable]


def ordered(names: Collection[str]) -> list[str]:
    """Name all metrics: those with a place of their own first."""
    first = [name for name in required_charts(names) if name in names]
    first += [name for name in tuple(LABELS)[len(REQUIRED) :] if name in names]
    return [*first, *sorted(set(names) - set(first))]


GROUPS = ("world model", "critic and returns", "policy", "optimiser", "others")
"""What metrics are about, in the order of their page."""
_OF_LOSSES = {"critic": 1, "replay_critic": 1, "actor": 2, "total": 3}
"""Groups of losses that are not the world model's."""
_OF_FAMILIES = {
    "rssm": 0,
    **dict.fromkeys(("return", "value"), 1),
    **dict.fromkeys(("policy", "adv", "imagine"), 2),
    "opt": 3,
}


def grouped(names: Collection[str]) -> list[tuple[str, list[str]]]:
    """All metrics by what they are about, in their order; groups without one are left out."""
    members: list[list[str]] = [[] for _ in GROUPS]
    for name in ordered(names):
        members[_group(name)].append(name)
    return [(title, part) for title, part in zip(GROUPS, members, strict=True) if part]


def _group(name: str) -> int:
    family, _, rest = name.partition("/")
    if family == "loss":
        return _OF_LOSSES.get(rest, 0)
    return _OF_FAMILIES.get(family, len(GROUPS) - 1)


def matching(names: Collection[str], words: str) -> list[str]:
    """Name the metrics whose name or label contains one of the words."""
    wanted = words.lower().split()
    return [
        name
        for name in ordered(names)
        if any(word in name.lower() or word in label(name).lower() for word in wanted)
    ]


def label(name: str) -> str:
    """Return what a metric's chart is called."""
    if name in LABELS or name in STAGES:
        return LABELS.get(name) or STAGES[name]
    return f"{name.removeprefix('loss/')} recon." if name.startswith("loss/") else name


def title(name: str, limits: Limits) -> str:
    """Return what a metric's chart is called in a run that takes other percentiles than usual."""
    of_returns = {"return/p5": limits.return_low, "return/p95": limits.return_high}
    return f"return/p{of_returns[name]:g}" if name in of_returns else label(name)
