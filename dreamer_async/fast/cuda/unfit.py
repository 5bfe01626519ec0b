"""Why one of our own kernels cannot be had."""

from __future__ import annotations


class Unfit(RuntimeError):
    """A kernel cannot be had for this model, or here; the message says why."""
