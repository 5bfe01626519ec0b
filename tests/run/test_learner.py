"""The learner's small parts: metric means, warm-up, staging."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn

import numpy as np
import pytest
import torch
from tiny_run import TINY

from dreamer_async import envs
from dreamer_async.agent.backend import PYTORCH
from dreamer_async.agent.rssm import RSSM
from dreamer_async.agent.trainer import Update
from dreamer_async.config import Config, resolve
from dreamer_async.fast.cuda import fused, scan, updates
from dreamer_async.fast.cuda.backend import CUDA
from dreamer_async.fast.cuda.unfit import Unfit
from dreamer_async.fast.cuda.updates import Updates
from dreamer_async.fast.place import Place
from dreamer_async.replay.setup import open_replay
from dreamer_async.run.learner import Learner, MetricMeans, _Pending
from dreamer_async.run.staging import Results, Staging
from dreamer_async.run.telemetry import Stages
from dreamer_async.store.run_dir import RunDir


def finite(flag: bool) -> torch.Tensor:
    return torch.tensor(flag)


def test_means_leave_out_what_was_not_finite() -> None:
    means = MetricMeans()
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(10.0)}, finite(True))
    means.add({"a": torch.tensor(float("nan")), "b": torch.tensor(0.0)}, finite(False))
    means.add({"a": torch.tensor(3.0), "b": torch.tensor(20.0)}, finite(True))
    assert means.take() == {"a": 2.0, "b": 15.0}
    assert means.take() is None


def test_the_share_of_finite_updates_is_of_all_of_them() -> None:
    means = MetricMeans()
    for fine in (True, False, True, True):
        means.add({"opt/finite": torch.tensor(float(fine))}, finite(fine))
    assert means.take() == {"opt/finite": 0.75}
    means.add({"opt/finite": torch.tensor(1.0)}, finite(True))
    assert means.take() == {"opt/finite": 1.0}, "since the last report"


def test_nothing_finite_means_no_report() -> None:
    means = MetricMeans()
    means.add({"a": torch.tensor(float("inf"))}, finite(False))
    assert means.take() is None


CPU = Place(torch.device("cpu"), "float32", PYTORCH)
GPU = CPU._replace(backend=CUDA)
"""What a GPU computes with, on a CPU."""


def make_learner(tmp_path: Path, place: Place = CPU, **changes: str) -> tuple[Learner, Config]:
    overrides = [f"{k}={v}" for k, v in changes.items()]
    config = resolve("toy", "catch", size="tiny", overrides=(*TINY, *overrides))
    run = RunDir.create(tmp_path, "toy")
    spec = envs.spec("toy", "catch")
    replay = open_replay(config, spec, run, resume=False)
    return Learner(spec, config, replay, place), config


def uncompiled(tmp_path: Path, **changes: str) -> tuple[Learner, Updates]:
    """A learner as on a GPU, whose compiler leaves all as it is, and which records nothing."""
    learner, _ = make_learner(
        tmp_path, GPU, **{"train.compile": "true", "train.capture": "false", **changes}
    )
    assert learner.accelerated is not None
    learner.accelerated.compile = lambda backend="": None
    return learner, learner.accelerated


def test_warming_up_changes_no_state(tmp_path: Path) -> None:
    learner, _ = uncompiled(tmp_path)
    before = {n: t.clone() for n, t in learner.trainer.state_dict().items()}
    generator = learner.state()["learner/generator"].clone()
    learner.warm_up()
    after = learner.trainer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(generator, learner.state()["learner/generator"])
    assert learner.updates == 0


def test_what_does_not_compile_trains_uncompiled(tmp_path: Path) -> None:
    learner, accelerated = uncompiled(tmp_path)
    trainer = learner.trainer

    def broken(*inputs: object) -> NoReturn:
        raise RuntimeError("no such compiler\nand a long story")

    def compile_broken(backend: str = "") -> None:
        trainer.regions = trainer.regions._replace(world_model_losses=broken)

    accelerated.compile = compile_broken
    before = {n: t.clone() for n, t in trainer.state_dict().items()}
    problem = learner.warm_up()
    assert "no such compiler" in problem and "story" not in problem
    assert all(torch.equal(before[name], t) for name, t in trainer.state_dict().items())
    assert learner.warm_up() and learner.update(
        learner._staging[0].batch(), trainer.draw_noise(torch.Generator())
    ), "and goes on"


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("error", [FULL, torch.AcceleratorError("CUDA error: ECC")])
@pytest.mark.parametrize("phase", ["compile", "capture"])
def test_a_warm_up_without_memory_or_device_is_not_one_that_cannot_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, error: Exception
) -> None:
    """Eager updates, which take more memory, would fail later."""
    learner, accelerated = uncompiled(tmp_path, **{"train.capture": "true"})
    trainer = learner.trainer
    before = {n: t.clone() for n, t in trainer.state_dict().items()}
    update = trainer.update

    def spoil(*inputs: Any) -> Update:
        update(*inputs)
        raise error

    def compile_(backend: str = "") -> None:
        if phase == "compile":
            monkeypatch.setattr(trainer, "update", spoil)

    monkeypatch.setattr(accelerated, "compile", compile_)
    monkeypatch.setattr(accelerated, "capture", spoil)
    with pytest.raises(type(error)) as caught:
        learner.warm_up()
    assert caught.value is error
    assert all(torch.equal(before[name], t) for name, t in trainer.state_dict().items())


@pytest.mark.parametrize("late", [False, True], ids=["at once", "by the kernel"])
def test_what_cannot_be_fused_trains_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    learner, _ = uncompiled(tmp_path, **{"train.fused_filtering": "true"})
    trainer = learner.trainer

    def refuse(*inputs: object) -> NoReturn:
        raise Unfit("out of shared memory")

    def filtering(dyn: RSSM, dtype: torch.dtype) -> scan.Loops:
        return scan.Loops(refuse, refuse) if late else refuse()

    monkeypatch.setattr(fused, "filtering", filtering)
    before = {n: t.clone() for n, t in trainer.state_dict().items()}
    assert learner.warm_up() == "filtering is not fused: out of shared memory"
    assert all(torch.equal(before[name], t) for name, t in trainer.state_dict().items())
    noise = trainer.draw_noise(torch.Generator())
    assert learner.update(learner._staging[0].batch(), noise), "and goes on"


@pytest.mark.parametrize("late", [False, True], ids=["at once", "by the kernel"])
def test_what_cannot_imagine_at_once_imagines_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    learner, _ = uncompiled(tmp_path, **{"train.fused_imagination": "true"})

    def refuse(*inputs: object) -> NoReturn:
        raise Unfit("out of shared memory")

    def imagination(agent: object) -> object:
        return SimpleNamespace(imagine=refuse) if late else refuse()

    monkeypatch.setattr(fused, "imagination", imagination)
    before = {n: t.clone() for n, t in learner.trainer.state_dict().items()}
    assert learner.warm_up() == "imagination is not fused: out of shared memory"
    assert all(torch.equal(before[name], t) for name, t in learner.trainer.state_dict().items())
    noise = learner.trainer.draw_noise(torch.Generator())
    assert learner.update(learner._staging[0].batch(), noise), "and goes on"


def test_an_old_inductor_launches_as_it_always_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, _ = uncompiled(tmp_path, **{"train.dependent_launch": "true"})
    assert learner.warm_up() == ""
    monkeypatch.setattr(updates, "launches_dependently", lambda: False)
    assert "no triton.enable_pdl" in learner.warm_up()


def test_only_narrow_models_are_filtered_in_one_kernel() -> None:
    narrow, wide = (resolve("toy", "catch", size=size).model for size in ("size1m", "size12m"))
    assert fused.narrow(narrow, torch.float32) and fused.narrow(narrow, torch.bfloat16)
    assert not fused.narrow(wide, torch.bfloat16)


def test_other_layers_are_filtered_one_step_after_the_other() -> None:
    config = replace(resolve("toy", "catch", size="tiny").model, dyn_layers=2)
    with pytest.raises(Unfit, match="one layer in front of the GRU"):
        fused.filtering(RSSM(config, embed=8, action=3), torch.float32)


def test_fusing_without_triton_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "dreamer_async.fast.cuda.filtering", raising=False)
    monkeypatch.delattr("dreamer_async.fast.cuda.filtering", raising=False)
    config = resolve("toy", "catch", size="tiny").model
    with pytest.raises(Unfit, match="Triton comes with PyTorch for CUDA"):
        fused.filtering(RSSM(config, embed=8, action=3), torch.float32)


class Stream:
    """Stands for a CUDA stream; everything that happens goes into one list."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: Stream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


