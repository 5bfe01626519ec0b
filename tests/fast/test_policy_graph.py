"""Acting on a GPU: one buffer each way and one recording, with the same numbers as without.

As in the tests of updates, what is recorded is a list of operations that runs again on new inputs.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from agent_cases import IMAGE, MIXED, VECTOR, make_config, make_obs, make_spec

from dreamer_async.agent import Agent, Policy, Trainer
from dreamer_async.agent.nets import PRECISIONS
from dreamer_async.agent.policy import compute_types
from dreamer_async.envs.spec import EnvSpec, ObsSpec, StepBatch
from dreamer_async.fast.cuda.capture import RECORDING, Relaunch, cuda_graph
from dreamer_async.fast.cuda.parcel import ALIGNED, Field, Parcel
from dreamer_async.fast.cuda.policy_graph import PolicyGraph
from dreamer_async.run.collector import Player
from dreamer_async.run.weights import PolicyWeights
from tests.agent.test_actions import SEVERAL
from tests.fast.test_capture import FakeCuda, record, tape

ENVS, ROWS = 5, 3


def spec_of(obs: dict[str, ObsSpec], kind: str) -> EnvSpec:
    spec = make_spec(obs, kind)
    return dataclasses.replace(spec, action=SEVERAL) if kind == "several" else spec


def agents(spec: EnvSpec) -> Iterator[Agent]:
    """Agents whose heads are not all zeros."""
    config = make_config()
    for seed in range(100):
        agent = Trainer(spec, config).agent
        g = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in agent.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=g) * 0.3)
        yield agent


def steps(spec: EnvSpec, rows: int = ROWS) -> Iterator[StepBatch]:
    """Rows of some of the environments, in any order."""
    rng, g = np.random.default_rng(0), torch.Generator().manual_seed(0)
    while True:
        ids = rng.permutation(ENVS)[:rows].astype(np.int32)
        obs = {key: make_obs(item, (rows,), g).numpy() for key, item in spec.obs.items()}
        flags = rng.random((3, rows)) < 0.3
        yield StepBatch(ids, obs, np.zeros(rows, np.float32), *flags)


def pair(
    spec: EnvSpec, record: Callable[..., Relaunch] = record, precision: str = "float32"
) -> tuple[Player, Player, PolicyGraph]:
    """An actor as on a CPU, and one that acts as on a GPU."""
    plain, other = (
        Player(Policy(spec, make_config(), "cpu", precision), ENVS, 7) for _ in range(2)
    )
    graph = other._graph = PolicyGraph(other.policy, other.carry, record)
    return plain, other, graph


def load(agent: Agent, *actors: Player) -> None:
    for actor in actors:
        actor.policy.load(agent)


def assert_same_steps(plain: Player, other: Player, given: Iterator[StepBatch], count: int) -> None:
    for step, _ in zip(given, range(count), strict=False):
        one, two = plain.act(step), other.act(step)
        for name, mine, theirs in zip(one._fields, one, two, strict=True):
            assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs), name
        for name, tensor in plain.state().items():
            assert torch.equal(tensor, other.state()[name]), name


@pytest.mark.parametrize("obs", [VECTOR, MIXED], ids=["vector", "mixed"])
@pytest.mark.parametrize("kind", ["discrete", "continuous", "several"])
@pytest.mark.parametrize("precision", sorted(PRECISIONS))
def test_a_recorded_step_is_the_step(obs: dict[str, ObsSpec], kind: str, precision: str) -> None:
    """Recording comes first, and its own steps leave no trace; then weights change."""
    spec = spec_of(obs, kind)
    plain, other, graph = pair(spec, precision=precision)
    given, sources = steps(spec), agents(spec)
    for _ in range(2):
        load(next(sources), plain, other)
        assert_same_steps(plain, other, given, 3)
    assert graph.recorded(ROWS) and not graph.notices()


def test_recording_ahead_of_time_changes_nothing() -> None:
    """With inputs that are all zeros: rows of the same environment."""
    spec = make_spec(MIXED)
    plain, other, graph = pair(spec)
    load(next(agents(spec)), plain, other)
    given = steps(spec)
    assert_same_steps(plain, other, given, 2)
    other.warm_up(2)
    assert graph.recorded(2)
    assert_same_steps(plain, other, given, 2)
    assert_same_steps(plain, other, steps(spec, 2), 2)
    plain.warm_up(2)


def test_only_on_a_gpu_actors_act_through_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(make_spec(), make_config())
    carry = policy.initial(ENVS)
    assert Player(policy, ENVS, 0)._graph is None
    monkeypatch.setattr(policy, "device", torch.device("cuda", 0))
    monkeypatch.setattr(policy, "initial", lambda rows: carry)
    assert isinstance(Player(policy, ENVS, 0)._graph, PolicyGraph)


def test_each_number_of_rows_is_recorded_once() -> None:
    spec, made = make_spec(), []

    def counting(work: Callable[[], None]) -> Relaunch:
        made.append(work)
        return record(work)

    plain, other, graph = pair(spec, counting)
    for rows in (1, 2, 1, 2):
        assert_same_steps(plain, other, steps(spec, rows), 2)
    assert len(made) == 2 and not graph.recorded(3)


def test_control_a_step_that_reads_other_rows_is_noticed() -> None:
    plain, other, _ = pair(make_spec())
    load(next(agents(make_spec())), plain, other)
    given = steps(make_spec())
    assert_same_steps(plain, other, given, 2)
    other.carry.deter.copy_(other.carry.deter.roll(1, 0))
    with pytest.raises(AssertionError):
        assert_same_steps(plain, other, given, 4)


def test_what_cannot_be_recorded_is_done_step_by_step() -> None:
    tried = []

    def broken(work: Callable[[], None]) -> Relaunch:
        tried.append(work)
        work()
        raise RuntimeError("no graph today\nand a long story")

    spec = make_spec(MIXED)
    plain, other, graph = pair(spec, broken)
    load(next(agents(spec)), plain, other)
    assert_same_steps(plain, other, steps(spec), 3)
    assert not graph.recorded(ROWS) and len(tried) == 1
    (notice,) = other.notices()
    assert notice.endswith("slower: no graph today") and not other.notices(), "said once"


def test_recording_can_be_left_out() -> None:
    spec = make_spec()
    config = make_config()
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, capture=False))
    actor = Player(Policy(spec, config), ENVS, 7)
    graph = actor._graph = PolicyGraph(actor.policy, actor.carry, record)
    actor.warm_up(ROWS)
    actor.act(next(steps(spec)))
    assert not graph.recorded(ROWS) and not actor.notices()


def test_while_others_record_or_compile_steps_are_not_recorded() -> None:
    spec = make_spec()
    plain, other, graph = pair(spec)
    holding, done = threading.Event(), threading.Event()

    def compile_for_long() -> None:
        with RECORDING:
            holding.set()
            done.wait(30)

    thread = threading.Thread(target=compile_for_long)
    thread.start()
    holding.wait(30)
    assert_same_steps(plain, other, steps(spec), 2)
    assert not graph.recorded(ROWS) and not graph.notices()
    done.set()
    thread.join()
    assert_same_steps(plain, other, steps(spec), 2)
    assert graph.recorded(ROWS)


def test_two_threads_never_record_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    busy, most = [0], [0]

    def work() -> None:
        busy[0] += 1
        most[0] = max(most[0], busy[0])
        threading.Event().wait(0.01)
        busy[0] -= 1

    threads = [threading.Thread(target=cuda_graph, args=(work,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and cuda.log.count("record thread_local") == 3


def test_the_host_waits_for_nothing_inside_a_step() -> None:
    spec = make_spec(MIXED)
    _, other, graph = pair(spec, lambda work: work)
    other.act(next(steps(spec)))
    assert not tape(graph._steps[ROWS].work).reads()


def test_forced_noise_is_refused_instead_of_cast() -> None:
    spec = make_spec()
    _, other, graph = pair(spec)
    step = next(steps(spec))
    noise = other.policy.draw_noise(ROWS, other.generator)
    forced = noise._replace(posterior=(noise.posterior * 4).long())
    with pytest.raises(AssertionError, match="forced"):
        graph.act(step.env_id, step.obs, step.is_first, forced)


@pytest.mark.parametrize(
    ("precision", "obs"),
    [("bfloat16", VECTOR), ("bfloat16", IMAGE), ("bfloat16", MIXED), ("mixed", MIXED)],
    ids=["vector", "image", "mixed", "mixed in mixed precision"],
)
def test_weights_cast_once_give_what_casting_in_each_step_gives(
    precision: str, obs: dict[str, ObsSpec]
) -> None:
    """Layers whose parameters are float32 cast them in every step."""
    spec = make_spec(obs)
    once, each = (Policy(spec, make_config(), "cpu", precision) for _ in range(2))
    for part in (each.enc, each.dyn, each.pol):
        part.float()
    agent = next(agents(spec))
    once.load(agent)
    each.load(agent)
    low = {name for name, weight in once._weights.items() if weight.dtype == torch.bfloat16}
    assert low and all(weight.dtype == torch.float32 for weight in each._weights.values())
    step = next(steps(spec))
    noise = once.draw_noise(ROWS, torch.Generator().manual_seed(1))
    given: Any = {key: torch.as_tensor(value) for key, value in step.obs.items()}
    first = torch.as_tensor(step.is_first)
    carries = [policy.initial(ROWS) for policy in (once, each)]
    for _ in range(3):
        carries = [
            policy.step(given, first, carry, noise)
            for policy, carry in zip((once, each), carries, strict=True)
        ]
        for one, two in zip(*carries, strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize("precision", sorted(PRECISIONS))
def test_weights_are_published_in_the_types_that_a_policy_keeps(precision: str) -> None:
    """So that slots are no larger than need be, and nothing is rounded twice."""
    spec, config = make_spec(MIXED), make_config()
    trainer = Trainer(spec, config, precision=precision)
    straight, fetched = (Policy(spec, config, "cpu", precision) for _ in range(2))
    with torch.no_grad():
        for parameter in trainer.agent.parameters():
            parameter.add_(torch.randn_like(parameter))
    weights = trainer.parameters_of_policy()
    kept = PolicyWeights(weights, types=compute_types(trainer.agent))
    kept.publish(weights, 1)
    straight.load(trainer.agent)
    kept.fetch(fetched.load)
    for name, weight in fetched._weights.items():
        assert kept._slots[0].weights[name].dtype == weight.dtype, name
        assert torch.equal(weight, straight._weights[name]), name


def test_a_parcel_holds_every_type_beside_each_other() -> None:
    fields = {
        "flag": Field((3,), torch.bool),
        "half": Field((3, 5), torch.float16),
        "none": Field((0,), torch.float32),
        "id": Field((3,), torch.int64),
        "pixels": Field((3, 2, 2, 1), torch.uint8),
    }
    parcel = Parcel(fields, torch.device("cpu"))
    values = {n: torch.arange(t.numel()).view(t.shape).to(t.dtype) for n, t in parcel.here.items()}
    for name, tensor in parcel.here.items():
        assert tensor.dtype == fields[name].dtype and tensor.data_ptr() % ALIGNED == 0
        tensor.copy_(values[name])
    parcel.send()
    assert all(torch.equal(parcel.there[name], value) for name, value in values.items())
    for tensor in parcel.there.values():
        tensor.zero_()
    assert parcel.here["id"].any(), "two buffers"
    parcel.bring()
    assert not any(tensor.any() for tensor in parcel.here.values())


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["discrete", "continuous", "several"])
def test_a_cuda_graph_is_the_step(kind: str) -> None:
    spec = spec_of(MIXED, kind)
    plain, other = (Player(Policy(spec, make_config(), "cuda"), ENVS, 7) for _ in range(2))
    plain._graph = None
    plain.carry = plain.policy.initial(ENVS)
    load(next(agents(spec)), plain, other)
    for step, _ in zip(steps(spec), range(4), strict=False):
        one, two = plain.act(step), other.act(step)
        assert np.array_equal(one.stoch, two.stoch)
        np.testing.assert_allclose(one.action, two.action, rtol=1e-3, atol=1e-3)
    assert other._graph is not None and other._graph.recorded(ROWS)
