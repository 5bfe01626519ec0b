"""What one rank cannot compile or record, none does: no rank waits for one that is elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import NoReturn

import pytest
import torch
from agent_cases import VECTOR, make_config, make_spec
from backends import backend
from parallel.test_equality import HORIZON, LENGTH, inputs, part
from parallel.threads import on_ranks

from dreamer_async.agent import Batch, Noise, Trainer
from dreamer_async.fast.cuda.capture import Recorder
from dreamer_async.fast.cuda.updates import Peers, Updates
from dreamer_async.parallel.group import Group

BEFORE, BETWEEN, AFTER = "world_model_losses", "total", "finite"
"""Regions before both exchanges of an update, between them and after them."""
Outcome = tuple[str, bool, dict[str, float]]


def region_fails(name: str) -> Callable[[Updates], None]:
    """A compiler that leaves all as it is but for one region, which it does not understand."""

    def compile_(updates: Updates) -> None:
        updates.trainer.regions = updates.trainer.regions._replace(**{name: broken})

    return compile_


def broken(*_: object) -> NoReturn:
    raise RuntimeError("no such compiler\nand a long story")


def compiled(updates: Updates) -> None:
    """A compiler that leaves all as it is, and can be told from none."""
    encode = updates.trainer.regions.encode
    updates.trainer.regions = updates.trainer.regions._replace(encode=lambda obs: encode(obs))


def warm_up(
    group: Group, prepare: Callable[[Updates, int], None], *, agree: bool = True
) -> Outcome:
    """Warm one of two ranks up: what it says, whether it is compiled, and its next update."""
    config = make_config(2, LENGTH, HORIZON, lr=1e-3, warmup=0)
    config = replace(config, train=replace(config.train, capture=False))
    spec, (batch, noise) = make_spec(), part(inputs(4, VECTOR, 1)[0], group.rank, 2)
    trainer = Trainer(spec, config, backend=backend("CUDA"), ranks=group.ranks)
    before = {name: tensor.clone() for name, tensor in trainer.state_dict().items()}
    updates, plain = Updates(trainer), trainer.plain_regions().encode
    prepare(updates, group.rank)
    peers = Peers(group.apart if agree else nullcontext, group.able)
    said = updates.warm_up(batch, noise, peers)
    trainer.load_state_dict(before)
    metrics = {name: float(value) for name, value in updates(batch, noise).metrics.items()}
    return "; ".join(said), trainer.regions.encode != plain, metrics


def fails_on_rank_1(name: str, updates: Updates, rank: int) -> None:
    compile_ = region_fails(name) if rank else compiled
    updates.compile = lambda backend="": compile_(updates)


def alone(updates: Updates, rank: int) -> None:
    """Nobody fails, and nothing is compiled at all."""
    updates.compile = lambda backend="": None


@pytest.fixture(scope="module")
def eager() -> dict[str, float]:
    """What both ranks compute in their first update where nothing is compiled."""
    return on_ranks(2, lambda group: warm_up(group, alone))[0][2]


@pytest.mark.parametrize("name", [BEFORE, BETWEEN, AFTER])
def test_what_one_rank_cannot_compile_all_run_eagerly(name: str, eager: dict[str, float]) -> None:
    first, second = on_ranks(2, lambda g: warm_up(g, partial(fails_on_rank_1, name)))
    assert first[:2] == (
        "updates are not compiled, which makes them slower: another rank cannot do it",
        False,
    )
    assert second[:2] == (
        "updates are not compiled, which makes them slower: no such compiler",
        False,
    )
    assert first[2] == second[2] == eager, "and they go on together"


def test_control_where_nobody_fails_all_are_compiled(eager: dict[str, float]) -> None:
    def prepare(updates: Updates, rank: int) -> None:
        updates.compile = lambda backend="": compiled(updates)

    assert on_ranks(2, lambda group: warm_up(group, prepare)) == [("", True, eager)] * 2


@pytest.mark.parametrize("agree", [True, False], ids=["apart", "control"])
def test_ranks_exchange_the_same_in_the_same_order_whoever_fails(agree: bool) -> None:
    """Else they would wait for each other, or add up what is not the same."""

    def exchanged(rank: int) -> list[torch.Size]:
        seen: list[torch.Size] = []
        group = Group(rank, 2, lambda tensor: seen.append(tensor.shape))
        warm_up(group, partial(fails_on_rank_1, BEFORE), agree=agree)
        return seen

    assert (exchanged(0) == exchanged(1)) == agree


def test_what_one_rank_cannot_record_no_rank_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recording itself waits for nobody."""

    def prepare(updates: Updates, rank: int) -> None:
        updates.compile = lambda backend="": None
        config = updates.trainer.config
        updates.trainer.config = replace(config, train=replace(config.train, capture=True))
        capture = updates.capture

        def recorded(batch: Batch, noise: Noise, record: Recorder | None = None) -> None:
            capture(batch, noise, again)
            if rank:
                raise RuntimeError("it waits for the device")

        updates.capture = recorded

    first, second = on_ranks(2, lambda group: warm_up(group, prepare))
    assert first[0].endswith("CUDA graph, which makes them slower: another rank cannot do it")
    assert second[0].endswith("CUDA graph, which makes them slower: it waits for the device")
    assert first[2] == second[2]


def again(work: Callable[[], None]) -> Callable[[], None]:
    """A recorder that runs the work again instead."""
    work()
    return work


def test_ranks_that_are_apart_exchange_nothing() -> None:
    def work(group: Group) -> list[float]:
        value = torch.tensor([[group.rank + 1.0]])
        with group.apart():
            alone = group.gather(value).flatten().tolist()
        return alone + group.gather(value).flatten().tolist()

    assert on_ranks(2, work) == [[1.0, 0.0, 1.0, 2.0], [0.0, 2.0, 1.0, 2.0]]