class Event:
    """Stands for a CUDA event on the stream of copies."""

    log: ClassVar[list[str]] = []
    made = 0

    def __init__(self, blocking: bool = False) -> None:
        Event.made += 1
        self.number = Event.made

    def record(self) -> None:
        self.log.append(f"event {self.number}")

    def synchronize(self) -> None:
        self.log.append(f"host waits for event {self.number}")


def test_results_are_waited_for_without_the_next_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each update's results are copied behind it alone, however much is queued after."""
    learner, _ = make_learner(tmp_path)
    log = Event.log = []
    Event.made = 0
    learning, copies = Stream("learning", log), Stream("copies", log)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: learning)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    updates = [
        Update({}, torch.full((1, 1), float(k)).half(), torch.zeros(1, 1).byte(), finite(k > 0))
        for k in range(2)
    ]
    for staging, update in zip(learner._staging, updates, strict=True):
        staging._copies = copies  # type: ignore[assignment]
        staging.take_back(update)
    first, second = (staging.results() for staging in learner._staging)
    assert log == [
        *("copies waits for learning", "event 1", "copies waits for learning", "event 2"),
        *("host waits for event 1", "host waits for event 2"),
    ]
    assert (first.finite, second.finite) == (False, True)
    assert first.deter == 0.0 and second.deter == 1.0


