"""The words that the trainer and its worker processes exchange, and specs as JSON."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs.spec import ActionSpec, EnvSpec, ObsSpec, Taken

RESET, STEP, DRAW, CLOSE = b"reset", b"step", b"draw", b"close"
"""Commands to a worker."""
ROW, READY, FAILED, REFUSED = b"row", b"ready", b"failed", b"refused"
"""Answers, up to the first newline: a row lies in the block; specs; a traceback; a reason."""
PICTURE = b"picture"
"""Answer to `DRAW`: an array as .npy, or nothing."""


def answer(kind: bytes, body: str = "") -> bytes:
    """Put an answer together."""
    return kind + b"\n" + body.encode(errors="replace")


def split(message: bytes) -> tuple[bytes, str]:
    """Take an answer apart."""
    kind, _, body = message.partition(b"\n")
    return kind, body.decode(errors="replace")


def decode_picture(data: bytes) -> NDArray[np.uint8] | None:
    """The picture of an answer, whose kind was taken off; None if there is none."""
    return np.load(io.BytesIO(data), allow_pickle=False) if data else None


def encode_picture(picture: NDArray[np.uint8]) -> bytes:
    """Turn a picture into an answer."""
    buffer = io.BytesIO()
    np.save(buffer, picture, allow_pickle=False)
    return answer(PICTURE) + buffer.getvalue()


def encode_spec(spec: EnvSpec) -> dict[str, Any]:
    """Turn a spec into JSON."""
    obs = {
        name: [list(entry.shape), entry.dtype, entry.classes] for name, entry in spec.obs.items()
    }
    return {
        "obs": obs,
        "action": _encode_action(spec.action),
        "frames_per_step": spec.frames_per_step,
        "bounds": {name: list(bounds) for name, bounds in spec.bounds.items()},
        "log": list(spec.log),
        "native": dict(spec.native),
        "taken": {name: list(taken) for name, taken in spec.taken.items()},
    }


def _encode_action(spec: ActionSpec) -> list[Any]:
    parts = [[name, _encode_action(part)] for name, part in spec.parts]
    return [spec.kind, spec.size, parts]


def _decode_action(data: list[Any]) -> ActionSpec:
    kind, size, parts = data
    return ActionSpec(kind, size, tuple((name, _decode_action(part)) for name, part in parts))


def decode_spec(suite: str, task: str, data: Mapping[str, Any]) -> EnvSpec:
    """Turn JSON from `encode_spec` back into a spec."""
    obs = {
        name: ObsSpec(tuple(shape), dtype, classes)
        for name, (shape, dtype, classes) in data["obs"].items()
    }
    bounds = {name: (low, high) for name, (low, high) in data["bounds"].items()}
    action, log, frames = (
        _decode_action(data["action"]),
        tuple(data["log"]),
        data["frames_per_step"],
    )
    taken = {name: Taken(*told) for name, told in data["taken"].items()}
    return EnvSpec(suite, task, obs, action, frames, bounds, log, data["native"], taken)
