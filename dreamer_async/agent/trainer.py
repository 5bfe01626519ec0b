"""One training step: forward, losses, gradients, optimiser, slow critic, return range.

`Trainer.forward` has the order of the paper: encode and filter (eq. 3), the losses of the world
model (eq. 5), imagine (eq. 6), the losses of actor and critic (eq. 7 to 12), and the sum of all
(eq. 4), which one optimiser minimises. Imagination starts at the states that the world model has
just filtered.

`update` depends on state, batch and random numbers alone: no `.item()`, no Python branch on a
tensor, fixed shapes. So an accelerator may replay it.

Read `actor_critic`, `batch` and `optim` before.

Legend: B batch, T trained steps, L replayed steps that start an imagination, R = B * L imagined
rows, H horizon, D deter, S stoch, K classes, F feat, E embed, W action as the world model reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.profiler import record_function

from dreamer_async.agent.actor_critic import ActorCriticLosses, Agent, Replayed
from dreamer_async.agent.backend import PYTORCH, Backend
from dreamer_async.agent.batch import Batch, Noise
from dreamer_async.agent.nets import PRECISIONS, initialize
from dreamer_async.agent.normalize import Ranks, ReturnRange, return_scale
from dreamer_async.agent.ops import Ops, compute_with
from dreamer_async.agent.optim import global_norm, keep_if
from dreamer_async.agent.states import Observed, RSSMState, Trajectory
from dreamer_async.agent.world_model import WorldModelLosses
from dreamer_async.config import Config, LossConfig

if TYPE_CHECKING:
    from dreamer_async.envs.spec import EnvSpec

STAGE = "stage/"
"""Profiles show the parts of an update under names that begin with this."""


class Update(NamedTuple):
    """What an update hands back; all tensors stay on the device."""

    metrics: dict[str, Tensor]
    """{slashed name: 0-d float32}."""
    deter: Tensor
    """[B, T, D] float16, fresh h of the trained steps; zeros if not finite."""
    stoch: Tensor
    """[B, T, S] uint8, fresh classes of z of the trained steps; zeros if not finite."""
    finite: Tensor
    """[] bool; False means that nothing was changed."""


class Forward(NamedTuple):
    """Everything that one update computes before its gradients."""

    total: Tensor
    """[] weighted sum of the means of all loss maps."""
    maps: dict[str, Tensor]
    """{name: loss map} before weights: [B, T], [R, H] or [B, L-1]."""
    embed: Tensor
    """[B, T, E] encoded observations."""
    observed: Observed
    """[B, T, ...] posterior states."""
    imagined: Trajectory
    """[R, H+1, ...] states and [R, H, ...] actions."""
    world_model: WorldModelLosses
    """Eq. 5."""
    actor_critic: ActorCriticLosses
    """Eq. 7 to 12."""


Behaviour = Callable[
    [RSSMState, Noise, Replayed, ReturnRange], tuple[Trajectory, ActorCriticLosses]
]
"""Imagines from states [R, ...] and learns from it, as `Trainer` does."""


LOSSES = ("reward", "cont", "dyn", "rep", "actor", "critic", "replay_critic")
"""Beside reconstructions; each has its weight in `LossConfig`, under its name."""


class Regions(NamedTuple):
    """The functions that an update is made of; an accelerator may put others in their places."""

    parameters: Callable[[], AbstractContextManager[None]]
    """In it, layers have their parameters as the other regions are to read them: as they are."""
    encode: Callable[[dict[str, Tensor]], Tensor]
    """`WorldModel.encode`."""
    observe: Callable[[RSSMState, Tensor, Tensor, Tensor, Tensor], Observed]
    """The backend's filtering, as `RSSM.observe`."""
    world_model_losses: Callable[..., WorldModelLosses]
    """`WorldModel.world_model_losses`."""
    behaviour: Behaviour
    """`Trainer._behave`."""
    total: Callable[[Mapping[str, Tensor], LossConfig], Tensor]
    """`weighted_total`."""
    finite: Callable[[Tensor, Tensor], Tensor]
    """`all_finite`."""
    finish: Callable[[ReturnRange, RSSMState, Tensor], tuple[Tensor, Tensor]]
    """What follows the optimiser: `Trainer._finish`."""
    metrics: Callable[[Forward], dict[str, Tensor]]
    """`Trainer._forward_metrics`."""


