"""Small operations laid out for GPUs, where compiled code is as fast as it has few kernels.

Each computes what its namesake in `agent.ops` does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamer_async.agent import ops
from dreamer_async.agent.distributions import class_below, twohot
from dreamer_async.agent.ops import Dense


def dense(x: Tensor, layers: Sequence[Dense]) -> Tensor:
    """Biases that would have to be cast are added by whatever reads the product, in float32.

    The sum is rounded to the type of x, so that no gradient of it is stored in float32.
    """
    for layer in layers:
        if layer.bias.dtype == x.dtype:  # as in a policy, whose steps are not compiled
            x = ops.dense(x, [layer])
            continue
        product = x.reshape(-1, x.shape[-1]) @ layer.kernel.to(x.dtype)  # [N, O]
        y = (product.float() + layer.bias).to(x.dtype).view(*x.shape[:-1], -1)  # [..., O]
        x = y if layer.gain is None else F.silu(ops.rms_norm(y, layer.gain))
    return x


def heads(x: Tensor, hidden: Sequence[Dense], outputs: Sequence[Dense]) -> tuple[Tensor, ...]:
    """Likewise."""
    x = dense(x, hidden)
    return tuple(dense(x, [output]).float() for output in outputs)


def block_linear(x: Tensor, kernel: Tensor, bias: Tensor, shared: Tensor | None) -> Tensor:
    """Products first: one that adds to something begins with a copy of it."""
    blocks, inputs, outputs = kernel.shape
    assert x.shape[0] == blocks, (x.shape, kernel.shape)
    own, common = kernel.to(x.dtype).split([x.shape[-1], inputs - x.shape[-1]], 1)
    y = torch.bmm(x, own) + bias.to(x.dtype).view(blocks, 1, outputs)
    return y if shared is None else y + shared @ common


def sample_class(probs: Tensor, noise: Tensor) -> Tensor:
    """One kernel of all this with a sum; the end of a running sum would be another.

    On a CPU, where the same steps run without native functions, it is PyTorch's to the last bit.
    """
    if not noise.dtype.is_floating_point or not probs.is_cuda:
        return ops.PYTORCH.sample_class(probs, noise)
    assert noise.shape == probs.shape[:-1], (noise.shape, probs.shape)
    threshold = noise.unsqueeze(-1) * probs.sum(-1, keepdim=True)
    return class_below(probs.cumsum(-1), threshold)


def twohot_loss(logits: Tensor, bins: Tensor, *targets: tuple[float, Tensor]) -> Tensor:
    """Without gathering, so that it is part of the kernels around it, the gradient as well."""
    logprobs = torch.log_softmax(logits, -1)
    losses = [weight * _cross_entropy(logprobs, target, bins) for weight, target in targets]
    return torch.stack(losses).sum(0) if len(losses) > 1 else losses[0]


def _cross_entropy(logprobs: Tensor, target: Tensor, bins: Tensor) -> Tensor:
    assert logprobs.shape == (*target.shape, *bins.shape), (logprobs.shape, target.shape)
    lower, upper, weight = (x.unsqueeze(-1) for x in twohot(target, bins))
    place = torch.arange(bins.shape[0], device=bins.device)
    below = torch.where(place == lower, weight * logprobs, 0.0)
    above = torch.where(place == upper, (1.0 - weight) * logprobs, 0.0)
    return -(below + above).sum(-1)


def lambda_return(reward: Tensor, live: Tensor, lam: Tensor, boot: Tensor) -> Tensor:
    """The recursion as sums, which compiled is one kernel instead of T: [N, T] -> [N, T-1].

    ret_t = sum over k > t of decay_{t+1} .. decay_{k-1} inputs_k, where the value after the last
    step times its decay belongs to the last input.
    """
    assert reward.shape == live.shape == lam.shape == boot.shape, (reward.shape, boot.shape)
    inputs, decay = reward + live * (1.0 - lam) * boot, live * lam
    later = torch.arange(inputs.shape[1] - 1, device=inputs.device)  # k - 1
    now = later[:, None]
    reach = torch.where(later > now, decay[:, None, :-1], 1.0).cumprod(-1)  # [N, T-1, T-1]
    last = (later == later.shape[0] - 1) * decay[:, 1:] * boot[:, -1:]
    return torch.where(later >= now, reach * (inputs[:, 1:] + last)[:, None], 0.0).sum(-1)
