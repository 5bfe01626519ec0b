"""Several actions at once: their columns, summed log probabilities and entropies, and training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer_async.agent import Trainer
from dreamer_async.agent.actions import (
    draw_action_noise,
    embed_action,
    join_action,
    split_action,
)
from dreamer_async.agent.heads import Actor
from dreamer_async.agent.policy import Policy
from dreamer_async.cli import main
from dreamer_async.envs.processes import ProcessEnv, Source
from dreamer_async.envs.spec import ActionSpec
from dreamer_async.envs.suite import Options
from dreamer_async.envs.vector import ActionCheck
from dreamer_async.store.events import RunFinished, read_events
from tests.agent_cases import MODEL, make_batch, make_config, make_spec
from tests.rollouts import streams

BUTTONS = ActionSpec("discrete", 4)
STICK = ActionSpec("continuous", 2)
SEVERAL = ActionSpec.several({"stick": STICK, "keys": BUTTONS, "gear.x": ActionSpec("discrete", 3)})
SPEC = dataclasses.replace(make_spec(), action=SEVERAL)


def sampled(actor: Actor, rows: int = 5000) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Parameters and actions of one state, seen in many rows."""
    g = torch.Generator().manual_seed(0)
    params = actor(torch.randn(1, 6, generator=g).expand(rows, 6))
    return params, actor.sample(params, draw_action_noise(actor.action, (rows,), g))


def sharp(action: ActionSpec) -> Actor:
    """An actor that is far from uniform."""
    torch.manual_seed(0)
    actor = Actor(6, action, MODEL)
    for parameter in actor.head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return actor


def test_columns_split_join_and_embed() -> None:
    assert (SEVERAL.shape, SEVERAL.dtype, SEVERAL.width) == ((4,), "float32", 9)
    action = torch.tensor([[0.5, -2.0, 3.0, 1.0], [0.0, 1.0, 0.0, 2.0]])
    stick, keys, gear = split_action(SEVERAL, action)
    assert (stick.shape, keys.tolist(), gear.tolist()) == ((2, 2), [3, 0], [1, 2])
    assert (join_action(SEVERAL, [stick, keys, gear]) == action).all()
    embedded = embed_action(SEVERAL, action, torch.float32)
    assert embedded[0].tolist() == [0.5, -2.0, 0, 0, 0, 1, 0, 1, 0]
    assert embedded[1].tolist() == [0.0, 1.0, 1, 0, 0, 0, 0, 0, 1]


def test_noise_is_uniform_for_classes_and_normal_for_vectors() -> None:
    noise = draw_action_noise(SEVERAL, (20_000,), torch.Generator().manual_seed(0))
    assert noise.shape == (20_000, 4)
    assert noise[:, :2].std(0).tolist() == pytest.approx([1, 1], abs=0.02)
    assert noise[:, 2:].min() >= 0 and noise[:, 2:].max() < 1
    assert noise[:, 2:].mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.01)


def test_samples_follow_their_own_distributions() -> None:
    params, action = sampled(sharp(SEVERAL))
    mean, std, keys, gear = (param[0] for param in params)
    assert action[:, :2].mean(0).tolist() == pytest.approx(mean.tolist(), abs=0.05)
    assert action[:, :2].std(0).tolist() == pytest.approx(std.tolist(), abs=0.05)
    for column, logprobs in ((2, keys), (3, gear)):
        share = torch.bincount(action[:, column].long(), minlength=len(logprobs)) / len(action)
        assert share.tolist() == pytest.approx(logprobs.exp().tolist(), abs=0.03)


def test_log_probabilities_and_entropies_are_sums() -> None:
    actor = sharp(SEVERAL)
    params, action = sampled(actor, 50)
    stick, keys, gear = actor.heads
    expected = (
        stick.logprob(params[:2], action[:, :2])
        + keys.logprob(params[2:3], action[:, 2])
        + gear.logprob(params[3:], action[:, 3])
    )
    assert torch.allclose(actor.logprob(params, action), expected)
    entropy = stick.entropy(params[:2]) + keys.entropy(params[2:3]) + gear.entropy(params[3:])
    assert torch.allclose(actor.entropy(params), entropy)
    randomness = actor.randomness(actor.entropy(params))
    assert ((randomness > 0) & (randomness < 1)).all()


def test_a_deviation_that_cannot_change_leaves_nothing_to_chance() -> None:
    model = dataclasses.replace(MODEL, actor_min_std=0.5, actor_max_std=0.5)
    actor = Actor(6, STICK, model)
    assert (actor.randomness(torch.ones(3)) == 0).all()


