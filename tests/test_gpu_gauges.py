"""What the GPU tells, and what is said where it does not answer."""

from __future__ import annotations

import pytest
import torch

from dreamer_async.gpu import gpu_gauges


def pretend(monkeypatch: pytest.MonkeyPatch, utilization: object) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (20 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 12 * 10**9)
    monkeypatch.setattr(torch.cuda, "utilization", utilization)


def test_memory_and_how_busy_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, lambda: 87)
    assert gpu_gauges() == {
        "gpu/memory_gb": 12.0,
        "gpu/used_gb": 60.0,
        "gpu/total_gb": 80.0,
        "gpu/percent": 87.0,
    }


@pytest.mark.parametrize("error", [ModuleNotFoundError, RuntimeError])
def test_a_driver_that_does_not_answer_is_left_out(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail() -> int:
        raise error("pynvml")

    pretend(monkeypatch, fail)
    assert "gpu/percent" not in gpu_gauges() and gpu_gauges()["gpu/total_gb"] == 80.0


def test_nothing_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_gauges() == {}
