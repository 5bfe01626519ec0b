"""Returns, return range and actor-critic losses compared with the official code (e_*)."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from oracle_cases import Case, close, load
from torch import Tensor

from dreamer_async.agent import distributions as dist
from dreamer_async.agent.losses import (
    actor_loss,
    imagined_return,
    imagined_weight,
    lambda_return,
    replay_return,
)
from dreamer_async.agent.normalize import ReturnRange, return_scale, update_range

pytestmark = pytest.mark.oracle
TOLERANCE = 1e-5


@pytest.fixture
def e() -> Case:
    return load("e_returns")


@pytest.mark.parametrize("index", range(3))
def test_replay_returns(e: Case, index: int) -> None:
    discount, lam = (float(e[f"lambda_return/{index}/{k}"]) for k in ("disc", "lam"))
    reward, terminal, last, boot = (
        e[f"lambda_return/{k}"] for k in ("rew", "term", "last", "boot")
    )
    ret = replay_return(reward, terminal, last, boot, discount, lam)
    close(ret, e[f"lambda_return/{index}/ret"], TOLERANCE)


def test_soft_returns(e: Case) -> None:
    live = 1.0 - e["lambda_return/term_soft"]
    lam = torch.full_like(live, 0.95)
    ret = lambda_return(e["lambda_return/rew"], live, lam, e["lambda_return/boot"])
    close(ret, e["lambda_return/ret_soft"], TOLERANCE)


def test_return_range(e: Case) -> None:
    s = e.settings["retnorm"]
    state = ReturnRange.initial()
    for step, returns in enumerate(e["retnorm/x"]):
        state = update_range(state, returns, s["rate"], s["perclo"], s["perchi"])
        close(state.low, e["retnorm/lo"][step], TOLERANCE)
        close(state.high, e["retnorm/hi"][step], TOLERANCE)
        close(return_scale(state, s["limit"]), e["retnorm/scale"][step], TOLERANCE)


class Inputs(NamedTuple):
    """The differentiable inputs of the imagination losses."""

    disc_logits: Tensor
    cont_mean: Tensor
    cont_std: Tensor
    value_logits: Tensor


@pytest.mark.parametrize("kind", ["disc", "cont", "both", "disc_nocontdisc"])
def test_imagination_losses_and_gradients(e: Case, kind: str) -> None:
    inputs = Inputs(*(e[f"imag/{name}"].clone().requires_grad_() for name in Inputs._fields))
    s, bins, rew, con = e.settings, e["bins"], e["imag/rew"], e["imag/con"]
    discount = 1.0 - 1.0 / s["horizon"] if kind.endswith("nocontdisc") else 1.0
    value = dist.twohot_mean(inputs.value_logits.detach(), bins)
    slow = dist.twohot_mean(e["imag/slow_logits"], bins)
    bound = 1e-6 * (torch.softmax(inputs.value_logits, -1) * bins.abs()).sum(-1)
    assert ((value - e["imag/value_pred"]).abs() <= 2 * bound).all()
    ret = imagined_return(rew, discount * con, value, s["lam"])
    close(ret, e[f"imag/{kind}/ret"], TOLERANCE, "ret")
    before = ReturnRange(e["imag/retnorm_lo"], e["imag/retnorm_hi"])
    moved = update_range(before, ret, 0.01, 5, 95)
    close(moved.low, e[f"imag/{kind}/retnorm_lo_after"], TOLERANCE)
    close(moved.high, e[f"imag/{kind}/retnorm_hi_after"], TOLERANCE)
    advantage = (ret - value[:, :-1]) / return_scale(moved, 1.0)
    close(advantage.mean(), e[f"imag/{kind}/metric/adv"], TOLERANCE)
    weight = imagined_weight(con, discount)[:, :-1]
    logprob, entropy = policy(e, inputs, kind)
    actor = actor_loss(logprob, entropy, advantage, weight, s["actent"])
    close(actor, e[f"imag/{kind}/loss/policy"], TOLERANCE, "policy")
    logits = torch.log_softmax(inputs.value_logits[:, :-1], -1)
    critic = dist.twohot_cross_entropy(logits, ret, bins)
    critic = weight * (
        critic + s["slowreg"] * dist.twohot_cross_entropy(logits, slow[:, :-1], bins)
    )
    close(critic, e[f"imag/{kind}/loss/value"], TOLERANCE, "value")
    expected = e.under(f"imag/{kind}/grad/")
    grads = torch.autograd.grad(
        actor.mean() + critic.mean(), [getattr(inputs, name) for name in expected]
    )
    for name, grad in zip(expected, grads, strict=True):
        close(grad, expected[name], TOLERANCE, name)


def policy(e: Case, inputs: Inputs, kind: str) -> tuple[Tensor, Tensor]:
    """Log probabilities and entropies, summed over the action heads of a kind: [R, H]."""
    logprob = entropy = torch.zeros(())
    if not kind.startswith("cont"):
        logits = torch.log_softmax(inputs.disc_logits, -1)
        logprob = logprob + dist.class_logprob(logits, e["imag/disc_action"])
        entropy = entropy + dist.categorical_entropy(logits)
    if not kind.startswith("disc"):
        mean, std = inputs.cont_mean, inputs.cont_std
        logprob = logprob + dist.normal_logprob(mean, std, e["imag/cont_action"])
        entropy = entropy + dist.normal_entropy(std)
    return logprob[:, :-1], entropy[:, :-1]


def test_replay_critic_loss(e: Case) -> None:
    last, terminal, reward, boot = (e[f"repl/{k}"] for k in ("last", "term", "rew", "boot"))
    s, bins = e.settings, e["bins"]
    ret = replay_return(reward, terminal, last, boot, 1.0 - 1.0 / s["horizon"], s["lam"])
    close(ret, e["repl/ret"], TOLERANCE)
    logits = e["imag/value_logits"].clone().requires_grad_()
    slow = dist.twohot_mean(e["imag/slow_logits"], bins)[:, :-1]
    logprobs = torch.log_softmax(logits[:, :-1], -1)
    loss = dist.twohot_cross_entropy(logprobs, ret, bins)
    loss = loss + s["slowreg"] * dist.twohot_cross_entropy(logprobs, slow, bins)
    loss = (1.0 - last[:, :-1].float()) * loss
    close(loss, e["repl/loss"], TOLERANCE)
    (grad,) = torch.autograd.grad(loss.mean(), logits)
    close(grad, e["repl/grad_value_logits"], TOLERANCE)
