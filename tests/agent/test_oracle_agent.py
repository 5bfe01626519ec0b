"""Whole updates of tiny agents, compared with the official code (g_* in tests/oracle)."""

from __future__ import annotations

import functools
import os
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from agent_cases import no_triton
from backends import backend, least_gap
from oracle_cases import (
    Case,
    close,
    config,
    env_spec,
    layout,
    load,
    names,
    our_name,
    ours,
    set_parameters,
)
from torch import Tensor

from dreamer_async.agent import Batch, Noise, Policy, Trainer, Update
from dreamer_async.agent.policy import PolicyCarry, PolicyNoise
from dreamer_async.agent.trainer import Forward
from dreamer_async.fast.cuda import fused
from dreamer_async.fast.cuda.updates import Updates
from dreamer_async.machine.device import set_arithmetic

pytestmark = pytest.mark.oracle
FUSED = "fused"
"""Instead of a backend: the card's, with Triton's kernels for filtering."""
DEVICE = os.environ.get("ORACLE_DEVICE", "cpu")
"""Where the update is computed, such as cuda."""
WAYS = ["PyTorch", "native", "CUDA"] if DEVICE == "cpu" else ["PyTorch", "CUDA"]
CASES = [
    *(f"{name} {way}" for name in names("g_*") or ["g_none"] for way in WAYS),
    *(f"{name} {FUSED}" for name in names("g_vec_*") if not no_triton()),
]
TOLERANCE = 5e-5
TIED = 2e-4
"""Instead, for the encoder's gradients where rounding decides which pixel of a pool is largest."""
TIE = 1e-5
"""How near two of 2x2 pixels are, in standard deviations of the map, for rounding to decide."""
LOSSES = {
    "rew": "reward", "con": "cont", "policy": "actor", "value": "critic",
    "repval": "replay_critic",
}  # fmt: skip


class Run(NamedTuple):
    """One case, replayed by the code that trains."""

    case: Case
    trainer: Trainer
    batch: Batch
    noise: Noise
    before: Forward
    grads: dict[str, Tensor]
    update: Update


def forced(action: Tensor) -> Tensor:
    """Noise that makes the actor take a recorded action."""
    return action.long() if not action.is_floating_point() else action.double()


def make_batch(case: Case, trainer: Trainer) -> Batch:
    return Batch(
        {key: case[f"data/{key}"] for key in trainer.spec.obs},
        case["data/action"],
        case["data/reward"],
        case["data/is_first"],
        case["data/is_last"],
        case["data/is_terminal"],
        case["in/carry/deter"],
        case["in/carry/stoch"].argmax(-1),
    )


@functools.cache
def run(name: str) -> Run:
    case, way = load(name.split()[0]), name.split()[1]
    set_arithmetic(torch.device(DEVICE), "float32")
    chosen = backend("CUDA" if way == FUSED else way)
    settings = env_spec(case.settings), config(case.settings)
    trainer = Trainer(*settings, DEVICE, backend=chosen)
    set_parameters(trainer.agent, case.under("params/"))
    if way == FUSED:
        loops = fused.filtering(trainer.agent.dyn, trainer.agent.dtype)
        Updates(trainer).fuse_filtering(loops)
    trainer.range.low.copy_(case["state/retnorm/lo/value"])
    trainer.range.high.copy_(case["state/retnorm/hi/value"])
    batch = make_batch(case, trainer).map(lambda tensor: tensor.to(DEVICE))
    action = forced(case["img/action/action"][:, :-1])
    noise = Noise(case["sample/post_index"], case["sample/img_index"], action)
    noise = noise.map(lambda tensor: tensor.to(DEVICE))
    forward, grads = on_cpu(trainer.gradients(batch, noise))
    named = dict(zip(trainer.optim.names, grads, strict=True))
    update = on_cpu(trainer.update(batch, noise))
    return Run(case, *on_cpu((trainer, batch, noise, forward, named, update)))


