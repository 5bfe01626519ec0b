"""What was asked of the trainer, and what it answered, in words."""

from __future__ import annotations

from dreamer_async.store.events import Controlled

_ASKED = {
    "pause": "asked the trainer to pause",
    "resume": "asked the trainer to continue",
    "checkpoint": "asked the trainer to save a checkpoint",
    "evaluate": "asked for ten episodes with the newest weights",
    "film": "asked for a new film of the world model",
    "stop": "asked the trainer to save and stop",
}
_ANSWERED = {
    ("pause", "done"): "the run is paused",
    ("resume", "done"): "the run continues",
    ("checkpoint", "accepted"): "the trainer saves a checkpoint",
    ("checkpoint", "done"): "the checkpoint is saved",
    ("evaluate", "accepted"): "the episodes are being played",
    ("evaluate", "done"): "the episodes are played: page 5 has their scores",
    ("film", "accepted"): "the film is being made",
    ("film", "done"): "there is a new film: page 4 plays it",
    ("stop", "accepted"): "the trainer saves and stops",
}


def asked(command: str) -> str:
    """Say that something was asked for."""
    return _ASKED.get(command, f"asked for {command}")


def answered(answer: Controlled) -> str:
    """Say what became of it."""
    words = _ANSWERED.get((answer.command, answer.answer), f"{answer.command} {answer.answer}")
    return f"{words}: {answer.reason}" if answer.reason else words
