"""Distributions: literal answers, and what sampling promises."""

from __future__ import annotations

import math

import pytest
import torch

from dreamer_async.agent import distributions as dist
from dreamer_async.agent.losses import twohot_loss
from dreamer_async.fast.cuda import ops

NAN = float("nan")


def test_symlog_and_symexp() -> None:
    x = torch.tensor([0.0, math.e - 1, -(math.e**2 - 1)])
    torch.testing.assert_close(dist.symlog(x), torch.tensor([0.0, 1.0, -2.0]))
    torch.testing.assert_close(dist.symexp(dist.symlog(x)), x)


def test_unimix() -> None:
    logits = torch.tensor([1000.0, 0.0, 0.0, 0.0])
    probs = dist.unimix(logits, 0.01)
    torch.testing.assert_close(probs, torch.tensor([0.9925, 0.0025, 0.0025, 0.0025]))


@pytest.mark.parametrize("share", [0.01, 0.0])
def test_logarithms_are_finite_and_have_gradients_for_any_logits(share: float) -> None:
    logits = torch.tensor([300.0, 0.0, -300.0, 1.0], requires_grad=True)
    logs = dist.mixed_logprobs(logits, share)
    (grad,) = torch.autograd.grad(dist.categorical_kl(logs.detach(), logs), [logits])
    assert logs.isfinite().all() and grad.isfinite().all()
    near = torch.tensor([0.3, -1.0, 2.0])
    torch.testing.assert_close(dist.mixed_logprobs(near, share), dist.unimix(near, share).log())


def test_sample_class_inverts_the_cdf() -> None:
    probs = torch.tensor([0.2, 0.0, 0.3, 0.5]).expand(6, 4)
    uniform = torch.tensor([0.0, 0.19, 0.21, 0.49, 0.51, 0.999999])
    assert dist.sample_class(probs, uniform).tolist() == [0, 0, 2, 2, 3, 3]


def test_sample_class_never_leaves_the_classes() -> None:
    probs = torch.tensor([[0.3, 0.3, 0.3]])  # rounding: does not sum to 1
    assert dist.sample_class(probs, torch.tensor([1.0])).tolist() == [2]


def test_integer_noise_is_the_class() -> None:
    probs = torch.tensor([[0.2, 0.8], [1.0, 0.0]])
    assert dist.sample_class(probs, torch.tensor([0, 1])).tolist() == [0, 1]


def test_sample_frequencies() -> None:
    probs = torch.tensor([0.1, 0.2, 0.7])
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    index = dist.sample_class(probs.expand(20_000, 3), uniform)
    counts = torch.bincount(index, minlength=3) / 20_000
    torch.testing.assert_close(counts, probs, atol=0.01, rtol=0)


def test_onehot_of_a_missing_class_is_zero() -> None:
    hot = dist.onehot(torch.tensor([2, -1]), 3, torch.float32)
    assert hot.tolist() == [[0, 0, 1], [0, 0, 0]]


def test_straight_through_is_onehot_in_value_and_probabilities_in_gradient() -> None:
    probs = torch.tensor([0.1, 0.9], requires_grad=True)
    sample = dist.straight_through(torch.tensor(0), probs, torch.float32)
    assert sample.tolist() == [1.0, 0.0]
    (grad,) = torch.autograd.grad((sample * torch.tensor([3.0, 5.0])).sum(), probs)
    assert grad.tolist() == [3.0, 5.0]


def test_kl_and_entropy() -> None:
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert dist.categorical_kl(p, q).item() == pytest.approx(expected)
    assert dist.categorical_entropy(p).item() == pytest.approx(math.log(2))


def test_normal() -> None:
    mean, std = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])
    x = torch.tensor([1.0, 1.0])
    expected = -0.5 - math.log(2) - math.log(2 * math.pi)
    assert dist.normal_logprob(mean, std, x).item() == pytest.approx(expected)
    entropy = math.log(2) + math.log(2 * math.pi * math.e)
    assert dist.normal_entropy(std).item() == pytest.approx(entropy)
    assert dist.sample_normal(mean, std, torch.tensor([1.0, -1.0])).tolist() == [1.0, -1.0]
    forced = torch.tensor([7.0, 8.0], dtype=torch.float64)
    assert dist.sample_normal(mean, std, forced).tolist() == [7.0, 8.0]


