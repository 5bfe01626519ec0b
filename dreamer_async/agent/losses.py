"""The losses as free functions of float32 tensors, no module, no config: eq. 5, 7, 10 and 11.

Eq. 5 is the world model's, its reconstructions being in `coders`; eq. 7, 10 and 11 are those of the
actor and the critic. Which weight each gets is in `trainer.weighted_total` (eq. 4).

Read `distributions` before, and `normalize` next, the scale S that eq. 11 divides by.

Legend: B batch, T time, N rows of any kind, H horizon, R imagined rows, L replayed steps that start
an imagination, S stoch, K classes, M bins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dreamer_async.agent.distributions import (
    categorical_entropy,
    categorical_kl,
    mixed_logprobs,
    twohot_cross_entropy,
)

Returns = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Something that computes what `lambda_return` does."""


class LatentLosses(NamedTuple):
    """Both KL losses of eq. 5, and how certain both sides are."""

    dyn: Tensor
    """[B, T] dynamics loss, which trains the prior."""
    rep: Tensor
    """[B, T] representation loss, which trains the posterior."""
    posterior_entropy: Tensor
    """[] mean over all steps, in nats."""
    prior_entropy: Tensor
    """[] likewise."""


def latent_losses(posterior: Tensor, prior: Tensor, share: float, free_nats: float) -> LatentLosses:
    """Eq. 5 of raw logits [B, T, S, K], with a share of the uniform mixed into both."""
    post, pri = (mixed_logprobs(logits, share) for logits in (posterior, prior))  # [B, T, S, K]
    means = [categorical_entropy(x.detach()).sum(-1).mean() for x in (post, pri)]
    return LatentLosses(*kl_losses(post, pri, free_nats), *means)


def kl_losses(posterior: Tensor, prior: Tensor, free_nats: float) -> tuple[Tensor, Tensor]:
    """Eq. 5: dynamics and representation KL with free nats, each [B, T].

    dyn = max(free, KL(sg(post) || prior)),  rep = max(free, KL(post || sg(prior))).
    Takes log probabilities [B, T, S, K]; sums over S before the clip.
    """
    assert posterior.shape == prior.shape and posterior.ndim == 4, (posterior.shape, prior.shape)
    dyn = categorical_kl(posterior.detach(), prior).sum(-1)  # [B, T, S] -> [B, T]
    rep = categorical_kl(posterior, prior.detach()).sum(-1)
    return dyn.clamp(min=free_nats), rep.clamp(min=free_nats)


def lambda_return(reward: Tensor, live: Tensor, lam: Tensor, boot: Tensor) -> Tensor:
    """Eq. 7: lambda returns of steps 0 .. T-2, [N, T] -> [N, T-1].

    ret_t = reward_{t+1} + live_{t+1} ((1 - lam_{t+1}) boot_{t+1} + lam_{t+1} ret_{t+1}),
    ret_{T-1} = boot_{T-1}.  live is the paper's gamma c, lam its lambda, boot its v. The reward is
    that of the next step, since it arrives with the state (the paper writes r_t).
    """
    assert reward.shape == live.shape == lam.shape == boot.shape, (reward.shape, boot.shape)
    inputs = reward + live * (1.0 - lam) * boot  # [N, T] what each step adds
    decay = live * lam  # [N, T] share of the return that follows
    returns = [boot[:, -1]]  # T x [N], the last step first
    for t in range(reward.shape[1] - 1, 0, -1):
        returns.append(inputs[:, t] + decay[:, t] * returns[-1])
    return torch.stack(returns[:0:-1], 1)  # [N, T-1], in order and without the boot


def imagined_return(
    reward: Tensor, cont: Tensor, value: Tensor, lam: float, returns: Returns = lambda_return
) -> Tensor:
    """Eq. 7 in imagination, with the critic's v: [R, H+1] -> [R, H]; cont contains gamma."""
    return returns(reward, cont, torch.full_like(cont, lam), value)


def replay_return(
    reward: Tensor,
    terminal: Tensor,
    last: Tensor,
    boot: Tensor,
    discount: float,
    lam: float,
    returns: Returns = lambda_return,
) -> Tensor:
    """Eq. 7 on replay, bootstrapped from imagined returns: [B, L] -> [B, L-1].

    Only in the later versions of the paper. No return crosses the last step of an episode.
    """
    live = discount * (1.0 - terminal.float())  # [B, L]
    return returns(reward, live, lam * (1.0 - last.float()), boot)


def imagined_weight(cont: Tensor, discount: float = 1.0) -> Tensor:
    """How much an imagined step counts: [R, H+1], its probability to be reached, discounted.

    weight_t = discount^t cont_0 cont_1 .. cont_t, so that what is imagined after an end hardly
    counts. With gamma in cont already (`loss.discount_in_cont`), discount is 1.
    """
    return torch.cumprod(discount * cont, 1) / discount


def actor_loss(
    logprob: Tensor, entropy: Tensor, advantage: Tensor, weight: Tensor, entropy_weight: float
) -> Tensor:
    """Eq. 11: -sg(weight) (log pi(a) sg(advantage) + entropy_weight entropy), each [R, H].

    Reinforce for discrete and continuous actions alike, with the critic as the baseline (later
    versions do so as well): advantage = (ret - value) / S, of eq. 7, 8 and 12.
    """
    assert logprob.shape == advantage.shape == weight.shape, (logprob.shape, weight.shape)
    return -weight.detach() * (logprob * advantage.detach() + entropy_weight * entropy)


def twohot_loss(logits: Tensor, bins: Tensor, *targets: tuple[float, Tensor]) -> Tensor:
    """Eq. 10: weighted sum of cross entropies of logits [..., M] and targets [...]: [...].

    Each target is given with its weight.
    """
    logprobs = torch.log_softmax(logits, -1)  # [..., M]
    losses = [weight * twohot_cross_entropy(logprobs, x, bins) for weight, x in targets]
    return torch.stack(losses).sum(0) if len(losses) > 1 else losses[0]
