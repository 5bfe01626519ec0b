"""One training step: what it changes, and what it must never change."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from agent_cases import IMAGE, MIXED, VECTOR, make_batch, make_config, make_spec
from torch import Tensor

from dreamer_async.agent import Agent, Noise, Trainer
from dreamer_async.agent.trainer import weighted_total
from dreamer_async.agent.world_model import WorldModel, WorldModelLosses
from dreamer_async.config import Config, LossConfig, TrainConfig

NAMES = {
    "loss/vector", "loss/reward", "loss/cont", "loss/dyn", "loss/rep", "loss/actor",
    "loss/critic", "loss/replay_critic", "loss/total", "return/S", "return/p5", "return/p95",
    "return/mean", "return/rate", "policy/entropy", "policy/randomness", "adv/mean", "adv/mag",
    "value/mean", "value/slow", "imagine/reward", "imagine/cont", "rssm/posterior_entropy",
    "rssm/prior_entropy", "opt/grad_norm", "opt/grad_rms", "opt/update_rms", "opt/param_rms",
    "opt/lr", "opt/finite",
}  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Names of the tensors whose bits differ."""
    bits = lambda t: t.view(torch.int32 if t.dtype == torch.float32 else t.dtype)  # noqa: E731
    return [name for name in before if not torch.equal(bits(before[name]), bits(after[name]))]


@pytest.mark.parametrize("obs", [VECTOR, IMAGE, MIXED])
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_update_returns_scalars_and_fresh_latents(obs: dict, kind: str) -> None:
    spec, config = make_spec(obs, kind), make_config()
    trainer = Trainer(spec, config)
    update = trainer.update(make_batch(spec, config), trainer.draw_noise(generator()))
    keys = {f"loss/{key}" for key in obs}
    assert set(update.metrics) >= (NAMES - {"loss/vector"}) | keys
    assert all(m.shape == () and m.isfinite() for m in update.metrics.values())
    assert all(not m.requires_grad for m in update.metrics.values())
    assert update.deter.shape == (3, 6, 16) and update.deter.dtype == torch.float16
    assert update.stoch.shape == (3, 6, 4) and update.stoch.dtype == torch.uint8
    assert update.stoch.max() < 4 and update.finite


def test_first_update_has_no_learning_rate_and_later_ones_learn() -> None:
    spec, config = make_spec(), make_config()
    trainer, batch = Trainer(spec, config), make_batch(spec, config)
    weights = [p.detach().clone() for p in trainer.agent.parameters()]
    same = lambda: [torch.equal(a, b) for a, b in zip(weights, trainer.agent.parameters())]  # noqa: B905,E731
    noise = trainer.draw_noise(generator())
    assert trainer.update(batch, noise).metrics["opt/lr"] == 0
    assert all(same())
    trainer.update(batch, noise)
    assert sum(same()) < 0.5 * len(weights), "gains of 1 are too large for a step of 4e-8"


def test_thirty_updates_reduce_the_reconstruction_loss() -> None:
    spec, config = make_spec(VECTOR | IMAGE), make_config(lr=3e-3, warmup=0)
    trainer, batch = Trainer(spec, config), make_batch(spec, config)
    g = generator()
    metrics = [trainer.update(batch, trainer.draw_noise(g)).metrics for _ in range(30)]
    for name in ("loss/vector", "loss/image", "loss/reward"):
        first, last = metrics[0][name].item(), metrics[-1][name].item()
        assert last < 0.9 * first, (name, first, last)


