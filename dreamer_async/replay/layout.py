"""What a replay consists of: columns, sizes, batch buffers, and checks of the shapes given to it.

Legend: B rows of a batch, L window length with its context step, N rows of an add, D deter,
S stoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.replay.ring import PAGE, Field, FileSpec

NO_IDENTITY = "0" * 32
FLAGS = ("is_first", "is_last")
"""Columns that the replay itself reads."""

Array = NDArray[Any]
Indices = NDArray[np.int64]


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
        return self.field_bytes + 2 * self.deter + self.stoch

    @property
    def field_bytes(self) -> int:
        """Bytes of one step without its latents and any overhead."""
        return sum(f.nbytes for f in self.fields.values())

    def ring_file_spec(self, identity: str = NO_IDENTITY) -> FileSpec:
        """Describe the ring file."""
        size = (self.num_envs, self.capacity)
        arrays = {"cursors": Field((2, self.num_envs), "int64")}
        for name, item in self.fields.items():
            arrays[f"field/{name}"] = Field((*size, *item.shape), item.dtype)
        return FileSpec("replay ring", identity, *size, arrays)

    def latents_file_spec(self, identity: str = NO_IDENTITY) -> FileSpec:
        """Describe the latent file."""
        size = (self.num_envs, self.capacity)
        arrays = {
            "valid": Field(size, "uint8"),
            "deter": Field((*size, self.deter), "float16"),
            "stoch": Field((*size, self.stoch), "uint8"),
        }
        return FileSpec("replay latents", identity, *size, arrays)


def ring_bytes(spec: RingSpec) -> tuple[int, int]:
    """Sizes of the ring file and of the latent file."""
    return spec.ring_file_spec().offsets()[1], spec.latents_file_spec().offsets()[1]


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
            name: aligned((batch_size, spec.length, *item.shape), item.dtype)
            for name, item in spec.fields.items()
        }
        return cls(
            fields,
            aligned((batch_size, spec.deter), "float16"),
            aligned((batch_size, spec.stoch), "uint8"),
            aligned((batch_size,), "int32"),
            aligned((batch_size,), "int64"),
        )

    def annotate(self, lost: NDArray[np.bool_]) -> None:
        """Mark abandoned episodes, the forced first step, and resets for `lost` contexts [B]."""
        first, last = (self.fields[name] for name in FLAGS)
        np.logical_or(last[:, :-1], first[:, 1:], out=last[:, :-1])
        first[:, 0] = True
        first[lost, 1] = True


def aligned(shape: tuple[int, ...], dtype: str) -> Array:
    """Make an array of zeros that starts at a page."""
    kind = np.dtype(dtype)
    nbytes = math.prod(shape) * kind.itemsize
    raw = np.zeros(nbytes + PAGE, np.uint8)
    begin = -raw.ctypes.data % PAGE
    return raw[begin : begin + nbytes].view(kind).reshape(shape)


def spans(first: int, count: int, capacity: int) -> Iterator[tuple[slice, slice]]:
    """Cut `count` steps from `first` on into pieces that are contiguous in a ring.

    Yields (slots of the ring, positions among the steps).
    """
    done = 0
    while done < count:
        slot = (first + done) % capacity
        size = min(count - done, capacity - slot)
        yield slice(slot, slot + size), slice(done, done + size)
        done += size


def check_capacity(spec: RingSpec) -> None:
    """Refuse a ring too short for one window beside the step that is being added."""
    if spec.capacity <= spec.length:
        raise ValueError(
            f"a capacity of {spec.capacity} steps per environment holds no window of "
            f"{spec.length} while a step is added; give at least {spec.length + 1}"
        )


def check_rows(
    spec: RingSpec, env: Indices, fields: Mapping[str, Array], deter: Array, stoch: Array
) -> None:
    """Assert that an add has one row of the right shape for each of N different environments."""
    ids = env.tolist()  # a list this short is checked several times faster than an array
    rows = len(ids)
    assert rows == len(set(ids)), f"repeated environments: {env}"
    assert rows == 0 or (min(ids) >= 0 and max(ids) < spec.num_envs), env
    _check_fields(spec, fields, rows)
    check_latents(spec, deter, stoch, rows)


def check_piece(spec: RingSpec, fields: Mapping[str, Array]) -> int:
    """Assert that there are as many steps of the right shape in every column; how many."""
    steps = len(fields["is_first"])
    _check_fields(spec, fields, steps)
    return steps


def check_buffers(spec: RingSpec, out: SampleBuffers) -> None:
    """Assert that buffers were made for windows of this ring."""
    _check_fields(spec, out.fields, len(out.env), spec.length)
    check_latents(spec, out.deter, out.stoch, len(out.env))


def check_latents(spec: RingSpec, deter: Array, stoch: Array, *axes: int) -> None:
    """Assert the shapes [*axes, D] and [*axes, S], and the types that latents are stored in."""
    _check_array("deter", deter, (*axes, spec.deter), "float16")
    _check_array("stoch", stoch, (*axes, spec.stoch), "uint8")


def _check_fields(spec: RingSpec, fields: Mapping[str, Array], *axes: int) -> None:
    assert fields.keys() == spec.fields.keys(), (list(fields), list(spec.fields))
    for name, item in spec.fields.items():
        _check_array(name, fields[name], (*axes, *item.shape), item.dtype)


def _check_array(name: str, value: Array, shape: tuple[int, ...], dtype: str) -> None:
    assert value.shape == shape, f"{name} is {value.shape}, not {shape}"
    assert value.dtype == dtype, f"{name} is {value.dtype}, not {dtype}"
