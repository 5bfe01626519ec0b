"""Several ranks compute what one process computes of all their sequences, gradients included.

The ranks are threads here, and their sums are gloo's; `test_run` has real processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from agent_cases import MIXED, VECTOR, make_batch, make_config, make_spec
from backends import backend
from fast.test_capture import Tape, tape
from parallel.threads import on_ranks
from torch import Tensor

from dreamer_async.agent import Batch, Noise, Trainer
from dreamer_async.agent.normalize import Ranks
from dreamer_async.envs.spec import ObsSpec
from dreamer_async.fast.cuda.updates import Updates
from dreamer_async.parallel.group import Group, all_reduce, of_all

UPDATES, LENGTH, HORIZON = 20, 5, 3
Inputs = list[tuple[Batch, Noise]]


class Learned(NamedTuple):
    """What some updates have left behind."""

    metrics: list[dict[str, float]]
    grads: list[Tensor]
    """Of the first update, when all weights are still the same."""
    state: dict[str, Tensor]


def inputs(batch: int, obs: dict[str, ObsSpec], updates: int = UPDATES) -> Inputs:
    """The sequences of updates, and samples in place of noise: no rounding changes a class."""
    spec, config = make_spec(obs), make_config(batch, LENGTH, HORIZON)
    trainer, generator = Trainer(spec, config), torch.Generator().manual_seed(1)
    many = []
    for seed in range(updates):
        noise = trainer.draw_noise(generator)
        posterior, prior = ((x * config.model.classes).long() for x in noise[:2])
        action = (noise.action * spec.action.size).long()
        many.append((make_batch(spec, config, seed), Noise(posterior, prior, action)))
    return many


def part(given: tuple[Batch, Noise], rank: int, count: int) -> tuple[Batch, Noise]:
    """The rows of one rank; those of the noise lie in the order of the sequences."""
    batch, noise = given
    mine: Callable[[Tensor], Tensor] = lambda x: x.chunk(count)[rank]  # noqa: E731
    return batch.map(mine), noise.map(mine)


def learn(
    many: Inputs, batch: int, obs: dict[str, ObsSpec], name: str, ranks: Ranks | None = None
) -> Learned:
    spec, config = make_spec(obs), make_config(batch, LENGTH, HORIZON, lr=1e-3, warmup=0)
    ranks, kept = ranks or Ranks(), list[list[Tensor]]()

    def combine(grads: list[Tensor], metrics: dict[str, Tensor]) -> Any:
        grads, metrics = ranks.combine(grads, metrics)
        kept.append([grad.clone() for grad in grads])
        return grads, metrics

    keeping = ranks._replace(combine=combine)
    trainer, metrics = Trainer(spec, config, backend=backend(name), ranks=keeping), []
    settle(trainer)
    for one in many:
        update = trainer.update(*one)
        assert update.finite
        metrics.append({key: float(value) for key, value in update.metrics.items()})
    return Learned(metrics, kept[0], trainer.state_dict())


def settle(trainer: Trainer) -> None:
    """Let rewards and values be small, as after some learning.

    Those of a fresh head are differences of numbers up to 5e8, of which any order makes others.
    """
    bins = trainer.config.model.bins
    for name, parameter in trainer.agent.named_parameters():
        if parameter.shape == (bins,) and name.endswith("bias"):
            parameter.data.copy_(-torch.linspace(-40.0, 40.0, bins).abs())


def learn_on_ranks(
    count: int,
    batch: int,
    obs: dict[str, ObsSpec],
    name: str,
    ranks: Callable[[Group], Ranks] = lambda group: group.ranks,
) -> list[Learned]:
    many = inputs(batch, obs)

    def work(group: Group) -> Learned:
        mine = [part(one, group.rank, count) for one in many]
        return learn(mine, batch // count, obs, name, ranks(group))

    return on_ranks(count, work)


def off(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm().clamp(min=1e-6))


def differences(ours: Learned, theirs: Learned) -> Iterator[tuple[str, float]]:
    """How far everything is apart, by name."""
    for update, (mine, other) in enumerate(zip(ours.metrics, theirs.metrics, strict=True)):
        assert mine.keys() == other.keys()
        for name, value in other.items():
            yield f"{update} {name}", abs(mine[name] - value) / max(abs(value), 1e-2)
    for place, (grad, other) in enumerate(zip(ours.grads, theirs.grads, strict=True)):
        yield f"gradient {place}", off(grad, other)
    for name, tensor in theirs.state.items():
        yield name, off(ours.state[name], tensor)


@pytest.fixture(scope="module")
def alone() -> Callable[[str], Learned]:
    """What one process learns of all sequences, by backend."""
    known: dict[str, Learned] = {}

    def learned(name: str) -> Learned:
        if name not in known:
            known[name] = learn(inputs(16, VECTOR), 16, VECTOR, name)
        return known[name]

    return learned


@pytest.mark.parametrize("name", ["PyTorch", "native", "CUDA"])
def test_two_ranks_are_one_process_with_twice_the_batch(
    name: str, alone: Callable[[str], Learned]
) -> None:
    ranks = learn_on_ranks(2, 16, VECTOR, name)
    for rank in ranks:
        worst = max(differences(rank, alone(name)), key=lambda found: found[1])
        assert worst[1] < 1e-4, worst
    for key, tensor in ranks[0].state.items():
        assert torch.equal(tensor, ranks[1].state[key]), f"{key} is not the same on both"
    assert ranks[0].metrics == ranks[1].metrics


@pytest.mark.parametrize(
    "missing",
    [
        lambda group: Ranks(group.gather),
        lambda group: Ranks(combine=group.combine),
    ],
    ids=["gradients", "percentiles"],
)
def test_control_what_is_not_exchanged_is_seen(
    missing: Callable[[Group], Ranks], alone: Callable[[str], Learned]
) -> None:
    rank = learn_on_ranks(2, 16, VECTOR, "native", missing)[0]
    assert max(value for _, value in differences(rank, alone("native"))) > 1e-2


def test_the_same_ranks_give_the_same_bits_again() -> None:
    first, second = (learn_on_ranks(2, 4, VECTOR, "native")[1] for _ in range(2))
    assert first.metrics == second.metrics
    assert all(torch.equal(x, second.state[key]) for key, x in first.state.items())


def test_four_ranks_and_all_kinds_of_observations() -> None:
    one = learn(inputs(4, MIXED), 4, MIXED, "native")
    ranks = learn_on_ranks(4, 4, MIXED, "native")
    # Of two pooled pixels that differ by rounding alone, either may have the gradient.
    pooled, others = {}, {}
    for name, apart in differences(ranks[3], one):
        (pooled if ".enc.cnn" in name else others)[name] = apart
    assert max(pooled.values()) < 0.05, pooled
    assert max(others.values()) < 1e-3, max(others.items(), key=lambda found: found[1])


@pytest.mark.parametrize("name", ["PyTorch", "native"])
def test_what_is_not_finite_on_one_rank_is_skipped_by_all(name: str) -> None:
    many = inputs(4, VECTOR, 2)
    config = make_config(2, LENGTH, HORIZON, lr=1e-3, warmup=0)

    def work(group: Group) -> list[bool]:
        trainer = Trainer(make_spec(), config, backend=backend(name), ranks=group.ranks)
        before = {key: value.clone() for key, value in trainer.state_dict().items()}
        good, noise = part(many[0], group.rank, 2)
        bad = good._replace(reward=good.reward * torch.nan) if group.rank else good
        finite = [bool(trainer.update(bad, noise).finite)]
        assert all(torch.equal(x, before[key]) for key, x in trainer.state_dict().items())
        return [*finite, bool(trainer.update(good, noise).finite)]

    assert on_ranks(2, work) == [[False, True]] * 2


def test_metrics_are_those_of_all_values() -> None:
    values = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
    made = {
        "adv/mean": values.mean(1),
        "adv/std": values.std(1, correction=0),
        "return/min": values.amin(1),
        "return/max": values.amax(1),
    }
    whole = values.flatten()
    expected = whole.mean(), whole.std(correction=0), whole.min(), whole.max()
    torch.testing.assert_close(tuple(of_all(made).values()), expected)


# -- what an accelerator needs -----------------------------------------------------------------


def doubled() -> Group:
    """The first of two ranks whose other one computes the very same."""
    return Group(0, 2, lambda tensor: tensor.add_(tensor))


def test_an_update_of_several_ranks_can_be_recorded() -> None:
    """Neither reads on the host, nor buffers that move: see `test_capture`."""
    spec, config = make_spec(), make_config(2, LENGTH, HORIZON, lr=1e-3, warmup=0)
    many = inputs(2, VECTOR, 4)
    eager, recorded = (
        Trainer(spec, config, backend=backend("CUDA"), ranks=doubled().ranks) for _ in range(2)
    )
    tapes: list[Tape] = []

    def record(work: Callable[[], None]) -> Callable[[], None]:
        work()
        tapes.append(tape(work))
        return tapes[0].replay

    updates = Updates(recorded)
    updates.capture(*many[-1], record)
    recorded.load_state_dict(eager.state_dict())
    assert not tapes[0].reads()
    for one in many[:3]:
        torch.testing.assert_close(updates(*one), eager.update(*one), rtol=0, atol=0)


def test_returns_are_gathered_inside_a_compiled_region() -> None:
    """With the very function that ranks use; a group of one suffices to trace it."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        group = Group(0, 1, all_reduce())
        compiled = torch.compile(
            lambda x: group.gather(x * 2).sort().values, fullgraph=True, backend="aot_eager"
        )
        x = torch.tensor([[3.0, 1.0]])
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), torch.tensor([[2.0, 6.0]]))
    finally:
        dist.destroy_process_group()