@pytest.mark.parametrize("where", ["reward", "vector", "deter"])
def test_a_nan_batch_changes_nothing(where: str) -> None:
    spec, config = make_spec(), make_config(warmup=0)
    trainer, batch = Trainer(spec, config), make_batch(spec, config)
    trainer.update(batch, trainer.draw_noise(generator()))
    before = copy(trainer.state_dict())
    broken = batch.obs["vector"] if where == "vector" else getattr(batch, where)
    broken = broken.clone()
    broken.view(-1)[broken.shape[1] + 2] = float("nan")  # inside the first trained steps
    first = torch.zeros_like(batch.is_first)
    if where == "vector":
        bad = batch._replace(obs={"vector": broken}, is_first=first)
    else:
        bad = batch._replace(**{where: broken}, is_first=first)
    update = trainer.update(bad, trainer.draw_noise(generator(1)))
    assert not update.finite and update.metrics["opt/finite"] == 0
    assert not changed(before, trainer.state_dict())
    assert not update.deter.any() and not update.stoch.any()
    # Negative control: a good batch is noticed by the same comparison.
    assert trainer.update(batch, trainer.draw_noise(generator(1))).finite
    names = changed(before, trainer.state_dict())
    assert {"count", "return.low", "agent.slowval.head.logits.bias"} <= set(names)


def test_reset_hides_everything_before_it() -> None:
    """After is_first, neither the context nor earlier steps nor the last action matter."""
    spec, config = make_spec(), make_config()
    trainer, batch = Trainer(spec, config), make_batch(spec, config)
    first = torch.zeros_like(batch.is_first)
    first[:, 3] = True
    batch = batch._replace(is_first=first)
    noise = trainer.draw_noise(generator())
    other = make_batch(spec, config, seed=1)
    obs, action = batch.obs["vector"].clone(), batch.action.clone()
    obs[:, :3], action[:, :3] = other.obs["vector"][:, :3], other.action[:, :3]
    foreign = batch._replace(obs={"vector": obs}, action=action, deter=other.deter)
    one, two = (trainer.forward(b, noise).observed.state.deter for b in (batch, foreign))
    assert torch.equal(one[:, 2:], two[:, 2:])
    assert not torch.equal(one[:, :2], two[:, :2]), "negative control: before the reset it matters"


def test_context_and_its_action_enter() -> None:
    spec, config = make_spec(), make_config()
    trainer, batch = Trainer(spec, config), make_batch(spec, config)
    batch = batch._replace(is_first=torch.zeros_like(batch.is_first))
    noise = trainer.draw_noise(generator())
    start = trainer.forward(batch, noise).observed.state.deter[:, 0]
    action = batch.action.clone()
    action[:, 0] = (action[:, 0] + 1) % 3
    for other in (batch._replace(deter=batch.deter + 1), batch._replace(action=action)):
        assert not torch.equal(start, trainer.forward(other, noise).observed.state.deter[:, 0])
    last = action.clone()
    last[:, -1] = (last[:, -1] + 1) % 3
    one = trainer.forward(batch._replace(action=action), noise).total
    two = trainer.forward(batch._replace(action=last), noise).total
    assert torch.equal(one, two), "the last action leads out of the window"


def test_same_seed_same_agent_other_seed_other_agent() -> None:
    spec, config = make_spec(), make_config()
    torch.manual_seed(1)
    one = copy(Trainer(spec, config).state_dict())
    torch.manual_seed(2)
    assert not changed(one, Trainer(spec, config).state_dict())
    train = TrainConfig(seed=1, batch_size=3, batch_length=6)
    other = Config("test", config.model, config.loss, config.optim, train=train)
    assert changed(one, Trainer(spec, other).state_dict())


def test_update_leaves_the_global_generator_alone() -> None:
    spec, config = make_spec(), make_config()
    state = torch.random.get_rng_state()
    trainer = Trainer(spec, config)
    trainer.update(make_batch(spec, config), trainer.draw_noise(generator()))
    assert torch.equal(state, torch.random.get_rng_state())


def test_slow_critic_starts_as_a_copy_and_follows_slowly() -> None:
    spec, config = make_spec(), make_config(lr=0.1, warmup=0)
    trainer = Trainer(spec, config)
    val, slow = trainer.agent.val.state_dict(), trainer.agent.slowval.state_dict()
    assert not changed(val, slow)
    before = copy(slow)
    trainer.update(make_batch(spec, config), trainer.draw_noise(generator()))
    val, slow = trainer.agent.val.state_dict(), trainer.agent.slowval.state_dict()
    for name in val:
        torch.testing.assert_close(slow[name], 0.98 * before[name] + 0.02 * val[name])


