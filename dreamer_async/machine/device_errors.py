"""Which errors of torch mean that memory is full, or that the device is of no use any more."""

from __future__ import annotations

from collections.abc import Iterator

import torch

FULL = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What torch and its libraries say about memory in errors that have no type of their own."""
RECORDING = range(900, 909)
"""Errors of CUDA about a recording (`cudaErrorStreamCapture...`), which leave the device well."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether some memory is full, of the device or of the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in FULL)


def is_fatal(error: BaseException) -> bool:
    """Whether doing the same in another way would fail, too: no memory, or a broken device."""
    if isinstance(error, torch.AcceleratorError):
        return getattr(error, "error_code", None) not in RECORDING
    return is_out_of_memory(error)


def raise_if_fatal(error: BaseException) -> None:
    """Raise what is fatal of an error and its causes; compilers wrap what happens to them."""
    for each in _causes(error):
        if is_fatal(each):
            raise each


def first_line(error: BaseException) -> str:
    """What an error says, without the advice and the traces that torch appends."""
    return str(error).strip().partition("\n")[0]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "inner_exception", None) or error.__cause__
