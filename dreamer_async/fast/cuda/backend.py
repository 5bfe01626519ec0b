"""What a GPU computes with; and what a CPU does that has no native functions.

`CUDA` is made of the same equations laid out for few kernels. `updates.Updates` compiles and
records what a trainer makes of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dreamer_async.agent import backend, ops
from dreamer_async.agent.actor_critic import Agent
from dreamer_async.agent.states import Imagined, RSSMState
from dreamer_async.config import ModelConfig
from dreamer_async.fast.cuda import images, rollout, scan
from dreamer_async.fast.cuda.lowered import Lowered
from dreamer_async.fast.cuda.ops import (
    block_linear,
    dense,
    heads,
    lambda_return,
    sample_class,
    twohot_loss,
)
from dreamer_async.fast.cuda.optim import FlatLaProp

OPS = ops.PYTORCH._replace(
    dense=dense,
    heads=heads,
    block_linear=block_linear,
    encode_images=images.encode,
    decode_images=images.decode,
    sample_class=sample_class,
    twohot_loss=twohot_loss,
    lambda_return=lambda_return,
)


def dreaming(agent: Agent) -> rollout.Imagination:
    """What rolls an agent out with the fewest kernels."""
    return rollout.Rollout(agent) if rollout.fits(agent) else casting_once(agent)


def casting_once(agent: Agent) -> rollout.Imagination:
    """What rolls an agent out as it is written, without casting its parameters in every step."""
    return Lowered(agent) if agent.dtype != torch.float32 else rollout.Stepwise(agent.imagine_step)


def gaps(model: ModelConfig) -> str:
    """What of a model is not laid out for few kernels, and so takes more of them."""
    if model.dyn_layers == model.posterior_layers == 1:
        return ""
    imagining = "and imagining take" if model.dyn_layers > 1 else "takes"
    return (
        f"filtering {imagining} many small kernels: few are known for one layer in front of "
        f"the GRU and one in the posterior (model.dyn_layers={model.dyn_layers}, "
        f"model.posterior_layers={model.posterior_layers})"
    )


class Dreams:
    """Imagination by something that rolls an agent out."""

    def __init__(self, agent: Agent, dreaming: rollout.Imagination) -> None:
        self._agent, self.dreaming = agent, dreaming

    def __call__(self, start: RSSMState, action_noise: Tensor, prior_noise: Tensor) -> Imagined:
        """As `Agent.imagine`."""
        return self._agent.read(self.dreaming.imagine(start, action_noise, prior_noise))


CUDA = backend.Backend(
    "CUDA",
    OPS,
    scan.filtering,
    lambda agent: Dreams(agent, dreaming(agent)),
    backend.acting,
    FlatLaProp,
    gaps,
)
WITHOUT_NATIVE = backend.PYTORCH._replace(
    name="PyTorch with a written-out gradient of filtering",
    filtering=scan.filtering,
    imagination=lambda agent: Dreams(agent, casting_once(agent)),
)
"""A CPU's, where no native functions can be had: PyTorch's operations, in fewer steps."""