class Trainer:
    """Owns the agent and all that changes when it learns: optimiser, slow critic, return range.

    >>> trainer = Trainer(spec, config, device="cpu", precision="float32")
    >>> generator = torch.Generator().manual_seed(0)
    >>> update = trainer.update(batch, trainer.draw_noise(generator))
    >>> update.metrics["loss/total"]
    """

    def __init__(
        self,
        spec: EnvSpec,
        config: Config,
        device: torch.device | str = "cpu",
        precision: str = "float32",
        backend: Backend = PYTORCH,
        ranks: Ranks | None = None,
    ) -> None:
        """Build a freshly initialised agent, which computes through `backend`."""
        self.spec, self.config, self.device = spec, config, torch.device(device)
        self.agent = build_agent(spec, config, self.device, precision, backend.ops)
        self.ranks = self.agent.ranks = ranks or Ranks()
        trained = {n: p for n, p in self.agent.named_parameters() if p.requires_grad}
        self.optim = backend.optimiser(trained, config.optim)
        self.range = ReturnRange.initial(self.device)
        self.observe = backend.filtering(self.agent.dyn)
        self.imagine = backend.imagination(self.agent)
        self._weighted = {*spec.obs, *LOSSES}
        self._slow: list[Tensor] = list(self.agent.slowval.parameters())
        self._critic: list[Tensor] = list(self.agent.val.parameters())
        self.regions = self.plain_regions()

    def plain_regions(self) -> Regions:
        """Regions as they are written here."""
        agent = self.agent
        last = weighted_total, all_finite, self._finish, self._forward_metrics
        world_model = agent.encode, self.observe, agent.world_model_losses
        return Regions(nullcontext, *world_model, self._behave, *last)

    def _behave(
        self, start: RSSMState, noise: Noise, replayed: Replayed, moving: ReturnRange
    ) -> tuple[Trajectory, ActorCriticLosses]:
        """Eq. 6 to 12: imagine from `start` [R, ...], and the losses of what was imagined."""
        with stage("imagine"):
            imagined = self.imagine(start, noise.action, noise.prior)
        with stage("actor and critic losses"):
            losses = self.agent.actor_critic_losses(imagined, replayed, moving)
        return imagined.trajectory, losses

    def draw_noise(self, generator: torch.Generator) -> Noise:
        """Draw every random number of one update."""
        return Noise.draw(generator, self.config, self.spec.action, self.device)

    def update(self, batch: Batch, noise: Noise) -> Update:
        """Take one training step; a loss or gradient that is not finite changes nothing."""
        forward, grads = self.gradients(batch, noise)
        regions, (deter, stoch) = self.regions, forward.observed.state  # [B, T, D], [B, T, S, K]
        with stage("metrics"):
            metrics = regions.metrics(forward)
        with stage("optimiser"):
            grads, metrics = self.ranks.combine(grads, metrics)
            grad_norm = global_norm(grads)
            finite = regions.finite(metrics["loss/total"], grad_norm)
            metrics |= self.optim.step(grads, finite) | self._grad_metrics(grad_norm, finite)
            state = RSSMState(deter.detach(), stoch.detach())
            kept = regions.finish(forward.actor_critic.range, state, finite)
        return Update(metrics, *kept, finite)

    def gradients(self, batch: Batch, noise: Noise) -> tuple[Forward, list[Tensor]]:
        """Compute all losses and the gradient of every trained parameter."""
        with self.regions.parameters():
            forward = self.forward(batch, noise)
        with stage("backward"):
            return forward, list(torch.autograd.grad(forward.total, self.optim.params))

    def forward(self, batch: Batch, noise: Noise) -> Forward:
        """Compute all losses of a batch; index 0 only gives the state and action before."""
        agent, regions = self.agent, self.regions
        obs = {key: value[:, 1:] for key, value in batch.obs.items()}  # [B, T, *], as all of these
        reward, last, terminal = batch.reward[:, 1:], batch.is_last[:, 1:], batch.is_terminal[:, 1:]
        with stage("encoder"):
            embed = regions.encode(obs)  # [B, T, E]
        with stage("observe"):
            observed = regions.observe(
                agent.state(batch.deter, batch.stoch),
                embed,
                agent.embed_action(batch.action[:, :-1]),  # [B, T, W], each before its step
                batch.is_first[:, 1:],
                noise.posterior,
            )
        with stage("world model losses"):
            world_model = regions.world_model_losses(observed, obs, reward, terminal)
        starts = self.config.loss.imagine_last or reward.shape[1]  # L, or more than there are
        # [B, T, ...] -> [R, ...], without gradient
        start = RSSMState(*(x[:, -starts:].detach().flatten(0, 1) for x in observed.state))
        replayed = Replayed(
            observed.state.feat[:, -starts:],  # [B, L, F]
            reward[:, -starts:],
            last[:, -starts:],
            terminal[:, -starts:],
        )
        imagined, actor_critic = regions.behaviour(start, noise, replayed, self.range)
        maps = world_model.maps | {
            "actor": actor_critic.actor,
            "critic": actor_critic.critic,
            "replay_critic": actor_critic.replay_critic,
        }
        assert maps.keys() <= self._weighted, f"{maps.keys() - self._weighted} have no weight"
        total = regions.total(maps, self.config.loss)
        return Forward(total, maps, embed, observed, imagined, world_model, actor_critic)

    def parameters_of_policy(self) -> dict[str, Tensor]:
        """Return the live tensors that a policy copies, by name (enc, dyn, pol)."""
        return {
            name: tensor.detach()
            for name, tensor in self.agent.named_parameters()
            if name.split(".")[0] in ("enc", "dyn", "pol")
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Return all state as one flat dictionary of the live tensors, slow critic included."""
        state = {f"agent.{name}": p.detach() for name, p in self.agent.named_parameters()}
        for kind, moments in (("rms", self.optim.rms), ("momentum", self.optim.momentum)):
            state |= {
                f"{kind}.{name}": m for name, m in zip(self.optim.names, moments, strict=True)
            }
        state |= {"count": self.optim.count, "return.low": self.range.low}
        return state | {"return.high": self.range.high}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy a state in; raise ValueError naming the first difference, and change nothing."""
        own = self.state_dict()
        check_state(own, state)
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    @torch.no_grad()
    def _finish(
        self, moved: ReturnRange, state: RSSMState, finite: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Let everything follow that does; return h and the classes of z as the replay keeps them.

        [B, T, D] and [B, T, S]. After an update that was not finite they are zeros.
        """
        self._follow(moved, finite)
        zero = torch.zeros((), device=self.device)
        classes = state.stoch.argmax(-1).to(torch.uint8)  # [B, T, S]
        return (
            torch.where(finite, state.deter, zero).to(torch.float16),
            torch.where(finite, classes, zero.to(torch.uint8)),
        )

    def _follow(self, moved: ReturnRange, finite: Tensor) -> None:
        """Move the slow critic towards the critic, and keep the return percentiles of this batch.

        slow' = (1 - rate) slow + rate critic, after the optimiser.
        """
        slow = torch._foreach_lerp(self._slow, self._critic, self.config.loss.slow_rate)
        keep_if(finite, self._slow, list(slow))
        keep_if(finite, list(self.range), list(moved))

    @torch.no_grad()
    def _forward_metrics(self, forward: Forward) -> dict[str, Tensor]:
        ac, floor = forward.actor_critic, self.config.loss.return_floor
        scale = return_scale(ac.range, floor)
        metrics = {f"loss/{name}": value.mean() for name, value in forward.maps.items()}
        metrics |= {
            "loss/total": forward.total.detach(),
            "return/S": scale,
            "return/p5": ac.range.low,
            "return/p95": ac.range.high,
            "return/mean": ac.ret.mean(),
            "return/min": ac.ret.min(),
            "return/max": ac.ret.max(),
            "return/rate": (((ac.ret - ac.range.low) / scale).abs() >= 1.0).float().mean(),
            "policy/entropy": ac.entropy.mean(),
            "policy/randomness": self.agent.pol.randomness(ac.entropy).mean(),
            "adv/mean": ac.advantage.mean(),
            "adv/std": ac.advantage.std(correction=0),
            "adv/mag": ac.advantage.abs().mean(),
            "value/mean": ac.value.mean(),
            "value/slow": ac.slow.mean(),
            "imagine/reward": ac.reward.mean(),
            "imagine/cont": ac.cont.mean(),
            "imagine/weight": ac.weight.mean(),
            "rssm/posterior_entropy": forward.world_model.posterior_entropy,
            "rssm/prior_entropy": forward.world_model.prior_entropy,
        }
        return {name: value.detach().clone() for name, value in metrics.items()}

    def _grad_metrics(self, grad_norm: Tensor, finite: Tensor) -> dict[str, Tensor]:
        rms = grad_norm / self.optim.size**0.5
        return {"opt/grad_norm": grad_norm, "opt/grad_rms": rms, "opt/finite": finite.float()}


def stage(name: str) -> record_function:
    """Mark a part of an update for profiles; costs microseconds when none is taken."""
    return record_function(STAGE + name)


def build_agent(
    spec: EnvSpec, config: Config, device: torch.device, precision: str, ops: Ops
) -> Agent:
    """Build a freshly initialised agent; the seed alone decides its weights, on any device."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown; use one of {sorted(PRECISIONS)}")
    agent = Agent(spec, config.model, config.loss)
    lost = agent.state_dict().keys() - dict(agent.named_parameters()).keys()
    assert not lost, f"{lost}: only parameters are saved and given to the policy"
    compute_with(agent, ops)
    initialize(agent, torch.Generator().manual_seed(config.train.seed))
    agent.slowval.load_state_dict(agent.val.state_dict())
    agent.dtype, agent.enc.conv_dtype = PRECISIONS[precision]
    agent.dec.conv_dtype = agent.enc.conv_dtype
    return agent.to(device)


def all_finite(total: Tensor, grad_norm: Tensor) -> Tensor:
    """Whether an update may change anything: []."""
    return torch.isfinite(total) & torch.isfinite(grad_norm)


def weighted_total(maps: Mapping[str, Tensor], loss: LossConfig) -> Tensor:
    """Eq. 4, with actor and critic: sum of weight * mean over all loss maps, [].

    Observation keys share one weight; all other losses are LOSSES. Means, where the paper sums over
    time.
    """
    weights = {name: getattr(loss, name) for name in LOSSES}
    terms = [weights.get(name, loss.reconstruction) * m.mean() for name, m in maps.items()]
    return torch.stack(terms).sum()


def check_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise ValueError naming the first key, shape, type or value that does not fit."""
    for name in [*own, *state]:
        if name not in state:
            raise ValueError(f"state has no {name!r}")
        if name not in own:
            raise ValueError(f"state has an unknown entry {name!r}")
        mine, other = own[name], state[name]
        if mine.shape != other.shape or mine.dtype != other.dtype:
            raise ValueError(
                f"{name!r} is {other.dtype} {tuple(other.shape)}, "
                f"expected {mine.dtype} {tuple(mine.shape)}"
            )
        if not torch.isfinite(other).all():
            raise ValueError(f"{name!r} holds values that are not finite")
