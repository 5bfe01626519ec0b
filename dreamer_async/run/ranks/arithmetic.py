"""What ranks compute with: their weights stay equal only where all of them compute alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dreamer_async.config import ConfigError, TrainConfig
from dreamer_async.fast.native.load import in_words
from dreamer_async.fast.place import Place
from dreamer_async.machine.device import choose_precision


@dataclass(frozen=True)
class Arithmetic:
    """What one rank would compute with."""

    torch: str
    """Version."""
    device: str
    """cpu or cuda."""
    precision: str
    plain: str
    """Precision without native functions."""
    library: str
    """Of native functions; empty where it has none."""
    problem: str
    """Why it has none where it wants them; mostly empty."""

    @staticmethod
    def of(place: Place, train: TrainConfig) -> Arithmetic:
        """That of this process."""
        plain = choose_precision(train.precision, place.device, native=False)
        device, has = place.device.type, (place.precision, plain, place.library, place.problem)
        return Arithmetic(torch.__version__, device, *has)

    def encode(self) -> dict[str, Any]:
        """As a message has it."""
        return asdict(self)


def common(ranks: Mapping[int, Arithmetic]) -> str:
    """Why all ranks do without native functions; empty where each computes with what it has.

    Raises ConfigError where they cannot compute alike.
    """
    _same({rank: f"PyTorch {each.torch}" for rank, each in ranks.items()}, "install the same one")
    _same(
        {rank: f"a {each.device} device" for rank, each in ranks.items()},
        "--device cpu takes that of all",
    )
    reason = _lacking(ranks)
    precisions = {rank: each.plain if reason else each.precision for rank, each in ranks.items()}
    _same(
        {rank: f"precision {each}" for rank, each in precisions.items()},
        "-s train.precision=float32 works on all",
    )
    return reason


def _same(values: Mapping[int, str], remedy: str) -> None:
    for rank, value in values.items():
        if value != values[0]:
            raise ConfigError(
                f"ranks that learn as one have to compute alike: rank {rank} has {value}, rank 0 "
                f"has {values[0]}; {remedy}"
            )


def _lacking(ranks: Mapping[int, Arithmetic]) -> str:
    libraries = {rank: each.library for rank, each in ranks.items()}
    if len(set(libraries.values())) == 1:
        return ""
    if without := [rank for rank, library in libraries.items() if not library]:
        return f"rank {without[0]} has none: {ranks[without[0]].problem}"
    other = next(rank for rank, library in libraries.items() if library != libraries[0])
    its, ours = in_words(libraries[other]), in_words(libraries[0])
    why = f"{its}, not {ours}" if its != ours else "their processors or compilers differ"
    return f"rank {other} has others than rank 0 ({why})"
