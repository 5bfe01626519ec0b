"""The whole agent: a world model, and the actor and critic that learn inside it: eq. 6 to 12.

Imagination first (eq. 6), then what the heads say of it, then returns, advantages and losses, whose
equations are functions of `losses` and `normalize`. Row b * L + k of the imagination starts at
replayed step k of row b. Index 0 of its time is the replayed state, 1 .. H are imagined.

Read `world_model`, `heads` and `losses` before, `trainer` next.

Legend: B batch, L replayed steps that start an imagination, R = B * L imagined rows, H horizon, F
feat, S stoch, M bins, A action, C columns of several actions, W action as the world model reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from dreamer_async.agent.actions import embed_action
from dreamer_async.agent.heads import Actor, TwohotHead
from dreamer_async.agent.losses import (
    actor_loss,
    imagined_return,
    imagined_weight,
    replay_return,
)
from dreamer_async.agent.normalize import Ranks, ReturnRange, return_scale, update_range
from dreamer_async.agent.rssm import RSSM
from dreamer_async.agent.states import Imagined, RSSMState, Trajectory
from dreamer_async.agent.world_model import WorldModel
from dreamer_async.config import LossConfig, ModelConfig

if TYPE_CHECKING:
    from dreamer_async.envs.spec import EnvSpec

ImagineStep = Callable[[RSSMState, Tensor, Tensor], tuple[RSSMState, Tensor]]
"""Does one step of all rows, as `Agent.imagine_step` does."""


class Replayed(NamedTuple):
    """The replayed steps that started the imagination."""

    feat: Tensor
    """[B, L, F] with gradient."""
    reward: Tensor
    """[B, L]."""
    is_last: Tensor
    """[B, L]."""
    is_terminal: Tensor
    """[B, L]."""


class ActorCriticLosses(NamedTuple):
    """The losses of the behaviour and what they were made of."""

    actor: Tensor
    """[R, H] policy loss."""
    critic: Tensor
    """[R, H] value loss."""
    replay_critic: Tensor
    """[B, L-1] value loss on replay."""
    range: ReturnRange
    """[] each: moving return percentiles after this batch (eq. 12)."""
    reward: Tensor
    """[R, H+1] predicted reward."""
    cont: Tensor
    """[R, H+1] predicted probability of going on, times the discount if `discount_in_cont`."""
    value: Tensor
    """[R, H+1] critic."""
    slow: Tensor
    """[R, H+1] slow critic."""
    ret: Tensor
    """[R, H] lambda returns (eq. 7)."""
    replay_ret: Tensor
    """[B, L-1] lambda returns on replay."""
    weight: Tensor
    """[R, H] probability of reaching the step, by which the losses are weighted."""
    advantage: Tensor
    """[R, H] advantage of eq. 11: (ret - value) / S."""
    entropy: Tensor
    """[R, H] policy entropy."""


class Agent(WorldModel):
    """World model, actor (pol), critic (val) and slow critic (slowval).

    The slow critic, a moving average of the critic (see `Trainer`), is no target network: it only
    holds the critic back (eq. 10). Returns come from the critic itself.
    """

    def __init__(self, spec: EnvSpec, model: ModelConfig, loss: LossConfig) -> None:
        super().__init__(spec, model, loss)
        self.ranks = Ranks()
        feat, units = self.feat_width, model.units
        self.pol = Actor(feat, spec.action, model)
        self.val = TwohotHead(feat, units, model.critic_layers, model.bins)
        self.slowval = TwohotHead(feat, units, model.critic_layers, model.bins)
        self.slowval.requires_grad_(False)

    def imagine_step(
        self, state: RSSMState, action_noise: Tensor, prior_noise: Tensor
    ) -> tuple[RSSMState, Tensor]:
        """One imagined step of this agent, as the function of the same name."""
        return imagine_step(self.dyn, self.pol, state, action_noise, prior_noise)

    def imagine(self, start: RSSMState, action_noise: Tensor, prior_noise: Tensor) -> Imagined:
        """Eq. 6: roll out H steps from states [R, ...] with noise [R, H, ...], and read them."""
        return self.read(roll_out(self.imagine_step, start, action_noise, prior_noise))

    def read(self, trajectory: Trajectory) -> Imagined:
        """What the heads say of imagined states.

        Only the actor and the critic's logits keep a gradient, that of their own parameters.
        """
        feat = trajectory.feat  # [R, H+1, F]
        value_logits = self.val(feat)  # [R, H+1, M]
        with torch.no_grad():
            reward = self.rew.mean(self.rew(feat))  # [R, H+1], as the next three
            cont = torch.sigmoid(self.con(feat))
            value = self.val.mean(value_logits)
            slow = self.slowval.mean(self.slowval(feat))
        return Imagined(trajectory, self.pol(feat), value_logits, value, reward, cont, slow)

    def actor_critic_losses(
        self, imagined: Imagined, replayed: Replayed, moving: ReturnRange
    ) -> ActorCriticLosses:
        """Eq. 7 to 12: returns, advantages, actor loss and both critic losses.

        Gradients reach the actor, the critic and, from the critic's loss on replay alone, the world
        model.
        """
        cfg = self.loss
        discount = 1.0 if cfg.discount_in_cont else self.discount
        _, policy, value_logits, value, reward, cont, slow = imagined
        with torch.no_grad():
            returns = self.ops.lambda_return
            ret = imagined_return(reward, discount * cont, value, cfg.return_lambda, returns)
            weight = imagined_weight(cont, discount)[:, :-1]  # [R, H]
            known = self.ranks.gather(ret)  # [R, H], or more rows
            moving = update_range(moving, known, cfg.return_rate, cfg.return_low, cfg.return_high)
            advantage = (ret - value[:, :-1]) / return_scale(moving, cfg.return_floor)  # [R, H]
        # Slices of the small outputs: a slice of the features would be a large copy.
        policy = tuple(param[:, :-1] for param in policy)  # [R, H, A] each
        logprob = self.pol.logprob(policy, imagined.trajectory.action)  # [R, H]
        entropy = self.pol.entropy(policy)
        actor = actor_loss(logprob, entropy, advantage, weight, cfg.entropy)
        # The last step has no return; its loss is left out here, which costs less than a slice.
        targets = torch.cat([ret, slow[:, -1:]], 1)  # [R, H+1]
        critic = weight * self.critic_loss(value_logits, targets, slow)[:, :-1]  # [R, H]
        # Row b * L + k started at replayed step k of row b: what is known at index 0 is shared.
        boot, slow_start = (x[:, 0].view(replayed.reward.shape) for x in (ret, slow))  # [B, L]
        replay_critic, replay_ret = self.replay_critic_loss(replayed, boot, slow_start)
        return ActorCriticLosses(
            actor, critic, replay_critic, moving, reward, cont, value, slow, ret, replay_ret,
            weight, advantage, entropy,
        )  # fmt: skip

    def critic_loss(self, logits: Tensor, ret: Tensor, slow: Tensor) -> Tensor:
        """Eq. 10: twohot(ret) + regularizer * twohot(slow), both [...], against ln p: [...]."""
        return self.val.loss(logits, (1.0, ret), (self.loss.slow_regularizer, slow))

    def replay_critic_loss(
        self, replayed: Replayed, boot: Tensor, slow: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Eq. 10 on replay, bootstrapped from imagined returns: loss and returns [B, L-1].

        boot and slow are the imagined return and the slow critic of each replayed step, [B, L].
        """
        ret = replay_return(
            replayed.reward,
            replayed.is_terminal,
            replayed.is_last,
            boot,
            self.discount,
            self.loss.return_lambda,
            self.ops.lambda_return,
        )
        live = 1.0 - replayed.is_last[:, :-1].float()  # [B, L-1]: an end has no next reward
        loss = self.critic_loss(self.val(replayed.feat[:, :-1]), ret, slow[:, :-1])
        return live * loss, ret


