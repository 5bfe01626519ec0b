"""What a run's GPU tells, and that no other one is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_run import make_run, read

from dreamer_async.machine.gpu import gpu_gauges
from dreamer_async.run import pipeline
from dreamer_async.store import events

CARDS = [torch.device("cuda", index) for index in range(2)]


class TwoCards:
    """Stands for torch.cuda with two cards, and notes which of them is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[object] = []
        self.trouble: Exception | None = None
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        for name in ("mem_get_info", "memory_allocated", "utilization"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        for name in ("init", "_lazy_init", "current_device", "current_stream", "set_device"):
            monkeypatch.setattr(torch.cuda, name, lambda *_, name=name: self.asked.append(name))

    def mem_get_info(self, device: torch.device | None = None) -> tuple[int, int]:
        self.asked.append(device)
        return (20 * 10**9, 80 * 10**9)

    def memory_allocated(self, device: torch.device | None = None) -> int:
        self.asked.append(device)
        return 12 * 10**9

    def utilization(self, device: torch.device | None = None) -> int:
        self.asked.append(device)
        if self.trouble is not None:
            raise self.trouble
        return 87


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> TwoCards:
    return TwoCards(monkeypatch)


@pytest.mark.parametrize("device", CARDS, ids=str)
def test_memory_of_the_runs_device_and_how_busy_it_is(
    cards: TwoCards, device: torch.device
) -> None:
    assert gpu_gauges(device) == {
        "gpu/memory_gb": 12.0,
        "gpu/used_gb": 60.0,
        "gpu/total_gb": 80.0,
        "gpu/percent": 87.0,
    }
    assert set(cards.asked) == {device}


@pytest.mark.parametrize("error", [ModuleNotFoundError, RuntimeError])
def test_a_driver_that_does_not_answer_is_left_out(cards: TwoCards, error: type[Exception]) -> None:
    cards.trouble = error("pynvml")
    values = gpu_gauges(CARDS[0])
    assert "gpu/percent" not in values and values["gpu/total_gb"] == 80.0


def test_a_run_on_the_cpu_asks_no_gpu(cards: TwoCards, tmp_path: Path) -> None:
    """Asking opens a context: memory that others need, and an exclusive GPU refuses."""
    run = make_run(tmp_path, "train.steps=60", "train.device=cpu")
    assert pipeline.main(run, plain=False, resume=False) == 0
    gauges = [event.values for event in read(run) if isinstance(event, events.Gauges)]
    assert gauges and not [name for values in gauges for name in values if name.startswith("gpu/")]
    assert cards.asked == []
