"""Imagining with parameters that were cast before is imagining with those cast in each step."""

from __future__ import annotations

import pytest
import torch
from agent_cases import make_batch, make_config, make_spec
from torch import Tensor

from dreamer_async.agent import Trainer
from dreamer_async.agent.actor_critic import roll_out
from dreamer_async.agent.states import RSSMState, Trajectory
from dreamer_async.fast.cuda.lowered import Lowered


def dreams(trainer: Trainer, lowered: Lowered | None) -> Trajectory:
    noise = trainer.draw_noise(torch.Generator().manual_seed(0))
    generator, model = torch.Generator().manual_seed(1), trainer.config.model
    rows = noise.action.shape[0]
    deter = torch.randn(rows, model.deter, generator=generator)
    stoch = torch.randint(0, model.classes, (rows, model.stoch), generator=generator)
    start: RSSMState = trainer.agent.state(deter, stoch)
    step = lowered.imagine_step if lowered else trainer.agent.imagine_step
    return roll_out(step, start, noise.action, noise.prior)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_dreams_are_the_same(kind: str) -> None:
    trainer = Trainer(make_spec(kind=kind), make_config(lr=1e-2, warmup=0), precision="bfloat16")
    batch = make_batch(trainer.spec, trainer.config)
    lowered = Lowered(trainer.agent)
    for seed in range(2):
        trainer.update(batch, trainer.draw_noise(torch.Generator().manual_seed(seed)))
    plain, stale = dreams(trainer, None), dreams(trainer, lowered)
    assert not torch.equal(plain.feat, stale.feat), "negative control: it has to be refreshed"
    lowered.refresh()
    fresh = dreams(trainer, lowered)
    assert torch.equal(plain.feat, fresh.feat) and torch.equal(plain.action, fresh.action)


def test_only_kernels_are_lowered() -> None:
    trainer = Trainer(make_spec(), make_config(), precision="bfloat16")
    lowered = Lowered(trainer.agent)
    kinds: dict[torch.dtype, list[str]] = {}
    parts: list[tuple[str, Tensor]] = [
        *lowered.dyn.named_parameters(),
        *lowered.pol.named_parameters(),
    ]
    for name, tensor in parts:
        kinds.setdefault(tensor.dtype, []).append(name)
        assert not tensor.requires_grad
    assert all("scale" in name for name in kinds[torch.float32])
    assert not any("scale" in name for name in kinds[torch.bfloat16])
    assert all(p.dtype == torch.float32 for p in trainer.agent.parameters())
