"""What GPUs are given to compute otherwise is the same but for rounding; computed on a CPU here."""

from __future__ import annotations

import pytest
import torch
from agent_cases import MIXED, make_batch, make_config, make_spec
from torch import Tensor

from dreamer_async.agent import Trainer
from dreamer_async.agent.backend import PYTORCH, Backend
from dreamer_async.fast.cuda.backend import CUDA


def gradients(kind: str, backend: Backend) -> dict[str, Tensor]:
    trainer = Trainer(make_spec(MIXED, kind), make_config(), backend=backend)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in trainer.agent.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.1)
    noise = trainer.draw_noise(torch.Generator().manual_seed(0))
    forward, grads = trainer.gradients(make_batch(trainer.spec, trainer.config), noise)
    return {**forward.maps, **dict(zip(trainer.optim.names, grads, strict=True))}


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_losses_and_gradients_are_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = gradients(kind, PYTORCH)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)  # also what is left to a CPU otherwise
    there = gradients(kind, CUDA)
    assert any(not torch.equal(there[name], here[name]) for name in here), "control: rounded alike"
    for name, value in here.items():
        off = (there[name] - value).norm() / value.norm().clamp(min=1e-6)
        assert off < 1e-4, (name, off)
