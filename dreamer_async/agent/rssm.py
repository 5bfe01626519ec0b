"""The recurrent state-space model of eq. 3: a block-diagonal GRU with categorical latents.

Sequence model, posterior (which the paper calls encoder, together with that of `coders`) and prior
(its dynamics predictor). `observe` loops over replayed steps; `imagine_step` goes on without
observations, and the loop over it is `actor_critic.roll_out`. Layers have the names of the official
code: dynin, dynhid, dyngru, obs and prior.

h is kept in the replay as float16: a sequence model of another kind has to stay below 65,504.
Whatever computes these equations once more is in `fast.copies`.

Read `nets` and `states` before, `world_model` next.

Legend: B batch, T time, N rows, D deter, S stoch, K classes, E embed, W action as the world model
reads it (one-hot or vector), G blocks, Hd hidden.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamer_async.agent.distributions import straight_through, unimix
from dreamer_async.agent.nets import (
    BlockLinear,
    Linear,
    RMSNorm,
    add_stack,
    dense_layers,
    from_blocks,
    to_blocks,
)
from dreamer_async.agent.ops import Part
from dreamer_async.agent.states import Observed, RSSMState
from dreamer_async.config import ModelConfig


class RSSM(Part):
    """Eq. 3: h' = sequence_model(h, z, a); z ~ posterior(h, embed) or prior(h)."""

    def __init__(self, config: ModelConfig, embed: int, action: int) -> None:
        super().__init__()
        deter, hidden = config.deter, config.hidden
        self.config = config
        latent = config.stoch * config.classes
        self.dynin0, self.dynin0norm = Linear(deter, hidden), RMSNorm(hidden)
        self.dynin1, self.dynin1norm = Linear(latent, hidden), RMSNorm(hidden)
        self.dynin2, self.dynin2norm = Linear(action, hidden), RMSNorm(hidden)
        width = deter + config.blocks * 3 * hidden
        self.dynhid: list[tuple[BlockLinear, RMSNorm]] = []
        for i in range(config.dyn_layers):
            self.dynhid.append((BlockLinear(width, deter, config.blocks), RMSNorm(deter)))
            self.add_module(f"dynhid{i}", self.dynhid[i][0])
            self.add_module(f"dynhid{i}norm", self.dynhid[i][1])
            width = deter
        self.dyngru = BlockLinear(width, 3 * deter, config.blocks)
        names = [(f"obs{i}", f"obs{i}norm") for i in range(config.posterior_layers)]
        self.obs_stack = add_stack(self, names, deter + embed, hidden)
        self.obslogit = Linear(hidden, latent)
        names = [(f"prior{i}", f"prior{i}norm") for i in range(config.prior_layers)]
        self.prior_stack = add_stack(self, names, deter, hidden)
        self.priorlogit = Linear(hidden, latent)

    def initial(self, rows: int, dtype: torch.dtype, device: torch.device | None) -> RSSMState:
        """All zeros: the state before any episode."""
        config = self.config
        return RSSMState(
            torch.zeros(rows, config.deter, dtype=dtype, device=device),
            torch.zeros(rows, config.stoch, config.classes, dtype=dtype, device=device),
        )

    def sequence_model(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """Eq. 3, h' = f(h, z, a): [N, D], [N, S, K], [N, W] -> [N, D].

        A GRU whose products are block-diagonal; what z, a and all of h say reaches every block.
        """
        blocks = self.config.blocks
        action = action / action.detach().abs().clamp(min=1.0)  # [N, W] in -1 .. 1
        x0 = F.silu(self.dynin0norm(self.dynin0(deter)))  # [N, Hd], as the next two
        x1 = F.silu(self.dynin1norm(self.dynin1(stoch.flatten(-2))))
        x2 = F.silu(self.dynin2norm(self.dynin2(action)))
        shared: Tensor | None = torch.cat([x0, x1, x2], -1)  # [N, 3 Hd], read by every block
        h = x = to_blocks(deter, blocks)  # [G, N, D/G]
        for layer, norm in self.dynhid:
            x = to_blocks(F.silu(norm(from_blocks(layer(x, shared)))), blocks)  # [G, N, D/G]
            shared = None
        # The gates of the GRU, its own reset, candidate and update: 3 x [G, N, D/G].
        reset, cand, update = self.dyngru(x, shared).chunk(3, -1)
        cand = torch.tanh(torch.sigmoid(reset) * cand)
        update = torch.sigmoid(update - 1.0)
        return from_blocks(update * cand + (1.0 - update) * h)  # [N, D]

    def posterior(self, deter: Tensor, embed: Tensor) -> Tensor:
        """Eq. 3, q(z | h, x): [..., D], [..., E] -> raw logits [..., S, K] float32."""
        x = self.ops.dense(torch.cat([deter, embed], -1), dense_layers(self.obs_stack))
        return self._logits(self.obslogit(x))  # [..., Hd] -> [..., S, K]

    def prior(self, deter: Tensor) -> Tensor:
        """Eq. 3, p(z | h): [..., D] -> raw logits [..., S, K] float32."""
        x = self.ops.dense(deter, dense_layers(self.prior_stack))
        return self._logits(self.priorlogit(x))

    def observe_step(
        self, state: RSSMState, embed: Tensor, action: Tensor, reset: Tensor, noise: Tensor
    ) -> tuple[RSSMState, Tensor]:
        """One step with an observation: the state after it, and posterior logits [N, S, K].

        embed is [N, E], action [N, W], and noise [N, S] as in `Noise`; reset [N] bool clears the
        state and the action first.
        """
        keep = 1.0 - reset.to(state.deter.dtype)  # [N]
        deter = state.deter * keep[:, None]
        stoch = state.stoch * keep[:, None, None]
        deter = self.sequence_model(deter, stoch, action * keep[:, None])  # [N, D]
        logits = self.posterior(deter, embed)  # [N, S, K]
        return RSSMState(deter, self.sample(logits, noise, deter.dtype)), logits

    def imagine_step(self, state: RSSMState, action: Tensor, noise: Tensor) -> RSSMState:
        """One step without an observation: action [N, W] and noise [N, S] as in `Noise`."""
        deter = self.sequence_model(state.deter, state.stoch, action)  # [N, D]
        return RSSMState(deter, self.sample(self.prior(deter), noise, deter.dtype))

    def observe(
        self, state: RSSMState, embed: Tensor, action: Tensor, reset: Tensor, noise: Tensor
    ) -> Observed:
        """Filter a sequence [B, T, ...] step by step, starting after `state` [B, ...].

        action[:, t] is the one before step t; no gradient reaches the first state.
        """
        state = RSSMState(*(x.detach() for x in state))
        states, logits = [], []  # T x [B, ...]
        inputs = zip(*(x.unbind(1) for x in (embed, action, reset, noise)), strict=True)
        for inputs_t in inputs:
            state, logits_t = self.observe_step(state, *inputs_t)
            states.append(state)
            logits.append(logits_t)
        deter = torch.stack([s.deter for s in states], 1)  # [B, T, D]
        stoch = torch.stack([s.stoch for s in states], 1)  # [B, T, S, K]
        return Observed(RSSMState(deter, stoch), torch.stack(logits, 1))

    def sample(self, logits: Tensor, noise: Tensor, dtype: torch.dtype) -> Tensor:
        """Straight-through sample of z: logits [..., S, K], noise [..., S] -> [..., S, K]."""
        probs = unimix(logits, self.config.unimix)  # [..., S, K]
        return straight_through(self.ops.sample_class(probs.detach(), noise), probs, dtype)

    def _logits(self, x: Tensor) -> Tensor:
        return x.float().unflatten(-1, (self.config.stoch, self.config.classes))