def test_waiting_for_a_gpu_is_a_stage_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, _ = make_learner(tmp_path)
    now = [0.0]
    learner.stages = Stages(lambda: now[0])

    def arrives_late(staging: Staging) -> Results:
        now[0] += 3.0
        return Results(False, np.zeros(1, np.float16), np.zeros(1, np.uint8))

    monkeypatch.setattr(Staging, "results", arrives_late)
    update = Update({"a": torch.zeros(())}, torch.zeros(1), torch.zeros(1), finite(False))
    for on_gpu, stages in ((False, {}), (True, {"gpu_wait": 3.0})):
        learner._on_gpu = on_gpu
        none = np.zeros(1, np.int64)
        learner._pending = _Pending(update, learner._staging[0], none, none, 0)
        learner.settle()
        assert learner.stages.totals() == stages


class Pinned:
    """Logs copies of a tensor that seems to be on a GPU."""

    is_cuda = True

    def __init__(self, tensor: torch.Tensor) -> None:
        self.shape, self.dtype, self.tensor = tensor.shape, tensor.dtype, tensor

    def detach(self) -> torch.Tensor:
        return self.tensor


def test_a_checkpoint_of_a_gpu_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, _ = make_learner(tmp_path)
    own = learner.trainer.state_dict()
    monkeypatch.setattr(
        learner.trainer, "state_dict", lambda: {name: Pinned(t) for name, t in own.items()}
    )
    learner._on_gpu = True
    log: list[str] = []
    empty, copy = torch.empty, torch.Tensor.copy_

    def pinned(*shape: Any, pin_memory: bool, **options: Any) -> torch.Tensor:
        log.append(f"pinned {pin_memory}")
        return empty(*shape, **options)

    def logged(here: torch.Tensor, there: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        log.append(f"copied, blocking {not non_blocking}")
        return copy(here, there)

    waits = SimpleNamespace(synchronize=lambda: log.append("waited"))
    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(torch.Tensor, "copy_", logged)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: waits)
    copies = learner.state()
    assert log == ["pinned True", "copied, blocking False"] * len(own) + ["waited"]
    assert all(torch.equal(copies[f"trainer/{name}"], tensor) for name, tensor in own.items())
    assert "gpu_wait" in learner.stages.totals()


def test_a_checkpoint_is_copied_into_the_same_memory_each_time(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path)
    own, first = learner.trainer.state_dict(), learner.state()
    places = {name: tensor.data_ptr() for name, tensor in first.items() if "trainer/" in name}
    name = next(n for n, t in own.items() if t.is_floating_point())
    with torch.no_grad():
        own[name].add_(1.0)
    assert not torch.equal(first[f"trainer/{name}"], own[name]), "a copy, not the state itself"
    second = learner.state()
    assert {n: t.data_ptr() for n, t in second.items() if "trainer/" in n} == places
    assert all(torch.equal(second[f"trainer/{n}"], t) for n, t in own.items())
    assert all(tensor.is_contiguous() for tensor in second.values())


def test_a_learner_without_data_says_so(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path)
    with pytest.raises((RuntimeError, ValueError, AssertionError), match="to sample yet"):
        learner.step()
