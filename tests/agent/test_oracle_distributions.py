"""Distributions compared with the official code (a_* and b_* in tests/oracle)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracle_cases import Case, close, load, set_parameters
from torch import Tensor, nn

from dreamer_async.agent import distributions as dist
from dreamer_async.agent.coders import VectorOutput
from dreamer_async.agent.heads import Actor
from dreamer_async.agent.nets import Linear
from dreamer_async.config import ModelConfig
from dreamer_async.envs.spec import ActionSpec, ObsSpec

pytestmark = pytest.mark.oracle
TOLERANCE = 1e-5


@pytest.fixture
def a() -> Case:
    return load("a_symexp_twohot")


@pytest.fixture
def b() -> Case:
    return load("b_distributions")


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """d sum(function(x)) / dx."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


def twohot_loss(logits: Tensor, target: Tensor, bins: Tensor) -> Tensor:
    return dist.twohot_cross_entropy(torch.log_softmax(logits, -1), target, bins)


def test_symlog_and_symexp(a: Case) -> None:
    torch.testing.assert_close(dist.symlog(a["symlog/x"]), a["symlog/y"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(dist.symexp(a["symexp/x"]), a["symexp/y"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["bins", "bins_even"])
def test_bins(a: Case, name: str) -> None:
    expected = a[name]
    bins = dist.twohot_bins(len(expected))
    torch.testing.assert_close(bins, expected, rtol=1e-5, atol=0)
    assert torch.equal(bins, -bins.flip(0))


def test_twohot_target_and_loss(a: Case) -> None:
    bins, target, logits = a["bins"], a["twohot/target_value"], a["twohot/logits"]
    lower, upper, weight = dist.twohot(target, bins)
    dense = torch.zeros_like(logits).scatter_add(1, lower[:, None], weight[:, None])
    dense = dense.scatter_add(1, upper[:, None], 1.0 - weight[:, None])
    torch.testing.assert_close(dense, a["twohot/weights"], rtol=1e-5, atol=1e-5)
    loss = twohot_loss(logits, target, bins)
    torch.testing.assert_close(loss, a["twohot/loss"], rtol=1e-5, atol=0)
    close(
        gradient(lambda x: twohot_loss(x, target, bins), logits),
        a["twohot/loss_grad_logits"],
        TOLERANCE,
    )


def test_twohot_mean(a: Case) -> None:
    """The mean is a sum with terms up to 1e8: judged by the size of its terms."""
    bins, logits = a["bins"], a["pred/logits"]
    mean = dist.twohot_mean(logits, bins)
    bound = 1e-6 * (torch.softmax(logits, -1) * bins.abs()).sum(-1)
    assert ((mean - a["pred/mean_float64"]).abs() <= bound).all()
    symmetric = (logits == logits.flip(-1)).all(-1)
    assert symmetric.any() and (mean[symmetric] == 0).all()
    naive = (torch.softmax(logits, -1) * bins).sum(-1)
    assert (naive[symmetric] != 0).any(), "the order of summation matters"
    grad = gradient(lambda x: dist.twohot_mean(x, bins), logits)
    close(grad, a["pred/mean_grad_logits"], TOLERANCE)


def test_unimix_categorical(b: Case) -> None:
    share = b.settings["unimix"]
    p, q, index = b["onehot/logits"], b["onehot/logits_other"], b["onehot/event_index"]
    mixed = dist.unimix(p, share).log()
    close(mixed, b["onehot/mixed_logits"], TOLERANCE)
    close(mixed.exp(), b["onehot/probs"], TOLERANCE)
    close(dist.class_logprob(mixed, index), b["onehot/logp"], TOLERANCE)
    close(dist.class_logprob(mixed, index).sum(-1), b["onehot/agg_logp"], TOLERANCE)
    close(dist.categorical_entropy(mixed), b["onehot/entropy"], TOLERANCE)
    close(dist.categorical_entropy(mixed).sum(-1), b["onehot/agg_entropy"], TOLERANCE)
    kl = dist.categorical_kl(mixed, dist.unimix(q, share).log())
    close(kl, b["onehot/kl"], TOLERANCE)
    close(kl.sum(-1), b["onehot/agg_kl"], TOLERANCE)


def test_unimix_gradients(b: Case) -> None:
    share, p, q = b.settings["unimix"], b["onehot/logits"], b["onehot/logits_other"]
    mix = lambda x: dist.unimix(x, share).log()  # noqa: E731
    grad = gradient(lambda x: dist.categorical_entropy(mix(x)), p)
    close(grad, b["onehot/entropy_grad"], TOLERANCE)
    grad = gradient(lambda x: dist.categorical_kl(mix(x), mix(q)), p)
    close(grad, b["onehot/kl_grad_p"], TOLERANCE)
    grad = gradient(lambda x: dist.categorical_kl(mix(p), mix(x)), q)
    close(grad, b["onehot/kl_grad_q"], TOLERANCE)


def test_straight_through_sample(b: Case) -> None:
    logits, weight, index = b["onehot/logits"], b["onehot/st_weight"], b["onehot/event_index"]

    def sample(x: Tensor) -> Tensor:
        probs = dist.unimix(x, b.settings["unimix"])
        return dist.straight_through(dist.sample_class(probs, index), probs, torch.float32)

    assert torch.equal(sample(logits), b["onehot/st_sample"])
    close(gradient(lambda x: weight * sample(x), logits), b["onehot/st_grad"], TOLERANCE)


def test_discrete_policy_has_no_unimix(b: Case) -> None:
    logits, event = b["categorical/logits"], b["categorical/event"]
    logprob = lambda x: dist.class_logprob(torch.log_softmax(x, -1), event)  # noqa: E731
    entropy = lambda x: dist.categorical_entropy(torch.log_softmax(x, -1))  # noqa: E731
    close(logprob(logits), b["categorical/logp"], TOLERANCE)
    close(entropy(logits), b["categorical/entropy"], TOLERANCE)
    close(gradient(logprob, logits), b["categorical/logp_grad"], TOLERANCE)
    close(gradient(entropy, logits), b["categorical/entropy_grad"], TOLERANCE)


def test_bounded_normal(b: Case) -> None:
    x, event = b["bounded_normal/x"].requires_grad_(), b["bounded_normal/event"]
    layers = {name: Linear(x.shape[-1], event.shape[-1]) for name in ("mean", "stddev")}
    for name, layer in layers.items():
        set_parameters(layer, b.under(f"bounded_normal/params/bn/{name}/"))
    low, high = b.settings["minstd"], b.settings["maxstd"]
    mean, std = dist.bounded_normal(layers["mean"](x), layers["stddev"](x), low, high)
    close(mean, b["bounded_normal/mean"], TOLERANCE)
    close(std, b["bounded_normal/stddev"], TOLERANCE)
    logprob, entropy = dist.normal_logprob(mean, std, event), dist.normal_entropy(std)
    close(logprob, b["bounded_normal/logp"], TOLERANCE)
    close(entropy, b["bounded_normal/entropy"], TOLERANCE)
    (grad,) = torch.autograd.grad(logprob.sum() + 0.3 * entropy.sum(), x)
    close(grad, b["bounded_normal/grad_x"], TOLERANCE)


def test_widest_and_narrowest_policy(b: Case) -> None:
    size = b["bounded_normal/minent"].shape[-1]
    actor = Actor(4, ActionSpec("continuous", size), ModelConfig())
    least, most = b["bounded_normal/minent"].sum(-1), b["bounded_normal/maxent"].sum(-1)
    close(actor.randomness(least) + 1, torch.ones_like(least), TOLERANCE)
    close(actor.randomness(most), torch.ones_like(most), TOLERANCE)


def test_binary(b: Case) -> None:
    logit, target = b["binary/logit"], b["binary/target"]
    close(dist.binary_loss(logit, target), b["binary/loss"], TOLERANCE)
    close(torch.sigmoid(logit), b["binary/prob1"], TOLERANCE)
    grad = gradient(lambda x: dist.binary_loss(x, target), logit)
    close(grad, b["binary/loss_grad"], TOLERANCE)


@pytest.mark.parametrize("key", ["s", "scalar", "c"])
def test_vector_outputs(b: Case, key: str) -> None:
    x, target = b["heads/x"], b[f"heads/{key}/target"]
    params = b.under(f"heads/params/dh/{key}/")
    classes = 0 if "pred/bias" in params else len(params["logits/bias"])
    spec = ObsSpec(tuple(target.shape[1:]), "int32" if classes else "float32", classes)
    head = VectorOutput(x.shape[-1], spec)
    set_parameters(head, params)
    output = head(x)
    close(head.loss(output, target), b[f"heads/{key}/loss"], TOLERANCE)
    predicted = output.argmax(-1).float() if classes else output
    close(predicted.reshape(target.shape), b[f"heads/{key}/pred"], TOLERANCE)


def test_twohot_and_binary_heads(b: Case) -> None:
    x = b["heads/x"]
    layers = nn.ModuleDict({"t": Linear(x.shape[-1], 255), "b": Linear(x.shape[-1], 1)})
    for key, name in (("t", "logits"), ("b", "logit")):
        set_parameters(layers[key], b.under(f"heads/params/dh/{key}/{name}/"))
    logits, bins = layers["t"](x), load("a_symexp_twohot")["bins"]
    close(twohot_loss(logits, b["heads/t/target"], bins), b["heads/t/loss"], TOLERANCE)
    bound = 1e-6 * (torch.softmax(logits, -1) * bins.abs()).sum(-1)
    assert ((dist.twohot_mean(logits, bins) - b["heads/t/pred"]).abs() <= 2 * bound).all()
    logit = layers["b"](x).squeeze(-1)
    close(dist.binary_loss(logit, b["heads/b/target"]), b["heads/b/loss"], TOLERANCE)
    assert torch.equal((logit > 0).float(), b["heads/b/pred"])
