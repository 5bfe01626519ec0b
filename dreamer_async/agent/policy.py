"""Acting in the environment: a copy of the weights, and one step of encode, observe, act.

Eq. 3 without the decoder and prior, and the actor of eq. 6. Actions are sampled in training and
evaluation alike. Read `world_model` and `actor_critic` before.

Legend: N rows, one per environment, D deter, S stoch, K classes, E embed, A action, C columns of
several actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamer_async.agent.actions import draw_action_noise
from dreamer_async.agent.actor_critic import Agent
from dreamer_async.agent.backend import PYTORCH, Backend
from dreamer_async.agent.coders import Encoder
from dreamer_async.agent.heads import Actor
from dreamer_async.agent.nets import PRECISIONS, Conv, Kernel, lower
from dreamer_async.agent.ops import compute_with
from dreamer_async.agent.rssm import RSSM
from dreamer_async.agent.states import RSSMState
from dreamer_async.config import Config

if TYPE_CHECKING:
    from dreamer_async.envs.spec import ActionSpec, EnvSpec


class PolicyCarry(NamedTuple):
    """What the policy remembers of each environment."""

    deter: Tensor
    """[N, D] h, compute type."""
    stoch: Tensor
    """[N, S, K] one-hot z, compute type."""
    action: Tensor
    """[N] int64 or [N, A or C] float32, the previous action."""


class PolicyNoise(NamedTuple):
    """The random numbers of one acting step; see `Noise` for samples in their place."""

    posterior: Tensor
    """[N, S] uniform in [0, 1)."""
    action: Tensor
    """[N] uniform, [N, A] normal, or [N, C]."""

    @staticmethod
    def draw(action: ActionSpec, stoch: int, rows: int, generator: torch.Generator) -> PolicyNoise:
        """Draw the numbers of one step, on the generator's device."""
        posterior = torch.rand(rows, stoch, generator=generator, device=generator.device)
        return PolicyNoise(posterior, draw_action_noise(action, (rows,), generator))

    def to(self, device: torch.device) -> PolicyNoise:
        """Move the numbers."""
        return PolicyNoise(self.posterior.to(device), self.action.to(device))


class Acted(NamedTuple):
    """One acting step, as the environment and the replay want it."""

    action: NDArray[Any]
    """[N] int32, or [N, A or C] float32 that is not clipped."""
    deter: NDArray[np.float16]
    """[N, D] h, for the replay."""
    stoch: NDArray[np.uint8]
    """[N, S] classes of z, for the replay."""


