"""The native functions (`src/*.cpp`), and what they are called with.

They compute in float32 what PyTorch would, up to rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dreamer_async.fast.native.load import load

LEAST_NUMBERS = 1 << 15
"""Work on fewer numbers is not worth a second thread."""


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


def pack(kernel: Tensor) -> Tensor:
    """Lay kernels [..., in, out] out as products read them: [..., out / panel, in, panel].

    A parameter remembers the result until it changes.
    """
    return remember(kernel, "packed", _pack)


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
    packed = kernel.new_empty(*kernel.shape[:-2], padded(columns) // panel, rows, panel)
    functions().pack_kernels(
        count, rows, columns, pointer(flat), *flat.stride(), pointer(packed)
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


def split_noise(noise: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Uniform numbers or, where they are integers, chosen classes."""
    if noise.dtype.is_floating_point:
        return noise.float().contiguous(), None
    return None, noise.long().contiguous()


def address(tensor: Tensor | None) -> int | None:
    """Of a contiguous tensor of whatever type the kernel expects there; null for None."""
    assert tensor is None or tensor.is_contiguous()
    return None if tensor is None else tensor.data_ptr()
