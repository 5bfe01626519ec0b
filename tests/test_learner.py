"""The learner's small parts: metric means, published weights, warm-up, staging."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_run import TINY

import envs
from dreamer_async.config import Config, resolve
from dreamer_async.learner import Learner, MetricMeans
from dreamer_async.published import PublishedWeights
from dreamer_async.replay_setup import open_replay
from dreamer_async.run_dir import RunDir


def finite(flag: bool) -> torch.Tensor:
    return torch.tensor(flag)


def test_means_leave_out_what_was_not_finite() -> None:
    means = MetricMeans()
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(10.0)}, finite(True))
    means.add({"a": torch.tensor(float("nan")), "b": torch.tensor(0.0)}, finite(False))
    means.add({"a": torch.tensor(3.0), "b": torch.tensor(20.0)}, finite(True))
    assert means.take() == {"a": 2.0, "b": 15.0}
    assert means.take() is None


def test_nothing_finite_means_no_report() -> None:
    means = MetricMeans()
    means.add({"a": torch.tensor(float("inf"))}, finite(False))
    assert means.take() is None


def test_published_weights_are_copies_with_a_version() -> None:
    weights = {"w": torch.ones(3)}
    published = PublishedWeights(weights)
    assert published.version == -1
    weights["w"].fill_(2.0)
    published.publish(weights, 7)
    weights["w"].fill_(3.0)
    taken: dict[str, torch.Tensor] = {}
    version = published.fetch(lambda source: taken.update(w=source["w"].clone()))
    assert version == 7 and torch.equal(taken["w"], torch.full((3,), 2.0))


def make_learner(tmp_path: Path, **changes: str) -> tuple[Learner, Config]:
    overrides = [f"{k}={v}" for k, v in changes.items()]
    config = resolve("toy", "catch", size="tiny", overrides=(*TINY, *overrides))
    run = RunDir.create(tmp_path, "toy")
    spec = envs.spec("toy", "catch")
    replay = open_replay(config, spec, run, resume=False)
    return Learner(spec, config, replay, torch.device("cpu"), "float32"), config


def test_warming_up_changes_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, _ = make_learner(tmp_path)
    monkeypatch.setattr(learner.trainer, "compile", lambda: None)
    before = {n: t.clone() for n, t in learner.trainer.state_dict().items()}
    generator = learner.state()["learner/generator"].clone()
    learner.warm_up()
    after = learner.trainer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(generator, learner.state()["learner/generator"])
    assert learner.updates == 0


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
