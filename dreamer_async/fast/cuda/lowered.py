"""The parts of an agent that imagining reads, with their kernels in the compute type.

Every layer casts its own parameters, which is little work beside one product over all replayed
steps but much beside the many small ones of imagination. Here they are cast once an update.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any

import torch
from torch import Tensor

from dreamer_async.agent.actor_critic import Agent, ImagineStep, imagine_step, roll_out
from dreamer_async.agent.nets import lower
from dreamer_async.agent.states import RSSMState, Trajectory


class Lowered:
    """Copies of dyn and pol that follow an agent's."""

    def __init__(self, agent: Agent) -> None:
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

    def imagine(self, start: RSSMState, action_noise: Tensor, prior_noise: Tensor) -> Trajectory:
        """As the agent would."""
        self.refresh()
        return roll_out(self.step, start, action_noise, prior_noise)

    def compiled(self, compiled: Callable[[Any], Any]) -> Lowered:
        """The same by a compiled step."""
        lowered = copy(self)
        lowered.step = compiled(self.imagine_step)
        return lowered

    def imagine_step(
        self, state: RSSMState, action_noise: Tensor, prior_noise: Tensor
    ) -> tuple[RSSMState, Tensor]:
        """As the agent would."""
        return imagine_step(self.dyn, self.pol, state, action_noise, prior_noise)