def test_imagination_starts_at_the_last_steps() -> None:
    spec, base = make_spec(), make_config()
    loss = LossConfig(imagine_length=4, imagine_last=2)
    config = Config("test", base.model, loss, train=base.train)
    trainer = Trainer(spec, config)
    noise = trainer.draw_noise(generator())
    assert noise.prior.shape == (6, 4, 4)
    forward = trainer.forward(make_batch(spec, config), noise)
    starts = forward.observed.state.feat[:, -2:].flatten(0, 1)
    assert torch.equal(forward.imagined.feat[:, 0], starts)
    assert forward.maps["replay_critic"].shape == (3, 1)


def test_imagined_losses_do_not_reach_the_world_model() -> None:
    spec, config = make_spec(), make_config()
    trainer = Trainer(spec, config)
    shake(trainer)
    forward = trainer.forward(make_batch(spec, config), trainer.draw_noise(generator()))
    named = dict(trainer.agent.named_parameters())
    world = [p for n, p in named.items() if n.startswith(("enc", "dyn", "dec", "rew", "con"))]
    for name in ("actor", "critic"):
        loss = forward.maps[name].mean()
        grads = torch.autograd.grad(loss, world, allow_unused=True, retain_graph=True)
        assert all(g is None for g in grads), name
    loss = forward.maps["replay_critic"].mean()
    grads = torch.autograd.grad(loss, list(trainer.agent.enc.parameters()))
    assert any(g.any() for g in grads), "the replay value loss trains the encoder"


def shake(trainer: Trainer) -> None:
    """Add noise to every weight, so that zero-initialised heads hide nothing."""
    g = generator(5)
    with torch.no_grad():
        for p in trainer.agent.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))


def test_noise_is_all_the_randomness() -> None:
    spec, config = make_spec(kind="continuous"), make_config()
    trainer, batch = Trainer(spec, config), make_batch(make_spec(kind="continuous"), config)
    noise = trainer.draw_noise(generator())
    assert torch.equal(trainer.forward(batch, noise).total, trainer.forward(batch, noise).total)
    again = trainer.draw_noise(generator())
    assert all(torch.equal(a, b) for a, b in zip(noise, again, strict=True))
    for field in Noise._fields:
        other = noise._replace(**{field: getattr(trainer.draw_noise(generator(9)), field)})
        assert not torch.equal(
            trainer.forward(batch, noise).total, trainer.forward(batch, other).total
        )