def on_cpu(value: Any) -> Any:
    """The same results, wherever they were computed."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, Trainer):
        value.agent.cpu()
        value.range = on_cpu(value.range)
    elif isinstance(value, dict):
        return {key: on_cpu(part) for key, part in value.items()}
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(on_cpu, value))
    elif isinstance(value, tuple | list):
        return type(value)(map(on_cpu, value))
    return value


@pytest.mark.parametrize("name", CASES)
def test_world_model_outputs(name: str) -> None:
    r = run(name)
    state, case = r.before.observed.state, r.case
    close(r.before.embed, case["out/tokens"], TOLERANCE, "tokens")
    close(state.deter, case["out/repfeat/deter"], TOLERANCE, "deter")
    close(r.before.observed.logits, case["out/repfeat/logit"], TOLERANCE, "logits")
    assert torch.equal(state.stoch, case["out/repfeat/stoch"])
    assert torch.equal(state.stoch[:, -1], case["out/carry/stoch"])
    with torch.no_grad():
        trainer_before = fresh(r)
        close(trainer_before.agent.dyn.prior(state.deter), case["out/prior_logit"], TOLERANCE)


def fresh(r: Run) -> Trainer:
    """The same agent with the parameters from before the update."""
    trainer = Trainer(r.trainer.spec, r.trainer.config)
    set_parameters(trainer.agent, r.case.under("params/"))
    return trainer


@pytest.mark.parametrize("name", CASES)
def test_imagination_outputs(name: str) -> None:
    r = run(name)
    case, ac = r.case, r.before.actor_critic
    feat = torch.cat([case["img/feat/deter"], case["img/feat/stoch"].flatten(-2)], -1)
    close(r.before.imagined.feat[:, 1:], feat, TOLERANCE, "feat")
    close(r.before.imagined.action.double(), case["img/action/action"][:, :-1], 1e-7, "action")
    close(ac.reward, case["img/rew"], TOLERANCE, "reward")
    close(ac.cont, case["img/con"], TOLERANCE, "cont")
    close(ac.value, case["img/val"], TOLERANCE, "value")
    close(ac.slow, case["img/slowval"], TOLERANCE, "slow")
    close(ac.ret, case["img/ret"], TOLERANCE, "ret")
    close(ac.replay_ret, case["repl/ret"], TOLERANCE, "replay_ret")
    close(ac.ret[:, 0].reshape(case["repl/boot"].shape), case["repl/boot"], TOLERANCE, "boot")
    close(ac.actor, case["img/loss/policy"], TOLERANCE, "actor")
    close(ac.critic, case["img/loss/value"], TOLERANCE, "critic")


@pytest.mark.parametrize("name", CASES)
def test_policy_distribution(name: str) -> None:
    r = run(name)
    agent = fresh(r).agent
    params = agent.pol(r.before.imagined.feat)
    expected = r.case.under("img/policy/action/")
    if agent.spec.action.kind == "discrete":
        close(params[0], torch.log_softmax(expected["logits"], -1), TOLERANCE, "logits")
    else:
        close(params[0], expected["mean"], TOLERANCE, "mean")
        close(params[1], expected["stddev"], TOLERANCE, "std")
    close(agent.val(r.before.imagined.feat), r.case["img/value_logits"], TOLERANCE, "value logits")


@pytest.mark.parametrize("name", CASES)
def test_every_loss_map_and_the_total(name: str) -> None:
    r = run(name)
    maps = dict(r.before.maps)
    shape = r.case["loss_map/value"].shape
    for key in ("actor", "critic"):
        maps[key] = maps[key].mean(1).reshape(shape)
    expected = {LOSSES.get(k, k): v for k, v in r.case.under("loss_map/").items()}
    assert sorted(maps) == sorted(expected)
    for key, value in expected.items():
        close(maps[key], value, TOLERANCE, key)
        metric = r.update.metrics[f"loss/{key}"]
        official = {v: k for k, v in LOSSES.items()}.get(key, key)
        close(metric, r.case[f"loss_mean/{official}"], TOLERANCE, key)
    close(r.before.total, r.case["loss_total"], TOLERANCE, "total")


@pytest.mark.parametrize("name", CASES)
def test_every_gradient(name: str) -> None:
    r = run(name)
    expected = ours(r.case.under("grads/"))
    assert sorted(expected) == sorted(r.grads)
    for key, value in expected.items():
        close(r.grads[key], value, TIED if key in turned_ties(r, name) else TOLERANCE, key)


def turned_ties(r: Run, name: str) -> set[str]:
    """Gradients that are off where that may be because two pixels of a pool are as large.

    PyTorch's own operations round as the official code does in all recordings.
    """
    if name.endswith("PyTorch"):
        return set()
    official = ours(r.case.under("grads/"))
    off = {
        key
        for key, grad in r.grads.items()
        if (grad - official[key]).abs().max() > TOLERANCE * official[key].abs().max()
    }
    return {key for key in off if key.startswith("enc.cnn") and gap(r) < TIE}


def gap(r: Run) -> float:
    """How near two pixels of a pool are, with the parameters from before the update."""
    obs = {key: x[:, 1:].flatten(0, 1) for key, x in r.batch.obs.items()}
    return least_gap(fresh(r).agent.enc, obs)


@pytest.mark.parametrize("name", CASES)
def test_parameters_after_the_update(name: str) -> None:
    r = run(name)
    expected = r.case.under("params_after/")
    own = dict(r.trainer.agent.named_parameters())
    assert len(expected) == len(own)
    for key, value in expected.items():
        error = (own[our_name(key)].detach() - layout(value, key)).abs()
        error = error[~undecided(r, key)]
        assert not error.numel() or error.max() <= 5e-6, (key, error.max())


def undecided(r: Run, key: str) -> Tensor:
    """Where rounding decides about the first step, which is as long for any gradient but zero.

    That is what the recording says, and where a gradient within the tolerance of zero has another
    sign here.
    """
    critic = key.replace("slowval/", "val/")  # which the slow one follows
    official, own = layout(r.case[f"grads/{critic}"], key), r.grads[our_name(critic)]
    turned = (official * own < 0) & (own.abs() <= TOLERANCE * official.abs().max())
    known = r.case.tensors.get(f"ill_conditioned/{key}")
    return turned if known is None else turned | layout(known, key)


@pytest.mark.parametrize("name", CASES)
def test_the_update_moved_parameters_and_slow_critic(name: str) -> None:
    """Negative control: the comparison above would notice a missing update."""
    case = load(name.split()[0])
    before, after = case.under("params/"), case.under("params_after/")
    for part in ("dyn/", "val/", "slowval/"):
        change = max((after[k] - before[k]).abs().max() for k in after if k.startswith(part))
        assert change > 1e-5, part


@pytest.mark.parametrize("name", CASES)
def test_normaliser_and_metrics(name: str) -> None:
    r = run(name)
    close(r.trainer.range.low, r.case["state_after/retnorm/lo/value"], TOLERANCE)
    close(r.trainer.range.high, r.case["state_after/retnorm/hi/value"], TOLERANCE)
    scale = r.update.metrics["return/S"]
    metrics = {
        "opt/grad_norm": "mets/opt/grad_norm",
        "opt/grad_rms": "mets/opt/grad_rms",
        "opt/param_rms": "mets/opt/param_rms",
        "adv/mean": "mets/metric/adv",
        "adv/std": "mets/metric/adv_std",
        "adv/mag": "mets/metric/adv_mag",
        "imagine/reward": "mets/metric/rew",
        "imagine/cont": "mets/metric/con",
        "return/rate": "mets/metric/ret_rate",
        "value/mean": "mets/metric/val",
        "value/slow": "mets/metric/slowval",
        "policy/entropy": "mets/metric/ent/action",
        "rssm/posterior_entropy": "mets/metric/rep_ent",
        "rssm/prior_entropy": "mets/metric/dyn_ent",
    }
    for key, official in metrics.items():
        if official in r.case.tensors:
            close(r.update.metrics[key], r.case[official], TOLERANCE, key)
    # The official metric normalises the returns; ours keeps the units of the reward.
    normalised = (r.update.metrics["return/mean"] - r.trainer.range.low) / scale
    close(normalised, r.case["mets/metric/ret"], TOLERANCE, "return/mean")


@pytest.mark.parametrize("name", CASES)
def test_replay_write_back(name: str) -> None:
    r = run(name)
    deter, stoch = r.case["replay_update/dyn/deter"], r.case["replay_update/dyn/stoch"]
    assert r.update.deter.dtype == torch.float16 and r.update.stoch.dtype == torch.uint8
    assert bool(r.update.finite)
    assert torch.equal(r.update.stoch.long(), stoch.argmax(-1))
    assert torch.equal(r.update.deter, r.before.observed.state.deter.half())
    close(r.before.observed.state.deter, deter, TOLERANCE, "deter")


@pytest.mark.parametrize("name", CASES)
def test_one_policy_call(name: str) -> None:
    r = run(name)
    chosen = backend(name.split()[1].replace(FUSED, "CUDA"))
    policy = Policy(r.trainer.spec, r.trainer.config, backend=chosen)
    policy.load(r.trainer.agent)
    carry = PolicyCarry(
        r.case["policy/carry/deter"],
        r.case["policy/carry/stoch"],
        r.case["policy/carry/prevact/action"],
    )
    noise = PolicyNoise(r.case["policy/post_index"], forced(r.case["policy/action/action"]))
    obs = {key: r.case[f"policy/obs/{key}"] for key in r.trainer.spec.obs}
    after = policy.step(obs, r.case["policy/obs/is_first"], carry, noise)
    close(after.deter, r.case["policy/deter"], TOLERANCE, "deter")
    assert torch.equal(after.stoch.argmax(-1), r.case["policy/post_index"].long())
    np.testing.assert_allclose(after.action.numpy(), r.case["policy/action/action"].numpy())


@pytest.mark.parametrize("name", CASES)
def test_one_wrong_class_is_noticed(name: str) -> None:
    """Negative control: another posterior class moves the outputs far beyond the tolerance."""
    r = run(name)
    posterior = r.noise.posterior.clone()
    classes = r.trainer.config.model.classes
    posterior[0, 0, 0] = (posterior[0, 0, 0] + 1) % classes
    forward = fresh(r).forward(r.batch, r.noise._replace(posterior=posterior))
    with pytest.raises(AssertionError, match="deter"):
        close(forward.observed.state.deter, r.case["out/repfeat/deter"], TOLERANCE, "deter")


@pytest.mark.parametrize("name", CASES)
def test_what_rounding_decides_is_little(name: str) -> None:
    """Negative control: nearly all parameters are compared, as in the recording."""
    r, left_out, known = run(name), 0, 0
    for key in r.case.under("params_after/"):
        left_out += int(undecided(r, key).sum())
        known += int(r.case.tensors.get(f"ill_conditioned/{key}", torch.zeros(1)).sum())
    assert left_out - known <= 1e-3 * sum(g.numel() for g in r.grads.values())


def test_ties_explain_little() -> None:
    """Negative control: nearly all gradients of encoders are compared strictly, too."""
    turned = [name for name in CASES if turned_ties(run(name), name)]
    assert len(turned) <= 1, turned
