"""An update is a fixed list of operations on fixed buffers, as a CUDA graph demands.

Without a GPU the list is recorded below autograd and run again on new inputs; the gpu tests
record a real graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from agent_cases import IMAGE, MIXED, VECTOR, make_batch, make_config, make_spec
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dreamer_async.agent import Batch, Noise, Trainer
from dreamer_async.agent.trainer import Update
from dreamer_async.envs.spec import EnvSpec, ObsSpec
from dreamer_async.fast.cuda.backend import CUDA
from dreamer_async.fast.cuda.capture import WARM_UPS, cuda_graph
from dreamer_async.fast.cuda.updates import Updates
from dreamer_async.machine.device import set_arithmetic

READS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero"}
"""Operations whose result the host waits for."""


class Tape(TorchDispatchMode):
    """Every operation of some work, backward included, with its inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(_tensors(out), _tensors(again), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    def reads(self) -> set[str]:
        return {func.name().split(".")[0] for func, *_ in self.calls} & READS


def _tensors(out: Any) -> list[Tensor]:
    parts = out if isinstance(out, tuple | list) else [out]
    return [part for part in parts if isinstance(part, Tensor)]


def tape(work: Callable[[], object]) -> Tape:
    recorded = Tape()
    with recorded:
        work()
    return recorded


def record(work: Callable[[], None]) -> Callable[[], None]:
    return tape(work).replay


def inputs(trainer: Trainer, seed: int) -> tuple[Batch, Noise]:
    generator = torch.Generator().manual_seed(seed)
    return make_batch(trainer.spec, trainer.config, seed), trainer.draw_noise(generator)


def make_trainer(spec: EnvSpec, precision: str = "float32", device: str = "cpu") -> Trainer:
    return Trainer(spec, make_config(lr=1e-3, warmup=0), device, precision, CUDA)


def pair(spec: EnvSpec, precision: str = "float32") -> tuple[Trainer, Updates]:
    """An eager trainer and a captured one, in the same state."""
    eager, captured = make_trainer(spec, precision), Updates(make_trainer(spec, precision))
    captured.capture(*inputs(captured.trainer, 99), record)
    captured.trainer.load_state_dict(eager.state_dict())
    return eager, captured


def assert_same(one: Trainer, two: Updates) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.trainer.state_dict()[name]), name


@pytest.mark.parametrize("obs", [VECTOR, MIXED], ids=["vector", "mixed"])
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_replaying_is_updating(obs: dict[str, ObsSpec], kind: str) -> None:
    eager, captured = pair(make_spec(obs, kind))
    for seed in range(3):
        one, two = (update(*inputs(eager, seed)) for update in (eager.update, captured))
        assert_same(eager, captured)
        torch.testing.assert_close(two, one, rtol=0, atol=0)


def test_bfloat16_is_captured_too() -> None:
    eager, captured = pair(make_spec(IMAGE), "bfloat16")
    for update in (eager.update, captured):
        update(*inputs(eager, 1))
    assert_same(eager, captured)


def test_a_captured_update_skips_what_is_not_finite() -> None:
    eager, captured = pair(make_spec())
    batch, noise = inputs(eager, 0)
    update = captured(batch._replace(reward=batch.reward * torch.nan), noise)
    assert not update.finite
    assert_same(eager, captured)
    assert captured(batch, noise).finite, "and goes on"


def test_results_outlive_the_next_update() -> None:
    eager, captured = pair(make_spec())
    first = captured(*inputs(eager, 0))
    loss, deter = first.metrics["loss/total"].clone(), first.deter.clone()
    second = captured(*inputs(eager, 1))
    assert torch.equal(first.metrics["loss/total"], loss) and torch.equal(first.deter, deter)
    assert not torch.equal(second.deter, deter), "there is something to overwrite"


def test_the_host_never_waits_for_an_update() -> None:
    trainer = make_trainer(make_spec(MIXED))
    batch, noise = inputs(trainer, 0)
    assert not tape(lambda: trainer.update(batch, noise)).reads()


def test_forced_noise_is_refused_instead_of_cast() -> None:
    eager, captured = pair(make_spec())
    batch, noise = inputs(eager, 0)
    with pytest.raises(AssertionError):
        captured(batch, noise._replace(posterior=(noise.posterior * 4).long()))


def test_control_a_branch_on_a_tensor_is_caught() -> None:
    """Negative control: such an update replays the wrong branch, and reads on the host."""
    x = torch.ones(3)
    y = torch.zeros(3)

    def branch() -> None:
        y.copy_(x * 2 if x.sum() > 0 else x * 3)

    recorded = tape(branch)
    assert recorded.reads()
    x.fill_(-1.0)
    recorded.replay()
    assert torch.equal(y, x * 2), "the tape only repeats what it saw"