def test_state_survives_a_round_trip_bit_for_bit() -> None:
    spec, config = make_spec(), make_config(warmup=0)
    batch = make_batch(spec, config)
    one, g = Trainer(spec, config), generator()
    for _ in range(2):
        one.update(batch, one.draw_noise(g))
    two = Trainer(spec, config)
    two.load_state_dict(copy(one.state_dict()))
    noise = one.draw_noise(g)
    updates = [trainer.update(batch, noise) for trainer in (one, two)]
    assert not changed(one.state_dict(), two.state_dict())
    assert torch.equal(updates[0].metrics["loss/total"], updates[1].metrics["loss/total"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", None, "has no 'count'"),
        ("extra", torch.zeros(()), "unknown entry 'extra'"),
        ("return.low", torch.zeros(2), r"'return.low' is torch.float32 \(2,\)"),
        ("count", torch.zeros(()), "'count' is torch.float32"),
        ("return.low", torch.tensor(math.nan), "'return.low' holds values that are not finite"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    name: str, value: Tensor | None, message: str
) -> None:
    spec, config = make_spec(), make_config()
    trainer = Trainer(spec, config)
    state = copy(Trainer(spec, make_config(lr=1.0)).state_dict())
    state["agent.con.head.logit.bias"] += 1
    if value is None:
        del state[name]
    else:
        state[name] = value
    before = copy(trainer.state_dict())
    with pytest.raises(ValueError, match=message):
        trainer.load_state_dict(state)
    assert not changed(before, trainer.state_dict())


def test_bfloat16_computes_in_half_and_keeps_float32_state() -> None:
    spec, config = make_spec(MIXED), make_config()
    trainer = Trainer(spec, config, precision="bfloat16")
    batch, noise = make_batch(spec, config), trainer.draw_noise(generator())
    forward = trainer.forward(batch, noise)
    assert forward.observed.state.deter.dtype == torch.bfloat16
    assert forward.observed.state.stoch.dtype == torch.bfloat16
    assert all(m.dtype == torch.float32 for m in forward.maps.values())
    assert trainer.update(batch, noise).finite
    state = trainer.state_dict()
    assert all(t.dtype == torch.float32 for n, t in state.items() if n != "count")
    full = Trainer(spec, config).forward(batch, noise)
    for name, value in forward.maps.items():
        close = torch.isclose(value.mean(), full.maps[name].mean(), rtol=0.1, atol=0.1)
        assert close, (name, value.mean(), full.maps[name].mean())


def test_total_weighs_each_loss_once_and_observations_alike() -> None:
    """A key with the name of another setting is still only an observation."""
    one, loss = torch.ones(2, 3), LossConfig(reconstruction=2.0)
    assert weighted_total({"horizon": one, "reward": one}, loss) == 2.0 + 1.0
    names = ("dyn", "rep", "actor", "critic", "replay_critic", "cont")
    total = weighted_total(dict.fromkeys(names, one), loss)
    assert total.item() == pytest.approx(1.0 + 0.1 + 1.0 + 1.0 + 0.3 + 1.0)


def test_a_loss_without_a_weight_is_not_weighed_as_a_reconstruction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = WorldModel.world_model_losses

    def with_another(*args: Any) -> WorldModelLosses:
        made = plain(*args)
        return made._replace(maps=made.maps | {"aux": made.maps["reward"]})

    monkeypatch.setattr(WorldModel, "world_model_losses", with_another)
    trainer = Trainer(make_spec(), make_config())
    batch, noise = make_batch(trainer.spec, trainer.config), trainer.draw_noise(generator())
    with pytest.raises(AssertionError, match=r"{'aux'} have no weight"):
        trainer.update(batch, noise)


def test_state_that_would_be_lost_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Agent.__init__

    def with_statistics(self: Agent, *args: Any) -> None:
        made(self, *args)
        self.register_buffer("seen", torch.zeros(1))

    monkeypatch.setattr(Agent, "__init__", with_statistics)
    with pytest.raises(AssertionError, match="only parameters are saved"):
        Trainer(make_spec(), make_config())


def test_unusable_settings_are_refused() -> None:
    spec, base = make_spec(), make_config()
    with pytest.raises(ValueError, match="precision 'float16' is unknown"):
        Trainer(spec, base, precision="float16")
    with pytest.raises(ValueError, match="imagine_last must be 0 \\(all\\) or at least 2, got 1"):
        LossConfig(imagine_last=1)


@pytest.mark.parametrize(
    "change",
    [
        {"dyn_layers": 2},
        {"posterior_layers": 2, "prior_layers": 1},
        {"encoder_layers": 1, "decoder_layers": 2},
        {"reward_layers": 2, "cont_layers": 3, "actor_layers": 1, "critic_layers": 2},
        {"bins": 41, "unimix": 0.0},
        {"multipliers": (2, 3), "kernel": 3, "block_space": 2, "blocks": 2},
    ],
)
def test_every_shape_setting_is_obeyed(change: dict[str, Any]) -> None:
    spec, base = make_spec(MIXED), make_config()
    model = dataclasses.replace(base.model, **change)
    config = dataclasses.replace(base, model=model)
    trainer = Trainer(spec, config)
    update = trainer.update(make_batch(spec, config), trainer.draw_noise(generator()))
    assert update.finite
    names = {name for name, _ in trainer.agent.named_parameters()}
    assert ("dyn.dynhid1.kernel" in names) == (change.get("dyn_layers") == 2)
    assert ("dec.conv2.kernel" in names) == ("multipliers" not in change)
