"""Speeds that were measured elsewhere, to tell whether one's own are normal."""

from __future__ import annotations

from typing import NamedTuple


class Reference(NamedTuple):
    """One measured speed."""

    part: str
    size: str
    what: str
    seconds: float
    software: str
    machine: str


AMX = "2 cores of a Xeon with AMX, no GPU"
EPYC = "2 cores of an AMD EPYC (AVX-512, bfloat16), no GPU"
AVX2 = "2 cores of an AMD EPYC (AVX2), no GPU"
GB200 = "one GB200 GPU"

OURS = "dreamer-async, mixed, before most native functions"
NATIVE = "dreamer-async, float32"

REFERENCES = (
    Reference("learner", "size1m", "96x96x1, 16x64", 0.9, NATIVE, AVX2),
    Reference("learner", "size1m", "64x64x3, 16x64", 0.63, NATIVE, AVX2),
    Reference("learner", "size12m", "64x64x3, 16x64", 5.4, NATIVE, AVX2),
    Reference("learner", "size1m", "vectors, 16x64", 0.30, NATIVE, AVX2),
    Reference("policy", "size1m", "96x96x1, 1 row", 0.0007, NATIVE, AVX2),
    Reference("policy", "size1m", "96x96x1, 16 rows", 0.0042, NATIVE, AVX2),
    Reference("policy", "size1m", "64x64x3, 1 row", 0.0006, NATIVE, AVX2),
    Reference("policy", "size1m", "64x64x3, 16 rows", 0.0024, NATIVE, AVX2),
    Reference("replay", "", "sample 16x65 of 64x64x3", 0.0017, NATIVE, AVX2),
    Reference("policy", "size1m", "96x96x1, 1 row", 0.0020, OURS, EPYC),
    Reference("policy", "size1m", "96x96x1, 16 rows", 0.0061, OURS, EPYC),
    Reference("replay", "", "sample 16x65 of 64x64x3", 0.0008, OURS, EPYC),
    Reference("learner", "size1m", "64x64x3, 16x64", 2.98, "r2dreamer, eager float32", AMX),
    Reference("learner", "size1m", "64x64x3, 16x64", 2.67, "r2dreamer, eager bfloat16", AMX),
    Reference("learner", "size1m", "64x64x3, 16x64", 8.06, "official JAX float32", AMX),
    Reference("learner", "size1m", "vectors, 16x64", 0.02204, "official JAX bfloat16", GB200),
    Reference("learner", "size1m", "vectors, 16x64", 0.01783, "TorchRL, CUDA graph", GB200),
    Reference("policy", "size1m", "64x64x3, 1 row", 0.0033, "r2dreamer", AMX),
    Reference("policy", "size1m", "64x64x3, 16 rows", 0.0096, "r2dreamer", AMX),
    Reference("policy", "size1m", "64x64x3, 1 row", 0.0037, "official JAX", AMX),
    Reference("policy", "size1m", "64x64x3, 16 rows", 0.0288, "official JAX", AMX),
    Reference("env", "", "Pong 64x64x3, 16 in batches of 8", 1 / 2654, "envpool, async", AMX),
    Reference("env", "", "Pong 64x64x3, 8 workers", 1 / 1036, "official driver", AMX),
    Reference("replay", "", "sample 16x65 of 64x64x3", 1 / 340, "official JAX", AMX),
    Reference("replay", "", "sample 16x65 of 64x64x3", 1 / 12.5, "r2dreamer", AMX),
    Reference("replay", "", "add one step of 64x64x3", 1 / 17_082, "official JAX", AMX),
    Reference("replay", "", "add one step of 64x64x3", 1 / 1_449, "r2dreamer", AMX),
)
"""Self-reported for TorchRL and JAX on the GB200 (pytorch/rl#4216), measured by us otherwise."""


def references(part: str, size: str) -> list[Reference]:
    """Those of a part (or `all`) that concern a size."""
    return [r for r in REFERENCES if part in (r.part, "all") and r.size in ("", size)]
