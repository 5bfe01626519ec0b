"""Losses and the return range: literal arrays, literal answers."""

from __future__ import annotations

import math

import pytest
import torch

from dreamer_async.agent.losses import (
    actor_loss,
    imagined_return,
    imagined_weight,
    kl_losses,
    lambda_return,
    replay_return,
)
from dreamer_async.agent.normalize import ReturnRange, percentile, return_scale, update_range
from dreamer_async.fast.cuda import ops


def test_lambda_return() -> None:
    """ret_1 = 3 + 0.5 (0.5 * 40 + 0.5 * 40) = 23;  ret_0 = 2 + 0.5 (0.5 * 20 + 0.5 * 23)."""
    reward = torch.tensor([[99.0, 2.0, 3.0]])
    live = torch.tensor([[99.0, 0.5, 0.5]])
    cont = torch.tensor([[99.0, 0.5, 0.5]])
    boot = torch.tensor([[99.0, 20.0, 40.0]])
    assert lambda_return(reward, live, cont, boot).tolist() == [[12.75, 23.0]]


def test_lambda_one_is_the_discounted_sum() -> None:
    reward, value = torch.tensor([[0.0, 1.0, 1.0, 1.0]]), torch.tensor([[5.0, 6.0, 7.0, 8.0]])
    ret = imagined_return(reward, torch.full((1, 4), 0.5), value, 1.0)
    assert ret.tolist() == [[1 + 0.5 + 0.25 + 1, 1 + 0.5 + 2, 1 + 4]]


def test_lambda_zero_is_one_step() -> None:
    reward, value = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[5.0, 6.0, 8.0]])
    assert imagined_return(reward, torch.full((1, 3), 0.5), value, 0.0).tolist() == [[4.0, 6.0]]


def test_replay_return_stops_at_the_end() -> None:
    """No value beyond a terminal step; beyond a time limit only the bootstrap of that step."""
    reward, boot = torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[7.0, 10.0, 20.0]])
    yes, no = torch.tensor([[False, True, False]]), torch.zeros(1, 3, dtype=torch.bool)
    kept = 0.5, 0.5  # discount, lambda
    assert replay_return(reward, yes, yes, boot, *kept).tolist() == [[1.0, 15.0]]
    assert replay_return(reward, no, yes, boot, *kept).tolist() == [[6.0, 15.0]]
    # ret_0 = 1 + 0.5 (0.5 * 10 + 0.5 * 15)
    assert replay_return(reward, no, no, boot, *kept).tolist() == [[7.25, 15.0]]


def test_weight_starts_with_the_start_state() -> None:
    cont = torch.tensor([[0.5, 0.5, 1.0]])
    assert imagined_weight(cont).tolist() == [[0.5, 0.25, 0.25]]
    assert imagined_weight(cont, 0.5).tolist() == [[0.5, 0.125, 0.0625]]


def test_actor_loss_and_its_gradient() -> None:
    logprob = torch.tensor([[-1.0]], requires_grad=True)
    entropy = torch.tensor([[2.0]], requires_grad=True)
    advantage = torch.tensor([[3.0]], requires_grad=True)
    loss = actor_loss(logprob, entropy, advantage, torch.tensor([[0.5]]), 0.1)
    assert loss.item() == pytest.approx(-0.5 * (-3.0 + 0.2))
    grads = torch.autograd.grad(loss.sum(), (logprob, entropy, advantage), allow_unused=True)
    assert grads[0].item() == -1.5 and grads[1].item() == pytest.approx(-0.05)
    assert grads[2] is None


def test_kl_losses_clip_after_the_sum() -> None:
    """Two variables of 0.8 nats each are above the clip together, though not alone."""
    quiet, loud = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.998, 0.002]).log()
    post = torch.stack([loud, loud]).expand(1, 1, 2, 2).clone().requires_grad_()
    prior = quiet.expand(1, 1, 2, 2).clone().requires_grad_()
    dyn, rep = kl_losses(post, prior, 1.0)
    kl = 2 * (0.998 * math.log(0.998 / 0.5) + 0.002 * math.log(0.002 / 0.5))
    assert 0.5 < kl / 2 < 1.0
    assert dyn.item() == rep.item() == pytest.approx(kl)
    assert torch.autograd.grad(dyn.sum(), post, retain_graph=True, allow_unused=True)[0] is None
    assert torch.autograd.grad(rep.sum(), prior, allow_unused=True)[0] is None


def test_no_gradient_below_the_free_nats() -> None:
    post = torch.tensor([[[[0.6, 0.4]]]]).log().requires_grad_()
    prior = torch.tensor([[[[0.5, 0.5]]]]).log().requires_grad_()
    dyn, rep = kl_losses(post, prior, 1.0)
    assert dyn.item() == rep.item() == 1.0
    assert not torch.autograd.grad(rep.sum(), post)[0].any()
    assert not torch.autograd.grad(dyn.sum(), prior)[0].any()


def test_percentile_interpolates() -> None:
    ordered = torch.tensor([0.0, 10.0, 20.0, 40.0])
    assert percentile(ordered, 50).item() == 15.0
    assert percentile(ordered, 0).item() == 0.0
    assert percentile(ordered, 100).item() == 40.0
    assert percentile(ordered, 90).item() == pytest.approx(34.0)
    random = torch.randn(101, generator=torch.Generator().manual_seed(0))
    expected = torch.quantile(random, 0.05)
    torch.testing.assert_close(percentile(random.sort().values, 5), expected)


def test_return_range_moves_by_its_rate_and_has_a_floor() -> None:
    returns = torch.linspace(-100, 100, 201)
    state = update_range(ReturnRange.initial(), returns, 0.01, 5, 95)
    torch.testing.assert_close(torch.stack(state), torch.tensor([-0.9, 0.9]))
    torch.testing.assert_close(return_scale(state, 1.0), torch.tensor(1.8))
    assert return_scale(state, 5.0) == 5.0
    state = update_range(state, returns, 0.01, 5, 95)
    torch.testing.assert_close(state.high, torch.tensor(0.99 * 0.9 + 0.9))


def test_returns_as_sums_are_those_of_the_recursion() -> None:
    generator = torch.Generator().manual_seed(0)
    reward, live, cont, boot = torch.rand(4, 7, 20, generator=generator, dtype=torch.float64)
    live[:, 5], cont[:, 11], live[2] = 0.0, 0.0, 0.0
    sums = ops.lambda_return(reward, live, cont, boot)
    torch.testing.assert_close(sums, lambda_return(reward, live, cont, boot), rtol=1e-12, atol=0.0)