class Policy:
    """Acts with its own copy of the weights of encoder, RSSM and actor (enc, dyn, pol).

    It is loaded with those of an agent whenever its owner wants. What it remembers of environments
    is handed in and out as `PolicyCarry`.
    """

    def __init__(
        self,
        spec: EnvSpec,
        config: Config,
        device: torch.device | str = "cpu",
        precision: str = "float32",
        backend: Backend = PYTORCH,
    ) -> None:
        self.spec, self.config, self.device = spec, config, torch.device(device)
        model = config.model
        feat = model.deter + model.stoch * model.classes
        self.enc = Encoder(spec.obs, model)
        self.dtype, conv_dtype = PRECISIONS[precision]
        self.enc.conv_dtype = conv_dtype
        self.dyn = RSSM(model, self.enc.width, spec.action.width)
        self.pol = Actor(feat, spec.action, model)
        parts = nn.ModuleDict({"enc": self.enc, "dyn": self.dyn, "pol": self.pol})
        parts.requires_grad_(False).to(self.device)
        # Layers would cast their own in every step; here it happens once, in `load`.
        lower(parts, self.dtype)
        for conv, _ in self.enc.cnn:
            lower(conv, conv_dtype)
        self._weights: dict[str, Tensor] = dict(parts.named_parameters())
        self._by_type: dict[torch.dtype, list[str]] = {}
        for name, weight in self._weights.items():
            self._by_type.setdefault(weight.dtype, []).append(name)
        compute_with(parts, backend.ops)
        self._act = backend.acting(self.dyn, self.pol)

    @torch.no_grad()
    def load(self, source: Agent | Mapping[str, Tensor]) -> None:
        """Copy the weights of an agent, or of a dictionary with its names (enc, dyn, pol).

        Raises ValueError naming the first that is missing.
        """
        named = dict(source.named_parameters()) if isinstance(source, Agent) else source
        missing = [name for name in self._weights if name not in named]
        if missing:
            raise ValueError(f"the policy's weights lack {missing[0]!r}")
        for names in self._by_type.values():  # one call copies tensors of one type fast
            own = [self._weights[name] for name in names]
            torch._foreach_copy_(own, [named[name] for name in names])

    def initial(self, num_envs: int) -> PolicyCarry:
        """All zeros: what is remembered before any episode."""
        action = self.spec.action
        state = self.dyn.initial(num_envs, self.dtype, self.device)
        dtype = torch.int64 if action.kind == "discrete" else torch.float32
        return PolicyCarry(
            *state, torch.zeros(num_envs, *action.shape, dtype=dtype, device=self.device)
        )

    def draw_noise(self, rows: int, generator: torch.Generator) -> PolicyNoise:
        """Draw the numbers of one step on the generator's device, then move them."""
        stoch = self.config.model.stoch
        return PolicyNoise.draw(self.spec.action, stoch, rows, generator).to(self.device)

    def act(
        self,
        obs: Mapping[str, NDArray[Any] | Tensor],
        is_first: NDArray[np.bool_] | Tensor,
        carry: PolicyCarry,
        generator: torch.Generator,
        *,
        greedy: bool = False,
    ) -> tuple[Acted, PolicyCarry]:
        """Sample one action per row, also returning what to remember of the rows.

        obs is {key: [N, *]} and is_first [N]. The same in training and evaluation; `greedy` takes
        the likeliest actions instead, while z is still sampled.
        """
        rows = carry.deter.shape[0]
        tensors = {key: self._tensor(obs[key]) for key in self.spec.obs}
        noise = self.draw_noise(rows, generator)
        carry = self.step(tensors, self._tensor(is_first), carry, noise)
        if greedy:
            carry = carry._replace(action=self.mode(carry))
        acted = Acted(
            carry.action.cpu().numpy().astype(self.spec.action.dtype),
            carry.deter.to(torch.float16).cpu().numpy(),
            carry.stoch.argmax(-1).to(torch.uint8).cpu().numpy(),
        )
        return acted, carry

    @torch.no_grad()
    def step(
        self, obs: Mapping[str, Tensor], is_first: Tensor, carry: PolicyCarry, noise: PolicyNoise
    ) -> PolicyCarry:
        """Encode, observe, act: everything between copying in and copying out."""
        embed = self.enc(obs, self.dtype)  # [N, E]
        state = RSSMState(carry.deter, carry.stoch)
        state, action = self._act(state, carry.action, embed, is_first, *noise)
        return PolicyCarry(*state, action)

    @torch.no_grad()
    def mode(self, carry: PolicyCarry) -> Tensor:
        """The likeliest actions in the states of a carry: as `PolicyCarry.action`."""
        feat = RSSMState(carry.deter, carry.stoch).feat  # [N, F]
        return self.pol.mode(self.pol(feat))

    def _tensor(self, x: NDArray[Any] | Tensor) -> Tensor:
        return torch.as_tensor(x).to(self.device)


def compute_types(agent: Agent) -> dict[str, torch.dtype]:
    """In what type the layers of an agent compute, by the names of their kernels and biases.

    So a policy's weights may be cast before they are loaded.
    """
    types = {}
    for name, layer in agent.named_modules():
        if isinstance(layer, Kernel):
            of_convs = agent.enc.conv_dtype or agent.dtype
            dtype = of_convs if isinstance(layer, Conv) else agent.dtype
            types |= {f"{name}.{own}": dtype for own, _ in layer.named_parameters(recurse=False)}
    return types
