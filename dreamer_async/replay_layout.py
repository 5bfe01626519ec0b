"""What a replay consists of: columns, sizes, batch buffers, and the state a checkpoint keeps.

Legend: B rows of a batch, L window length with its context step, D deter, S stoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.ring import PAGE, Field, Schema
from dreamer_async.schema import shown

NO_IDENTITY = "0" * 32
FLAGS = ("is_first", "is_last")
"""Columns that the replay itself reads."""
STATE_KEYS = {"ring", "generation", "length", "heads", "rng", "queue", "counters"}
COUNTERS = ("sampled", "torn", "online_served", "online_dropped", "contexts_lost")
"""What a replay counts, see `Replay.stats`."""

Array = NDArray[Any]


@dataclass(frozen=True)
class RingSpec:
    """What the replay stores, and how much of it."""

    fields: Mapping[str, Field]
    """Every column: the observation keys, action, reward, is_first, is_last, is_terminal."""
    deter: int
    """Width of the deterministic latent, stored in half precision."""
    stoch: int
    """Categorical latent variables, stored as class indices."""
    num_envs: int
    """Environments, each with a ring of its own."""
    capacity: int
    """Steps per environment."""
    length: int
    """Steps of a window, with the context step in front."""

    def __post_init__(self) -> None:
        for name in ("deter", "stoch", "num_envs", "capacity"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.length < 2:
            raise ValueError(f"length must be at least 2, not {self.length}")
        for name in FLAGS:
            if name not in self.fields or self.fields[name].shape != ():
                raise ValueError(f"fields need a scalar {name}")

    @property
    def raw_bytes(self) -> int:
        """Bytes of one step without any overhead."""
        return sum(f.nbytes for f in self.fields.values()) + 2 * self.deter + self.stoch

    def ring_schema(self, identity: str = NO_IDENTITY) -> Schema:
        """Describe the ring file."""
        size = (self.num_envs, self.capacity)
        arrays = {"cursors": Field((2, self.num_envs), "int64")}
        for name, item in self.fields.items():
            arrays[f"field/{name}"] = Field((*size, *item.shape), item.dtype)
        return Schema("replay ring", identity, *size, arrays)

    def latents_schema(self, identity: str = NO_IDENTITY) -> Schema:
        """Describe the latent file."""
        size = (self.num_envs, self.capacity)
        arrays = {
            "valid": Field(size, "uint8"),
            "deter": Field((*size, self.deter), "float16"),
            "stoch": Field((*size, self.stoch), "uint8"),
        }
        return Schema("replay latents", identity, *size, arrays)


def ring_bytes(spec: RingSpec) -> tuple[int, int]:
    """Sizes of the ring file and of the latent file."""
    return spec.ring_schema().offsets()[1], spec.latents_schema().offsets()[1]


@dataclass
class SampleBuffers:
    """Where `Replay.sample` writes a batch; index 0 of the time axis is the context step."""

    fields: dict[str, Array]
    """{name: [B, L, *shape]}."""
    deter: NDArray[np.float16]
    """[B, D] latents of the context step."""
    stoch: NDArray[np.uint8]
    """[B, S] class indices of the context step."""
    env: NDArray[np.int32]
    """[B] environment of each row."""
    start: NDArray[np.int64]
    """[B] step of index 0, counted over the life of the ring."""
    generation: int = -1
    """Which writer's ring the rows come from; `write_latents` wants it back."""

    @classmethod
    def allocate(cls, spec: RingSpec, batch_size: int) -> SampleBuffers:
        """Make page aligned buffers: copies into others can take three times as long."""
        fields = {
            name: _aligned((batch_size, spec.length, *item.shape), item.dtype)
            for name, item in spec.fields.items()
        }
        return cls(
            fields,
            _aligned((batch_size, spec.deter), "float16"),
            _aligned((batch_size, spec.stoch), "uint8"),
            _aligned((batch_size,), "int32"),
            _aligned((batch_size,), "int64"),
        )


def _aligned(shape: tuple[int, ...], dtype: str) -> Array:
    """Make an array of zeros that starts at a page."""
    kind = np.dtype(dtype)
    nbytes = math.prod(shape) * kind.itemsize
    raw = np.zeros(nbytes + PAGE, np.uint8)
    begin = -raw.ctypes.data % PAGE
    return raw[begin : begin + nbytes].view(kind).reshape(shape)


def check_capacity(spec: RingSpec) -> None:
    """Refuse a ring too short for one window beside the step that is being added."""
    if spec.capacity <= spec.length:
        raise ValueError(
            f"a capacity of {spec.capacity} steps per environment holds no window of "
            f"{spec.length} while a step is added; give at least {spec.length + 1}"
        )


def parse_state(state: Mapping[str, Any], num_envs: int | None) -> dict[str, Any]:
    """Check what `Replay.state` made and a file has kept; raises ValueError naming the fault.

    The environments are checked against `num_envs` where the state belongs to this ring.
    """
    if not isinstance(state, Mapping) or state.keys() != STATE_KEYS:
        raise ValueError(f"replay state has {shown(state)}, not {sorted(STATE_KEYS)}")
    try:
        np.random.default_rng().bit_generator.state = state["rng"]
        queue = [[int(env), int(start)] for env, start in state["queue"]]
        heads = [int(head) for head in state["heads"]]
        counters = {name: int(state["counters"][name]) for name in COUNTERS}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"replay state is damaged: {error!r}") from error
    foreign = num_envs is not None and any(not 0 <= env < num_envs for env, _ in queue)
    if foreign or len(heads) != (num_envs or len(heads)):
        raise ValueError(f"replay state is not of {num_envs} environments")
    return {**state, "queue": queue, "heads": heads, "counters": counters}
