"""The parts of an agent that imagining reads, with their kernels in the compute type.

Every layer casts its own parameters, which is little work beside one product over all replayed
steps but much beside the many small ones of imagination. Here they are cast once an update.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dreamer_async.agent.nets import Conv, Kernel, lower

if TYPE_CHECKING:
    from dreamer_async.agent.actor_critic import Agent, Imagined, ImagineStep
    from dreamer_async.agent.rssm import RSSMState


class Lowered:
    """Copies of dyn and pol that follow an agent's."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.dyn, self.pol = deepcopy(agent.dyn), deepcopy(agent.pol)
        self.step: ImagineStep = self.imagine_step
        self._own: list[Tensor] = []
        self._theirs: list[Tensor] = []
        for own, theirs in ((self.dyn, agent.dyn), (self.pol, agent.pol)):
            lower(own.requires_grad_(False), agent.dtype)
            self._own += own.parameters()
            self._theirs += theirs.parameters()
        # One call copies tensors of one type fast.
        low = [x.dtype == agent.dtype for x in self._own]
        self._groups = [[i for i, is_low in enumerate(low) if is_low == kind] for kind in (0, 1)]

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the agent's present parameters."""
        for group in self._groups:
            own, theirs = ([x[i] for i in group] for x in (self._own, self._theirs))
            torch._foreach_copy_(own, theirs)

    def imagine(self, start: RSSMState, action_noise: Tensor, prior_noise: Tensor) -> Imagined:
        """As the agent would."""
        self.refresh()
        return self._agent.imagine(start, action_noise, prior_noise, self.step)

    def compiled(self, compiled: Callable[[Any], Any]) -> Lowered:
        """The same by a compiled step."""
        lowered = copy(self)
        lowered.step = compiled(self.imagine_step)
        return lowered

    def imagine_step(
        self, state: RSSMState, action_noise: Tensor, prior_noise: Tensor
    ) -> tuple[RSSMState, Tensor]:
        """As the agent would."""
        return self._agent.imagine_step(state, action_noise, prior_noise, self.dyn, self.pol)


def compute_types(agent: Agent) -> dict[str, torch.dtype]:
    """In what type the layers of an agent compute, by the names of their kernels and biases."""
    types = {}
    for name, layer in agent.named_modules():
        if isinstance(layer, Kernel):
            of_convs = agent.enc.conv_dtype or agent.dtype
            dtype = of_convs if isinstance(layer, Conv) else agent.dtype
            types |= {f"{name}.{own}": dtype for own, _ in layer.named_parameters(recurse=False)}
    return types
