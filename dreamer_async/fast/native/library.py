"""The native functions (`src/*.cpp`), and what they are called with.

They compute in float32 what PyTorch would, up to rounding. Inside `bfloat16_kernels` the kernels of
dense layers are packed as bfloat16, and what they are multiplied with is rounded to it, too.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from dreamer_async.fast.native.load import load
from dreamer_async.machine.device import TILES
from dreamer_async.machine.process import processor_flags

P = ParamSpec("P")
T = TypeVar("T")
LEAST_NUMBERS = 1 << 15
"""Work on fewer numbers is not worth a second thread."""
TILE = 32
"""What the rows of a kernel of bfloat16 are filled up to a multiple of: those of a tile of AMX."""


def functions() -> ctypes.CDLL:
    """The library; whoever calls it has one (see `load`)."""
    found = load()
    assert found.library is not None, found.problem
    return found.library


def is_float32(*tensors: Tensor) -> bool:
    """Whether native functions can take these tensors."""
    return all(tensor.dtype == torch.float32 for tensor in tensors)


def threads(numbers: int) -> int:
    """How many threads may share work on so many numbers."""
    return torch.get_num_threads() if numbers >= LEAST_NUMBERS else 1


@cache
def permits_bfloat16() -> bool:
    """Whether this library can multiply bfloat16, as old compilers cannot; the processor must.

    It does so in tiles where the processor has them and the system permits them.
    """
    return bool(functions().permit_bfloat16(processor_flags() >= TILES))


class _Packing(threading.local):
    """How a thread packs kernels."""

    bfloat16 = False


_packing = _Packing()


@contextmanager
def bfloat16_kernels(wanted: bool = True) -> Iterator[None]:
    """Let this thread pack kernels as bfloat16, where `permits_bfloat16`."""
    assert not wanted or permits_bfloat16()
    before, _packing.bfloat16 = _packing.bfloat16, wanted
    try:
        yield
    finally:
        _packing.bfloat16 = before


def in_bfloat16(function: Callable[P, T]) -> Callable[P, T]:
    """A function inside `bfloat16_kernels`."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with bfloat16_kernels():
            return function(*args, **kwargs)

    return call


def packs_bfloat16() -> bool:
    """Whether `pack` would, in this thread."""
    return _packing.bfloat16


def pack(kernel: Tensor) -> Tensor:
    """Lay kernels [..., in, out] out as products read them: [..., out / panel, in, panel].

    Where they become bfloat16, `in` is filled up to whole tiles, and their order is that of
    `src/bfloat16.h`. A parameter remembers the result until it changes.
    """
    return remember(kernel, "packed_bfloat16" if packs_bfloat16() else "packed", _pack)


def remember(kernel: Tensor, name: str, make: Callable[[Tensor], Tensor]) -> Tensor:
    """make(kernel), which a parameter remembers by a name until it changes."""
    if not isinstance(kernel, nn.Parameter):
        return make(kernel.detach())
    version, made = getattr(kernel, name, (None, None))
    if made is None or version != kernel._version:
        made = make(kernel.detach())
        setattr(kernel, name, (kernel._version, made))
    return made


def _pack(kernel: Tensor) -> Tensor:
    count = kernel.shape[:-2].numel()
    rows, columns = kernel.shape[-2:]
    flat = kernel if kernel.ndim == 3 else kernel.reshape(count, rows, columns)
    panel = functions().panel_width()
    dtype, deep = (torch.bfloat16, rows + -rows % TILE) if packs_bfloat16() else (None, rows)
    packed = kernel.new_empty(
        *kernel.shape[:-2], padded(columns) // panel, deep, panel, dtype=dtype
    )
    functions().pack_kernels(
        packs_bfloat16(), count, rows, columns, pointer(flat), *flat.stride(), pointer(packed)
    )  # fmt: skip
    return packed


def padded(width: int) -> int:
    """A width filled up to whole panels."""
    return width + -width % functions().panel_width()


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where a tensor begins; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def floats(tensor: Tensor | None) -> int | None:
    """Address of a contiguous float32 tensor for a field of a structure; null for None."""
    if tensor is None:
        return None
    assert tensor.is_contiguous() and tensor.dtype == torch.float32, (tensor.shape, tensor.dtype)
    return tensor.data_ptr()


def kernels(packed: Tensor | None) -> int | None:
    """Address of packed kernels for a field of a structure; null for None."""
    if packed is None or packed.dtype == torch.float32:
        return floats(packed)
    assert packed.is_contiguous() and packed.dtype == torch.bfloat16, (packed.shape, packed.dtype)
    return packed.data_ptr()


def split_noise(noise: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Uniform numbers or, where they are integers, chosen classes."""
    if noise.dtype.is_floating_point:
        return noise.float().contiguous(), None
    return None, noise.long().contiguous()


def address(tensor: Tensor | None) -> int | None:
    """Of a contiguous tensor of whatever type the kernel expects there; null for None."""
    assert tensor is None or tensor.is_contiguous()
    return None if tensor is None else tensor.data_ptr()
