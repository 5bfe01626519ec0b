"""Acting: shapes for the replay, resets, and agreement with training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agent_cases import MIXED, VECTOR, make_batch, make_config, make_spec

from dreamer_async.agent import Policy, PolicyCarry, Trainer
from dreamer_async.agent.policy import PolicyNoise
from dreamer_async.envs.spec import EnvSpec


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_policy(spec: EnvSpec) -> tuple[Policy, Trainer]:
    config = make_config()
    trainer, policy = Trainer(spec, config), Policy(spec, config)
    policy.load(trainer.agent)
    return policy, trainer


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_act_returns_what_env_and_replay_store(kind: str) -> None:
    spec = make_spec(MIXED, kind)
    policy, _ = make_policy(spec)
    obs = {k: v[:, 0].numpy() for k, v in make_batch(spec, make_config()).obs.items()}
    first = np.array([True, False, True])
    acted, carry = policy.act(obs, first, policy.initial(3), generator())
    assert acted.deter.dtype == np.float16 and acted.deter.shape == (3, 16)
    assert acted.stoch.dtype == np.uint8 and acted.stoch.shape == (3, 4)
    if kind == "discrete":
        assert acted.action.dtype == np.int32 and acted.action.shape == (3,)
        assert (acted.action >= 0).all() and (acted.action < 3).all()
    else:
        assert acted.action.dtype == np.float32 and acted.action.shape == (3, 3)
    np.testing.assert_array_equal(carry.action.numpy(), acted.action)
    np.testing.assert_array_equal(carry.stoch.argmax(-1).numpy(), acted.stoch)


def test_a_reset_row_forgets_its_carry_and_the_others_do_not() -> None:
    spec = make_spec()
    policy, _ = make_policy(spec)
    obs = {"vector": np.ones((2, 3), np.float32)}
    g = generator(3)
    full = PolicyCarry(torch.rand(2, 16, generator=g), torch.ones(2, 4, 4), torch.tensor([1, 2]))
    for first, same in ((True, True), (False, False)):
        flags = np.array([first, first])
        one, _ = policy.act(obs, flags, full, generator())
        two, _ = policy.act(obs, flags, policy.initial(2), generator())
        assert np.array_equal(one.deter, two.deter) is same


def test_sampling_needs_only_the_given_generator() -> None:
    spec = make_spec(kind="continuous")
    policy, _ = make_policy(spec)
    obs, first = {"vector": np.ones((2, 3), np.float32)}, np.ones(2, bool)
    act = lambda seed: policy.act(obs, first, policy.initial(2), generator(seed))[0].action  # noqa: E731
    state = torch.random.get_rng_state()
    np.testing.assert_array_equal(act(0), act(0))
    assert not np.array_equal(act(0), act(1))
    assert torch.equal(state, torch.random.get_rng_state())


def test_acting_walks_through_the_same_states_as_training() -> None:
    spec, config = make_spec(), make_config()
    policy, trainer = make_policy(spec)
    batch, noise = make_batch(spec, config), trainer.draw_noise(generator())
    expected = trainer.forward(batch, noise).observed.state.deter
    start = trainer.agent.state(batch.deter, batch.stoch)
    carry = PolicyCarry(*start, batch.action[:, 0])
    for t in range(1, expected.shape[1] + 1):
        obs = {key: value[:, t] for key, value in batch.obs.items()}
        forced = PolicyNoise(noise.posterior[:, t - 1], batch.action[:, t])
        carry = policy.step(obs, batch.is_first[:, t], carry, forced)
        torch.testing.assert_close(carry.deter, expected[:, t - 1])


def test_load_copies_from_an_agent_or_published_weights() -> None:
    policy, trainer = make_policy(make_spec(VECTOR))
    published = {k: v.clone() + 1 for k, v in trainer.parameters_of_policy().items()}
    assert {k.split(".")[0] for k in published} == {"enc", "dyn", "pol"}
    policy.load(published)
    weights = policy.enc.get_parameter("mlp0.kernel")
    assert torch.equal(weights, published["enc.mlp0.kernel"])
    published["enc.mlp0.kernel"].zero_()
    assert weights.any(), "a copy, not a view"
    del published["pol.mlp.linear0.kernel"]
    with pytest.raises(ValueError, match=r"lack 'pol\.mlp\.linear0\.kernel'"):
        policy.load(published)
