"""Devices by name, precision, and CPU threads that belong to one thread of the trainer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from dreamer_async.config import resolve
from dreamer_async.machine import device
from dreamer_async.machine.device import choose_device, cpu_threads, use_cpu_threads


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Pretend that there are so many CUDA devices."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cuda", 2, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
        ("cpu", 2, "cpu"),
    ],
)
def test_a_cuda_device_has_its_number(
    cards: Callable[[int], None], name: str, count: int, expected: str
) -> None:
    """Without it `torch.cuda.set_device` refuses the device."""
    cards(count)
    assert str(choose_device(name)) == expected


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("cuda", 0, "no usable CUDA device; try --device cpu"),
        ("cuda:1", 0, "no usable CUDA device"),
        ("cuda:2", 2, "device cuda:2: there are only cuda:0 to cuda:1"),
        ("cuda:256", 2, "device cuda:256: there are only cuda:0 to cuda:1"),
        ("cuda:1", 1, "device cuda:1: there is only cuda:0$"),
        ("mps", 2, "device mps: there are only auto, cpu, cuda and cuda:N"),
        ("nope", 2, "device nope: there are only"),
        ("cuda:x", 2, "device cuda:x: there are only"),
    ],
)
def test_a_device_that_is_not_there_is_refused_in_one_line(
    cards: Callable[[int], None], name: str, count: int, message: str
) -> None:
    cards(count)
    with pytest.raises(ValueError, match=message) as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


def counts(use: Callable[[int], object]) -> dict[int, int]:
    """Threads that ask for 1, 2 and 3 CPU threads, before any of them computes, and get these."""
    got: dict[int, int] = {}
    together = threading.Barrier(3)

    def work(wanted: int) -> None:
        use(wanted)
        together.wait()
        got[wanted] = torch.get_num_threads()

    threads = [threading.Thread(target=work, args=(wanted,)) for wanted in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_every_thread_computes_with_its_own_count() -> None:
    assert counts(use_cpu_threads) == {1: 1, 2: 2, 3: 3}


def test_setting_a_count_alone_is_lost_to_the_thread_that_sets_last() -> None:
    """The control, and the reason for asking first."""
    assert len(set(counts(torch.set_num_threads).values())) == 1


@pytest.mark.parametrize(
    ("size", "asked", "cores", "native", "expected"),
    [
        ("toy", 0, 4, "true", 4),
        ("toy", 0, 4, "false", 1),
        ("size1m", 0, 4, "false", 4),
        ("size12m", 0, 64, "true", 8),
        ("toy", 3, 4, "false", 3),
    ],
)
def test_narrow_networks_learn_on_one_core_with_pytorch_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, size: str, asked: int, cores: int, native: str, expected: int
) -> None:
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: set(range(cores)))
    overrides = [f"train.threads={asked}", f"train.native={native}"]
    config = resolve("toy", "seek", size=size, overrides=overrides)
    assert cpu_threads(config) == expected


@pytest.mark.parametrize(
    ("name", "kind", "native", "flags", "expected"),
    [
        ("auto", "cuda:1", True, {"avx2"}, "bfloat16"),
        ("auto", "cuda:0", True, {"avx2"}, "float32"),
        ("bfloat16", "cuda:0", True, {"avx2"}, "bfloat16"),
        ("auto", "cpu", True, {"avx512_bf16", "amx_bf16"}, "float32"),
        ("auto", "cpu", False, {"avx512_bf16"}, "mixed"),
        ("auto", "cpu", False, {"avx2"}, "float32"),
        ("mixed", "cpu", True, {"avx2"}, "mixed"),
        ("bfloat16-dense", "cpu", True, device.PAIRS, "bfloat16-dense"),
    ],
)
def test_precision_is_what_is_fastest_unless_it_is_given(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: str, native: bool, flags: set[str],
    expected: str,
) -> None:  # fmt: skip
    only_the_second_card_has_bfloat16(monkeypatch)
    monkeypatch.setattr(device, "processor_flags", lambda: frozenset(flags))
    assert device.choose_precision(name, torch.device(kind), native=native) == expected


@pytest.mark.parametrize(
    ("kind", "native", "flags", "why"),
    [
        ("cuda:0", True, device.PAIRS, "is for CPUs"),
        ("cpu", True, {"avx2"}, "this processor does not multiply bfloat16"),
        ("cpu", False, device.PAIRS, "takes native functions"),
    ],
)
def test_dense_layers_are_float32_where_the_processor_has_no_bfloat16(
    monkeypatch: pytest.MonkeyPatch, kind: str, native: bool, flags: set[str], why: str
) -> None:
    monkeypatch.setattr(device, "processor_flags", lambda: frozenset(flags))
    assert device.choose_precision("bfloat16-dense", torch.device(kind), native=native) == "float32"
    assert why in device.lacks_bfloat16(torch.device(kind), native=native)


@pytest.mark.parametrize(
    ("kind", "precision", "said"),
    [
        ("cuda:0", "bfloat16", True),
        ("cuda:0", "mixed", True),
        ("cuda:0", "float32", False),
        ("cuda:1", "bfloat16", False),
        ("cpu", "bfloat16", False),
    ],
)
def test_a_precision_that_the_gpu_emulates_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, kind: str, precision: str, said: bool
) -> None:
    only_the_second_card_has_bfloat16(monkeypatch)
    text = device.emulates(torch.device(kind), precision)
    assert bool(text) == said
    assert not said or ("Tesla T4 0" in text and precision in text and "\n" not in text)


def only_the_second_card_has_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A T4 and an A100."""
    capability = {0: (7, 5), 1: (8, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda which: capability[which.index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda which: f"Tesla T4 {which.index}")


@pytest.mark.parametrize("precision", ["float32", "mixed", "bfloat16"])
@pytest.mark.parametrize("repeatable", [True, False])
def test_float32_on_a_gpu_is_float32(precision: str, repeatable: bool) -> None:
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=True, allow_tf32=True):
        device.set_arithmetic(torch.device("cpu"), "float32", repeatable=True)
        assert cudnn.allow_tf32 and not cudnn.deterministic, "none of a CPU's business"
        device.set_arithmetic(torch.device("cuda"), precision, repeatable=repeatable)
        assert cudnn.allow_tf32 == (precision != "float32")
        assert (cudnn.deterministic, cudnn.benchmark) == (repeatable, not repeatable)
