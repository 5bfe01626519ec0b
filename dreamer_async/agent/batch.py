"""What enters an update: the replayed sequences and every random number.

Time is the paper's: step t holds x_t, the reward r_t and the flags that came with it, and a_t,
chosen after seeing x_t. So the world model reads the action of the step before (eq. 3).

Read `trainer` next.

Legend: B batch, T trained steps, H horizon, L replayed steps that start an imagination, R = B * L
imagined rows, D deter, S stoch, A action, C columns of several actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from dreamer_async.agent.actions import draw_action_noise
from dreamer_async.config import Config

if TYPE_CHECKING:
    from dreamer_async.envs.spec import ActionSpec


class Batch(NamedTuple):
    """Replayed sequences; index 0 of the time axis is the context step.

    is_last must also be set where the next step of a row is_first (abandoned episodes).
    """

    obs: dict[str, Tensor]
    """{key: [B, T+1, *]} in the environment's types."""
    action: Tensor
    """[B, T+1] int or [B, T+1, A or C] float32, chosen after seeing the step."""
    reward: Tensor
    """[B, T+1] float32, arrived with the step."""
    is_first: Tensor
    """[B, T+1] bool."""
    is_last: Tensor
    """[B, T+1] bool."""
    is_terminal: Tensor
    """[B, T+1] bool."""
    deter: Tensor
    """[B, D] stored h of the context step, any floating type."""
    stoch: Tensor
    """[B, S] stored classes of z of the context step, any integer type."""

    def tensors(self) -> list[Tensor]:
        """All tensors, in a fixed order."""
        return [*self.obs.values(), *(getattr(self, name) for name in _BESIDE_OBS)]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Change every tensor."""
        obs = {key: change(value) for key, value in self.obs.items()}
        return Batch(obs, *(change(getattr(self, name)) for name in _BESIDE_OBS))


_BESIDE_OBS = Batch._fields[1:]


class Noise(NamedTuple):
    """Every random number of one update.

    Integers in place of uniform numbers, and float64 in place of normal ones, are the samples
    themselves.
    """

    posterior: Tensor
    """[B, T, S] uniform in [0, 1), or classes."""
    prior: Tensor
    """[R, H, S] uniform in [0, 1), or classes."""
    action: Tensor
    """[R, H] uniform or classes (discrete); [R, H, A] normal, or actions in float64; [R, H, C]."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Noise:
        """Change every tensor."""
        return Noise(*map(change, self))

    @staticmethod
    def draw(
        generator: torch.Generator,
        config: Config,
        action: ActionSpec,
        device: torch.device | str = "cpu",
    ) -> Noise:
        """Draw the numbers of one update on the generator's device, then move them."""
        batch, length = config.train.batch_size, config.train.batch_length
        stoch, horizon = config.model.stoch, config.loss.imagine_length
        rows = batch * min(config.loss.imagine_last or length, length)
        at = generator.device
        posterior = torch.rand(batch, length, stoch, generator=generator, device=at)  # [B, T, S]
        prior = torch.rand(rows, horizon, stoch, generator=generator, device=at)  # [R, H, S]
        actions = draw_action_noise(action, (rows, horizon), generator)  # [R, H, ...]
        return Noise(posterior.to(device), prior.to(device), actions.to(device))