@pytest.mark.parametrize("action", [BUTTONS, STICK, SEVERAL])
def test_no_action_is_likelier_than_the_mode(action: ActionSpec) -> None:
    actor = sharp(action)
    params, samples = sampled(actor)
    best, others = (actor.logprob(params, each) for each in (actor.mode(params), samples))
    assert actor.mode(params).shape == samples.shape
    assert (others <= best + 1e-6).all() and (others < best).any()


@pytest.mark.parametrize("part", [BUTTONS, STICK])
def test_one_of_several_is_the_same_as_alone(part: ActionSpec) -> None:
    """The reference of everything here: the single action that is compared with the oracle."""
    alone, several = sharp(part), sharp(ActionSpec.several({"action": part}))
    several.load_state_dict(alone.state_dict())
    g = torch.Generator().manual_seed(1)
    feat, noise = torch.randn(40, 6, generator=g), draw_action_noise(part, (40,), g)
    params = alone(feat)
    action = alone.sample(params, noise)
    columns = several.sample(several(feat), noise.reshape(40, -1))
    assert (columns == action.reshape(40, -1)).all()
    assert (several.logprob(params, columns) == alone.logprob(params, action)).all()
    assert (several.entropy(params) == alone.entropy(params)).all()


def test_recorded_actions_are_taken_as_they_are() -> None:
    actor = sharp(SEVERAL)
    action = torch.tensor([[0.25, -0.5, 3, 2]], dtype=torch.float64)
    assert (actor.sample(actor(torch.zeros(1, 6)), action) == action).all()


def test_an_update_trains_every_head_and_the_policy_acts() -> None:
    config = make_config(lr=1e-2, warmup=0)
    trainer = Trainer(SPEC, config)
    rng, g = np.random.default_rng(0), torch.Generator().manual_seed(0)
    batch = make_batch(make_spec(), config)
    lead = tuple(batch.reward.shape)
    action = torch.from_numpy(SEVERAL.sample(lead[0] * lead[1], rng)).view(*lead, 4)
    before = {name: p.clone() for name, p in trainer.agent.pol.named_parameters()}
    for _ in range(3):
        update = trainer.update(batch._replace(action=action), trainer.draw_noise(g))
        assert update.finite
    changed = [n for n, p in trainer.agent.pol.named_parameters() if not torch.equal(p, before[n])]
    heads = {name.split(".")[1] for name in changed if name.startswith("head.")}
    assert heads == {"stick", "keys-", "gear-x"}
    policy = Policy(SPEC, config)
    policy.load(trainer.agent)
    obs = {"vector": np.zeros((5, 3), np.float32)}
    acted, _ = policy.act(obs, np.ones(5, bool), policy.initial(5), g)
    ActionCheck(SEVERAL)(acted.action, 5)


@pytest.mark.parametrize(
    "bad", [[0, 0, 4, 0], [0, 0, -1, 0], [0, 0, 0.5, 0], [0, 0, 0, 3], [np.nan, 0, 0, 0]]
)
def test_classes_outside_their_range_never_reach_an_environment(bad: list[float]) -> None:
    ActionCheck(SEVERAL)(np.array([[9, -9, 3, 2]], np.float32), 1)
    with pytest.raises(ValueError, match=r"is no class of|not finite"):
        ActionCheck(SEVERAL)(np.array([bad], np.float32), 1)


def test_environments_get_the_actions_that_their_spaces_ask_for() -> None:
    with ProcessEnv(Source("test", "robot", "tests.faulty_envs:Robot"), Options(2, 2, 0)) as env:
        names = [name for name, _ in env.spec.action.parts]
        assert names == ["arm/grip", "arm/move", "mode"]
        streams(env, 20)  # the environment asserts that its space contains them


def test_a_run_with_several_actions_trains(tmp_path: Path) -> None:
    words = "train gym --task tests.faulty_envs:Robot --size tiny --steps 120 --envs 2 --ratio 4"
    options = "--plain --no-compile --device cpu --threads 1"
    small = "-s train.batch_size=2 -s train.batch_length=8 -s replay.capacity=500"
    where = ["--runs-dir", str(tmp_path)]
    assert main([*words.split(), *options.split(), *small.split(), *where]) == 0
    (run,) = tmp_path.iterdir()
    finished = read_events(run / "events.jsonl")[0][-1].event
    assert isinstance(finished, RunFinished) and finished.updates > 5
    assert json.loads((run / "config.json").read_text())["env"]["task"].endswith("Robot")
