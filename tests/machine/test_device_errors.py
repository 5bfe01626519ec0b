"""Which errors of torch are about a full memory or a broken device, and what people are told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_run import make_run

from dreamer_async.machine.device_errors import is_fatal, is_out_of_memory, raise_if_fatal
from dreamer_async.run.failures import describe, exit_code
from dreamer_async.run.learner import Diverged
from dreamer_async.store import exit_codes

CUDA_FULL = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of "
    "which 1.50 GiB is free. Including non-PyTorch memory, this process has 22.1 GiB memory in use."
)


def accelerator_error(text: str, code: int) -> torch.AcceleratorError:
    error = torch.AcceleratorError(text)
    error.error_code = code  # type: ignore[attr-defined]  as torch does
    return error


ILLEGAL = accelerator_error("CUDA error: an illegal memory access was encountered", 700)
CAPTURING = accelerator_error("CUDA error: operation not permitted when stream is capturing", 900)


@pytest.mark.parametrize(
    "error",
    [
        CUDA_FULL,
        MemoryError(),
        accelerator_error("CUDA error: out of memory", 2),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    ],
)
def test_a_full_memory_is_known_by_type_or_words(error: BaseException) -> None:
    assert is_out_of_memory(error) and is_fatal(error)
    assert exit_code(error) == exit_codes.MEMORY


@pytest.mark.parametrize(("error", "fatal"), [(ILLEGAL, True), (CAPTURING, False)])
def test_a_broken_device_is_fatal_and_a_refused_recording_is_not(
    error: BaseException, fatal: bool
) -> None:
    assert is_fatal(error) == fatal and not is_out_of_memory(error)
    assert exit_code(error) == exit_codes.UNEXPECTED


def test_what_a_compiler_wraps_is_found() -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    wrapped = BackendCompilerFailed(lambda: None, CUDA_FULL, None)
    outer = RuntimeError("cannot compile")
    outer.__cause__ = wrapped
    for error in (wrapped, outer):
        with pytest.raises(torch.OutOfMemoryError) as caught:
            raise_if_fatal(error)
        assert caught.value is CUDA_FULL


def test_what_only_cannot_be_compiled_or_recorded_is_let_through() -> None:
    """The control, a chain that runs in circles included."""
    circle = RuntimeError("no such compiler")
    circle.__cause__ = RuntimeError("g++: not found")
    circle.__cause__.__cause__ = circle
    for error in (circle, CAPTURING):
        raise_if_fatal(error)


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("error", [CUDA_FULL, Diverged("5 updates in a row were not finite")])
def test_a_checkpoint_stands_where_there_is_one(
    tmp_path: Path, error: Exception, saved: bool
) -> None:
    run = make_run(tmp_path)
    if saved:
        (run.checkpoints / "step-000000000100").mkdir(parents=True)
    text = describe(error, run)
    assert ("the last checkpoint is intact" in text) == saved
    assert ("no checkpoint has been saved yet" in text) == (not saved)


def test_running_out_of_memory_is_one_line_with_what_would_fit(tmp_path: Path) -> None:
    text = describe(CUDA_FULL, make_run(tmp_path))
    assert text == (
        "out of memory; no checkpoint has been saved yet. Try a smaller --size, or "
        "-s train.batch_size=N (CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a "
        "total capacity of 23.64 GiB of which 1.50 GiB is free)"
    )
    assert "checkpoint" not in describe(CUDA_FULL), "a command without a run has none"
