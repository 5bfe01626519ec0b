"""Filtering with its written-out gradient is filtering step by step with autograd's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from agent_cases import MIXED, VECTOR, make_batch, make_config, make_spec
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dreamer_async.agent import Batch, Noise, Trainer
from dreamer_async.agent.rssm import RSSM
from dreamer_async.agent.states import Observed
from dreamer_async.envs.spec import ObsSpec
from dreamer_async.fast.cuda import scan, step
from dreamer_async.fast.cuda.backend import CUDA

PRECISIONS = {"float32": 1e-4, "bfloat16": 0.1}
"""Relative norm by which gradients may differ. bfloat16 keeps 8 bits, and rounds elsewhere."""


def make_case(
    obs: dict[str, ObsSpec] = MIXED, kind: str = "discrete", precision: str = "float32"
) -> tuple[Trainer, Batch, Noise]:
    """A trainer whose layers all matter, and what it learns from: with resets within."""
    spec, config = make_spec(obs, kind), make_config(length=9)
    trainer = Trainer(spec, config, precision=precision)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in trainer.agent.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.2)
    noise = trainer.draw_noise(torch.Generator().manual_seed(0))
    batch = make_batch(spec, config)
    assert batch.is_first[:, 2:].any()
    return trainer, batch, noise


def filtered(
    trainer: Trainer, batch: Batch, noise: Noise, *, plain: bool = False
) -> tuple[Observed, dict[str, Tensor]]:
    """Filtered states, and the gradient of something that reads all of them."""
    agent = trainer.agent
    observe = agent.dyn.observe if plain else scan.filtering(agent.dyn)
    state = agent.state(batch.deter, batch.stoch)
    tokens = agent.encode({key: value[:, 1:] for key, value in batch.obs.items()})
    action = agent.embed_action(batch.action[:, :-1])
    observed = observe(state, tokens, action, batch.is_first[:, 1:], noise.posterior)
    generator = torch.Generator().manual_seed(1)
    total = sum(
        (x.float() * torch.randn(x.shape, generator=generator)).sum()
        for x in (*observed.state, observed.logits)
    )
    assert isinstance(total, Tensor)
    params = {n: p for n, p in agent.named_parameters() if n.split(".")[0] in ("enc", "dyn")}
    used = {n: p for n, p in params.items() if ".prior" not in n}
    return observed, dict(zip(used, torch.autograd.grad(total, list(used.values())), strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("obs", [VECTOR, MIXED], ids=["vector", "mixed"])
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_states_and_gradients_are_those_of_single_steps(
    obs: dict[str, ObsSpec], kind: str, precision: str
) -> None:
    case = make_case(obs, kind, precision)
    ours, grads = filtered(*case)
    theirs, wanted = filtered(*case, plain=True)
    off = PRECISIONS[precision]
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=off, atol=off)
    assert ours.state.stoch.shape == theirs.state.stoch.shape
    if precision == "float32":
        assert torch.equal(ours.state.stoch, theirs.state.stoch)
    for name, grad in grads.items():
        difference = (grad - wanted[name]).norm() / wanted[name].norm()
        assert difference < off, (name, difference)


def test_control_a_wrong_gradient_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case()
    monkeypatch.setattr(step, "NORM_EPS", 1e-2)
    _, grads = filtered(*case)
    _, wanted = filtered(*case, plain=True)
    worst = max(float((grads[n] - g).norm() / g.norm()) for n, g in wanted.items())
    assert worst > PRECISIONS["float32"]


def test_one_layer_is_scanned_and_more_are_unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()
    more = replace(config, model=replace(config.model, dyn_layers=2, posterior_layers=2))
    trainer = Trainer(make_spec(), more, backend=CUDA)
    noise = trainer.draw_noise(torch.Generator().manual_seed(0))
    assert trainer.update(make_batch(trainer.spec, more), noise).finite
    monkeypatch.setattr(RSSM, "observe", lambda *inputs: pytest.fail("one layer is unrolled"))
    filtered(*make_case())


class Count(TorchDispatchMode):
    """How many operations were done."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_it_takes_fewer_operations() -> None:
    case = make_case(VECTOR, precision="bfloat16")
    with Count() as scanned:
        filtered(*case)
    with Count() as unrolled:
        filtered(*case, plain=True)
    assert scanned.calls < unrolled.calls