class FakeCuda:
    """Stands for torch.cuda while something is recorded; logs what happens on which stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.device: torch.device | None = None
        self.devices: list[torch.device | None] = []
        """The current device in each call of the work."""
        self.current = self.learning = self.make("learning", -1)
        for name in ("stream", "graph", "set_stream", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "device", self.on_device)
        monkeypatch.setattr(torch.cuda, "Stream", lambda priority: self.make("side", priority))
        replay = SimpleNamespace(replay=lambda: self.log.append("replay"))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: replay)

    def make(self, name: str, priority: int) -> SimpleNamespace:
        wait = lambda other: self.log.append(f"{name} waits for {other.name}")  # noqa: E731
        return SimpleNamespace(name=name, priority=priority, wait_stream=wait)

    def current_stream(self) -> SimpleNamespace:
        return self.current

    def set_stream(self, stream: SimpleNamespace) -> None:
        self.current = stream

    @contextmanager
    def on_device(self, device: torch.device | None) -> Iterator[None]:
        before, self.device = self.device, device
        yield
        self.device = before

    @contextmanager
    def stream(self, stream: SimpleNamespace) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextmanager
    def graph(self, graph: Any, stream: SimpleNamespace, capture_error_mode: str) -> Iterator[None]:
        """As in torch: where ending the recording fails, the stream is not put back."""
        before, self.current = self.current, stream
        assert stream.priority == before.priority, "kernels keep the priority of the recording"
        self.log.append(f"record {capture_error_mode}")
        failed = True
        try:
            yield
            failed = False
        finally:
            if failed:
                raise RuntimeError("the recording failed before")
        self.current = before

    def work(self) -> None:
        self.log.append(f"work on {self.current.name}")
        self.devices.append(self.device)


def test_recording_follows_warm_ups_on_the_same_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    replay = cuda_graph(cuda.work)
    replay()
    assert cuda.log == [
        "side waits for learning",
        *["work on side"] * WARM_UPS,
        "record thread_local",
        "work on side",
        "learning waits for side",
        "replay",
    ]
    assert cuda.current is cuda.learning


def test_a_failed_recording_says_why_and_leaves_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)

    def work() -> None:
        cuda.work()
        if "record thread_local" in cuda.log:
            raise RuntimeError("waits for the device")

    with pytest.raises(RuntimeError, match="waits for the device"):
        cuda_graph(work)
    assert cuda.current is cuda.learning


def test_a_recording_that_runs_out_of_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that the recording, which then cannot be ended, failed before."""
    cuda = FakeCuda(monkeypatch)

    def work() -> None:
        if "record thread_local" in cuda.log:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        cuda_graph(work)


def test_an_update_is_recorded_on_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the current one is, on which streams, graphs and their memory would be made."""
    cuda = FakeCuda(monkeypatch)
    trainer = make_trainer(make_spec())
    batch, noise = inputs(trainer, 0)
    trainer.device = torch.device("cuda", 1)
    zero = torch.zeros(())

    def update(*_: object) -> Update:
        cuda.work()
        return Update({"loss/total": zero}, zero, zero, zero)

    monkeypatch.setattr(trainer, "update", update)
    Updates(trainer).capture(batch, noise)
    assert cuda.devices and set(cuda.devices) == {torch.device("cuda", 1)}
    assert cuda.device is None, "and the current one is what it was"


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_cuda_graph_is_the_update(compiled: bool) -> None:
    spec = make_spec(MIXED)
    set_arithmetic(torch.device("cuda"), "float32")
    plain, captured = (Updates(make_trainer(spec, device="cuda")) for _ in range(2))
    if compiled:
        plain.compile()
        captured.compile()
    captured.capture(*on_cuda(captured.trainer, 99))
    captured.trainer.load_state_dict(plain.trainer.state_dict())
    for seed in range(3):
        one, two = (update(*on_cuda(plain.trainer, seed)) for update in (plain, captured))
        for name, value in one.metrics.items():
            torch.testing.assert_close(two.metrics[name], value, rtol=1e-3, atol=1e-4)
        assert torch.equal(one.stoch, two.stoch)


def on_cuda(trainer: Trainer, seed: int) -> tuple[Batch, Noise]:
    batch, noise = inputs(trainer, seed)
    return batch.map(lambda tensor: tensor.cuda()), noise