def test_bounded_normal_is_bounded() -> None:
    mean, std = dist.bounded_normal(torch.tensor([99.0, 0.0]), torch.tensor([99.0, -99.0]), 0.1, 1)
    assert mean.tolist() == [1.0, 0.0]
    torch.testing.assert_close(std, torch.tensor([1.0, 0.1]))


def test_binary_loss() -> None:
    loss = dist.binary_loss(torch.tensor([0.0, 100.0]), torch.tensor([0.3, 1.0]))
    torch.testing.assert_close(loss, torch.tensor([math.log(2), 0.0]))


def test_symlog_mse_sums_without_a_half() -> None:
    loss = dist.symlog_mse(torch.tensor([[1.0, 3.0]]), torch.tensor([[math.e - 1, 0.0]]))
    torch.testing.assert_close(loss, torch.tensor([9.0]))


def test_bins_are_mirrored_and_hold_zero() -> None:
    bins = dist.twohot_bins(255)
    assert bins[127] == 0 and torch.equal(bins, -bins.flip(0))
    assert bins[-1].item() == pytest.approx(math.exp(20) - 1, rel=1e-6)
    assert dist.twohot_bins(4).tolist()[1:3] == [0, 0]


def test_twohot_interpolates_in_raw_space() -> None:
    bins = torch.tensor([-10.0, -1.0, 0.0, 1.0, 10.0])
    x = torch.tensor([0.25, 1.0, 3.25, -99.0, 99.0, 10.0])
    lower, upper, weight = dist.twohot(x, bins)
    assert lower.tolist() == [2, 3, 3, 0, 4, 4]
    assert upper.tolist() == [3, 4, 4, 0, 4, 4]
    torch.testing.assert_close(weight, torch.tensor([0.75, 1.0, 0.75, 1.0, 1.0, 1.0]))


def test_twohot_keeps_nan() -> None:
    """A NaN target must make the loss NaN, or a broken reward would be trained on."""
    bins = torch.tensor([-1.0, 0.0, 1.0])
    loss = dist.twohot_cross_entropy(torch.zeros(1, 3).log_softmax(-1), torch.tensor([NAN]), bins)
    assert loss.isnan().all()


def test_twohot_loss() -> None:
    bins = torch.tensor([-1.0, 0.0, 1.0])
    logprobs = torch.tensor([[0.5, 0.25, 0.25]]).log()
    loss = dist.twohot_cross_entropy(logprobs, torch.tensor([-0.5]), bins)
    assert loss.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))


def test_what_a_gpu_is_given_instead_of_gathering_is_the_same() -> None:
    """Gradients included."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 9, generator=generator, dtype=torch.float64).requires_grad_()
    bins = dist.twohot_bins(9).double()
    targets = (
        (1.0, torch.tensor([0.3, -4e7, 0.0, 9e9, -2.0]).double()),
        (0.5, torch.randn(5, generator=generator, dtype=torch.float64)),
    )
    for given in (targets, targets[:1]):
        sums, gathered = (loss(logits, bins, *given) for loss in (ops.twohot_loss, twohot_loss))
        torch.testing.assert_close(sums, gathered, rtol=1e-12, atol=1e-12)
        grads = [torch.autograd.grad(x.square().sum(), logits)[0] for x in (sums, gathered)]
        torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_log_probabilities_of_classes_are_gathered() -> None:
    generator = torch.Generator().manual_seed(0)
    logprobs = torch.randn(5, 9, generator=generator).requires_grad_()
    index = torch.randint(0, 9, (5,), generator=generator)
    ours, gathered = dist.class_logprob(logprobs, index), logprobs.gather(-1, index[:, None])[:, 0]
    assert torch.equal(ours, gathered)
    grads = [torch.autograd.grad(x.square().sum(), logprobs)[0] for x in (ours, gathered)]
    assert torch.equal(*grads)


def test_twohot_mean_of_symmetric_logits_is_exactly_zero() -> None:
    bins = dist.twohot_bins(255)
    logits = torch.randn(16, 255, generator=torch.Generator().manual_seed(0))
    logits = logits + logits.flip(-1)
    assert (dist.twohot_mean(logits, bins) == 0).all()


def test_twohot_mean_of_two_bins() -> None:
    bins = torch.tensor([-10.0, -1.0, 0.0, 1.0, 10.0])
    logits = torch.tensor([0.0, 0.0, 0.0, 0.75, 0.25]).log()
    assert dist.twohot_mean(logits, bins).item() == pytest.approx(3.25)
