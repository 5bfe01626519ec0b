"""Kernels that are cast once an update give the same numbers as those that each layer casts."""

from __future__ import annotations

import pytest
import torch
from agent_cases import IMAGE, MIXED, VECTOR, make_batch, make_config, make_spec
from torch import Tensor

from dreamer_async.agent import Trainer
from dreamer_async.envs.spec import ObsSpec
from dreamer_async.fast.cuda.backend import CUDA
from dreamer_async.fast.cuda.low import Low, shared_layers
from dreamer_async.fast.cuda.updates import Updates


def make_trainer(obs: dict[str, ObsSpec] = VECTOR, precision: str = "bfloat16") -> Trainer:
    trainer = Trainer(make_spec(obs), make_config(), "cpu", precision, CUDA)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in trainer.agent.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.1)
    return trainer


def gradients(trainer: Trainer) -> dict[str, Tensor]:
    noise = trainer.draw_noise(torch.Generator().manual_seed(0))
    forward, grads = trainer.gradients(make_batch(trainer.spec, trainer.config), noise)
    return {**forward.maps, **dict(zip(trainer.optim.names, grads, strict=True))}


@pytest.mark.parametrize("obs", [VECTOR, IMAGE, MIXED], ids=["vectors", "images", "both"])
def test_losses_and_gradients_are_the_same_to_the_last_bit(obs: dict[str, ObsSpec]) -> None:
    trainer = make_trainer(obs)
    plain = gradients(trainer)
    trainer.regions = trainer.regions._replace(parameters=Low(trainer.agent))
    shared = gradients(trainer)
    assert all(value.dtype == torch.float32 for value in shared.values())
    for name, value in plain.items():
        assert torch.equal(shared[name], value), name


def test_gradients_of_a_kernel_that_is_read_twice_would_be_rounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: the critic reads imagined and replayed states."""
    trainer = make_trainer()
    plain = gradients(trainer)
    low = Low(trainer.agent)
    monkeypatch.setattr(low, "_layers", [trainer.agent.val.mlp.stack[0][0]])
    trainer.regions = trainer.regions._replace(parameters=low)
    name = "val.mlp.linear0.kernel"
    assert not torch.equal(gradients(trainer)[name], plain[name])


def test_layers_have_their_parameters_back() -> None:
    """After an update, and after one that could not be computed."""
    agent = make_trainer().agent
    low, before = Low(agent), dict(agent.named_parameters())
    with pytest.raises(ZeroDivisionError), low():
        held = [layer.kernel for layer in shared_layers(agent)]
        assert all(kernel.dtype == torch.bfloat16 for kernel in held)
        raise ZeroDivisionError
    after = dict(agent.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_copies_follow_the_parameters() -> None:
    agent = make_trainer().agent
    low, [layer, *_] = Low(agent), shared_layers(agent)
    with torch.no_grad():
        layer.kernel.fill_(3.0)
    with low():
        assert bool((layer.kernel == 3.0).all())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_updates_cast_together_where_there_is_something_to_cast(precision: str) -> None:
    trainer = make_trainer(precision=precision)
    Updates(trainer).interpret()
    layer = shared_layers(trainer.agent)[0]
    with trainer.regions.parameters():
        assert (layer.kernel.dtype == torch.bfloat16) == (precision == "bfloat16")
        assert isinstance(layer.kernel, torch.nn.Parameter) == (precision == "float32")
