"""Distributions as free functions of float32 tensors: eq. 1, 2 and 8 to 10.

Symlog (eq. 1 and 2), the categorical of the latents and of discrete actions, the normal of
continuous actions, and the two-hot distribution of rewards and values (eq. 8 to 10). The bins of
the last lie at symexp(-20 .. 20) and their mean is taken as it is, as in the later versions of the
paper: the first preprint has bins -20 .. 20 and symexp around the mean.

All randomness is an input: whoever samples passes the random numbers, so that everybody who
computes an update takes the same path, and samples may be given.

Read `losses` next, which is made of these.

Legend: K classes, A action dimensions, M bins; what stands before them, [...], is any.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """Eq. 2: sign(x) ln(1 + |x|)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Eq. 2: sign(x) (exp(|x|) - 1), the inverse of symlog."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


# -- categorical -------------------------------------------------------------------------------


def unimix(logits: Tensor, share: float) -> Tensor:
    """Mix a categorical with the uniform one: logits [..., K] -> probabilities [..., K].

    (1 - share) softmax(l) + share / K.
    """
    return (1.0 - share) * torch.softmax(logits.float(), -1) + share / logits.shape[-1]


def mixed_logprobs(logits: Tensor, share: float) -> Tensor:
    """The logarithm of `unimix`: [..., K], finite for any logits."""
    if share > 0:
        return unimix(logits, share).log()
    return torch.log_softmax(logits.float(), -1)  # the probabilities themselves underflow to 0


def sample_class(probs: Tensor, noise: Tensor) -> Tensor:
    """Turn one number per variable into a class by the inverse CDF: [..., K], [...] -> [...].

    Floating noise is uniform in [0, 1). Integer noise is the class itself: this is where given
    samples enter.
    """
    assert noise.shape == probs.shape[:-1], (noise.shape, probs.shape)
    if not noise.dtype.is_floating_point:
        return noise.long()
    cdf = probs.cumsum(-1)  # [..., K]
    return class_below(cdf, noise.unsqueeze(-1) * cdf[..., -1:])


def class_below(cdf: Tensor, threshold: Tensor) -> Tensor:
    """The class in which a threshold [..., 1] on running sums [..., K] falls: [...]."""
    return (cdf <= threshold).sum(-1).clamp(max=cdf.shape[-1] - 1)


def onehot(index: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """One-hot of class indices [...] -> [..., K]; indices outside give a zero vector."""
    return (index.unsqueeze(-1) == torch.arange(classes, device=index.device)).to(dtype)


def straight_through(index: Tensor, probs: Tensor, dtype: torch.dtype) -> Tensor:
    """One-hot in value, the probabilities in gradient: [...], [..., K] -> [..., K].

    onehot(index) + p - sg(p).
    """
    hot = onehot(index, probs.shape[-1], dtype)  # [..., K]
    return hot + (probs - probs.detach()).to(dtype) if probs.requires_grad else hot


def categorical_entropy(logprobs: Tensor) -> Tensor:
    """Entropy in nats of normalised log probabilities: [..., K] -> [...]."""
    return -(logprobs.exp() * logprobs).sum(-1)


def categorical_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats of normalised log probabilities: [..., K] -> [...]."""
    return (p.exp() * (p - q)).sum(-1)


def class_logprob(logprobs: Tensor, index: Tensor) -> Tensor:
    """Log probability of class indices: [..., K], [...] -> [...].

    What gathering gives, written without it: the gradient is elementwise as well.
    """
    place = torch.arange(logprobs.shape[-1], device=logprobs.device)  # [K]
    return torch.where(place == index.unsqueeze(-1), logprobs, 0.0).sum(-1)


# -- bounded normal ----------------------------------------------------------------------------


def bounded_normal(mean: Tensor, std: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Squash two raw outputs into a mean in (-1, 1) and a std in (low, high): [..., A] each."""
    return torch.tanh(mean), (high - low) * torch.sigmoid(std + 2.0) + low


def sample_normal(mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
    """Shift and scale standard normal noise [..., A]; float64 noise is the sample itself."""
    assert noise.shape == mean.shape, (noise.shape, mean.shape)
    if noise.dtype == torch.float64:
        return noise.to(mean.dtype)
    return mean + std * noise


def normal_logprob(mean: Tensor, std: Tensor, x: Tensor) -> Tensor:
    """Log density of an independent normal, summed over its dimensions: [..., A] -> [...]."""
    return (-0.5 * ((x - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def normal_entropy(std: Tensor) -> Tensor:
    """Entropy in nats of an independent normal, summed likewise: [..., A] -> [...]."""
    return (std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


# -- losses of the other outputs ---------------------------------------------------------------


def binary_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Eq. 5, -ln p(c | h, z): of a Bernoulli logit and a target that may be soft, each [...]."""
    return -(target * F.logsigmoid(logit) + (1.0 - target) * F.logsigmoid(-logit))


def symlog_mse(mean: Tensor, target: Tensor) -> Tensor:
    """Eq. 1: squared distance to the symlog target, summed: [..., *], [..., *] -> [...].

    sum (f - symlog(y))^2, without the paper's factor 1/2, as in the official code.
    """
    return (mean - symlog(target.float())).square().sum(-1)


def categorical_loss(logits: Tensor, index: Tensor) -> Tensor:
    """Cross entropy of logits [..., K] and class indices [...]: [...]."""
    return -class_logprob(torch.log_softmax(logits, -1), index)


# -- symexp two-hot ----------------------------------------------------------------------------


def twohot_bins(count: int) -> Tensor:
    """Eq. 8: bins B = symexp(-20 .. 20), mirrored exactly; an even count holds 0 twice: [M]."""
    # [(M + 1) // 2], the last being 0
    half = symexp(torch.linspace(-20.0, 0.0, (count + 1) // 2, dtype=torch.float64)).float()
    return torch.cat([half, -half.flip(0)[count % 2 :]])


def twohot(x: Tensor, bins: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 9: the two bins around x and the weight of the lower one, each [...].

    Interpolates in raw space; a target outside the bins goes to the end bin, NaN stays NaN.
    """
    above = torch.bucketize(x.contiguous(), bins, right=True)  # [...] how many bins are <= x
    lower = (above - 1).clamp(0, bins.shape[0] - 1)
    upper = above.clamp(max=bins.shape[0] - 1)
    to_lower, to_upper = (bins[lower] - x).abs(), (bins[upper] - x).abs()  # [...] distances
    weight = to_upper / (to_lower + to_upper)
    return lower, upper, torch.where((lower == upper) & ~x.isnan(), 1.0, weight)


def twohot_cross_entropy(logprobs: Tensor, target: Tensor, bins: Tensor) -> Tensor:
    """Eq. 10: -twohot(target)^T ln p of log probabilities [..., M] and targets [...]: [...]."""
    assert logprobs.shape == (*target.shape, *bins.shape), (logprobs.shape, target.shape)
    lower, upper, weight = twohot(target, bins)
    picked = logprobs.gather(-1, torch.stack([lower, upper], -1))  # [..., 2]
    return -(weight * picked[..., 0] + (1.0 - weight) * picked[..., 1])


def twohot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """Eq. 8: p^T B, the expected value of bins that are mirrored around 0: [..., M] -> [...].

    Mirrored probabilities are subtracted first, so symmetric logits give exactly 0.
    """
    half = bins.shape[0] // 2
    probs = torch.softmax(logits, -1)  # [..., M]
    return (probs[..., -half:] - probs[..., :half].flip(-1)) @ bins[-half:]