def imagine_step(
    dyn: RSSM, pol: Actor, state: RSSMState, action_noise: Tensor, prior_noise: Tensor
) -> tuple[RSSMState, Tensor]:
    """Eq. 6: a ~ pi(a | h, z), then what the world model answers; also return the action.

    action_noise is [R], [R, A] or [R, C] and prior_noise [R, S], as in `Noise`.
    """
    action = pol.sample(pol(state.feat), action_noise)
    embedded = embed_action(pol.action, action, state.deter.dtype)  # [R, W]
    return dyn.imagine_step(state, embedded, prior_noise), action


@torch.no_grad()
def roll_out(
    step: ImagineStep, start: RSSMState, action_noise: Tensor, prior_noise: Tensor
) -> Trajectory:
    """H steps from states [R, ...] with noise [R, H, ...].

    No gradient: the actor learns from `actor_loss`, not through the world model.
    """
    state, feats, actions = start, [start.feat], []  # H+1 x [R, F], H x [R, ...]
    noise = zip(action_noise.unbind(1), prior_noise.unbind(1), strict=True)
    for action_noise_t, prior_noise_t in noise:
        state, action = step(state, action_noise_t, prior_noise_t)
        feats.append(state.feat)
        actions.append(action)
    return Trajectory(torch.stack(feats, 1), torch.stack(actions, 1))  # [R, H+1, F], [R, H, ...]
