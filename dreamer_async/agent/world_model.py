"""The world model of eq. 3, all parts together, and the losses that train it, eq. 5.

Its parts have the official names: enc, dyn, dec, rew and con. Read `rssm`, `coders` and `heads`
before, `actor_critic` next.

Legend: B batch, T time, N rows, D deter, S stoch, K classes, F = D + S * K feat, E embed, A action,
C columns of several actions, W action as the world model reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from dreamer_async.agent.actions import embed_action
from dreamer_async.agent.coders import Decoder, Encoder
from dreamer_async.agent.distributions import (
    binary_loss,
    onehot,
)
from dreamer_async.agent.heads import ContHead, TwohotHead
from dreamer_async.agent.ops import Part
from dreamer_async.agent.rssm import RSSM
from dreamer_async.agent.states import Observed, RSSMState
from dreamer_async.config import LossConfig, ModelConfig

if TYPE_CHECKING:
    from dreamer_async.envs.spec import EnvSpec


class WorldModelLosses(NamedTuple):
    """Eq. 5: the losses of every trained step, before the weights and means of eq. 4."""

    maps: dict[str, Tensor]
    """{name: [B, T]}: one per observation key, then reward, cont, dyn, rep."""
    posterior_entropy: Tensor
    """[] mean entropy of z after the observation, in nats."""
    prior_entropy: Tensor
    """[] mean entropy of z before the observation, in nats."""


class WorldModel(Part):
    """Eq. 3: p(h', z', r, c, x | h, z, a) and q(z | h, x)."""

    def __init__(self, spec: EnvSpec, model: ModelConfig, loss: LossConfig) -> None:
        super().__init__()
        self.spec, self.model, self.loss = spec, model, loss
        self.dtype = torch.float32
        self.enc = Encoder(spec.obs, model)
        self.dyn = RSSM(model, self.enc.width, spec.action.width)
        self.dec = Decoder(spec.obs, model)
        feat, units = self.feat_width, model.units
        self.rew = TwohotHead(feat, units, model.reward_layers, model.bins)
        self.con = ContHead(feat, units, model.cont_layers)

    @property
    def feat_width(self) -> int:
        """F."""
        return self.model.deter + self.model.stoch * self.model.classes

    def state(self, deter: Tensor, stoch: Tensor) -> RSSMState:
        """Build a state from stored h [N, D] and classes of z [N, S]."""
        return RSSMState(deter.to(self.dtype), onehot(stoch, self.model.classes, self.dtype))

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        """Embed observations: {key: [B, T, *]} -> [B, T, E]."""
        lead = next(iter(obs.values())).shape[:2]
        flat = {key: value.flatten(0, 1) for key, value in obs.items()}  # [B * T, *]
        return self.enc(flat, self.dtype).unflatten(0, lead)

    def embed_action(self, action: Tensor) -> Tensor:
        """One-hot discrete actions, pass continuous ones on, in the compute type.

        [...], [..., A] or [..., C] -> [..., W].
        """
        return embed_action(self.spec.action, action, self.dtype)

    def world_model_losses(
        self,
        observed: Observed,
        obs: dict[str, Tensor],
        reward: Tensor,
        terminal: Tensor,
    ) -> WorldModelLosses:
        """Eq. 5: reconstruction, reward, continue and KL losses of [B, T] steps.

        The first three are the paper's L_pred. The weighted sum of all, eq. 4, is taken together
        with the losses of actor and critic, in `trainer.weighted_total`.
        """
        lead = reward.shape
        state, feat = observed.state, observed.state.feat  # [B, T, F]
        outs = self.dec(state.deter.flatten(0, 1), state.stoch.flatten(0, 1))  # [B * T, *]
        flat = {key: value.flatten(0, 1) for key, value in obs.items()}  # [B * T, *]
        maps = {key: loss.view(lead) for key, loss in self.dec.loss(outs, flat).items()}
        maps["reward"] = self.rew.loss(self.rew(feat), (1.0, reward))
        maps["cont"] = binary_loss(self.con(feat), self.cont_target(terminal))
        prior = self.dyn.prior(state.deter)  # [B, T, S, K]
        maps["dyn"], maps["rep"], *entropies = self.ops.latent_losses(
            observed.logits, prior, self.model.unimix, self.loss.free_nats
        )
        return WorldModelLosses(maps, *entropies)

    def cont_target(self, terminal: Tensor) -> Tensor:
        """Probability of going on [B, T]; contains gamma unless it is applied elsewhere."""
        alive = 1.0 - terminal.float()
        return alive * self.discount if self.loss.discount_in_cont else alive

    @property
    def discount(self) -> float:
        """Gamma of eq. 7, 1 - 1/333."""
        return 1.0 - 1.0 / self.loss.horizon
