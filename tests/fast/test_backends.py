"""What the three backends have in common, and what each leaves to another."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from agent_cases import MIXED, make_batch, make_config, make_spec
from backends import backend, least_gap
from torch import Tensor

from dreamer_async.agent import Batch, Noise, Policy, Trainer
from dreamer_async.config import SIZES, ModelConfig
from dreamer_async.envs.spec import ActionSpec

ALL = pytest.mark.parametrize("name", ["PyTorch", "native", "CUDA"])
OTHERS = pytest.mark.parametrize("name", ["native", "CUDA"])


def gradients(name: str, kind: str, model: ModelConfig | None = None) -> dict[str, Tensor]:
    """All losses and gradients of a batch, after all parameters were moved."""
    spec, config = make_spec(MIXED, kind), make_config(length=9)
    config = replace(config, model=model or config.model)
    trainer = Trainer(spec, config, backend=backend(name))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in trainer.agent.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.1)
    noise = forced(trainer.draw_noise(generator), spec.action, config.model.classes)
    forward, grads = trainer.gradients(untied(trainer), noise)
    return {**forward.maps, **dict(zip(trainer.optim.names, grads, strict=True))}


def forced(noise: Noise, action: ActionSpec, classes: int) -> Noise:
    """Samples themselves: of random numbers, rounding could make another class here and there."""
    posterior, prior = ((x * classes).long() for x in (noise.posterior, noise.prior))
    if action.kind == "discrete":
        return Noise(posterior, prior, (noise.action * action.size).long())
    return Noise(posterior, prior, noise.action.double())


def untied(trainer: Trainer) -> Batch:
    """A batch for which no rounding decides where a gradient goes."""
    for seed in range(100):
        batch = make_batch(trainer.spec, trainer.config, seed)
        obs = {key: x[:, 1:].flatten(0, 1) for key, x in batch.obs.items()}
        if least_gap(trainer.agent.enc, obs) > LEAST_GAP:
            return batch
    raise AssertionError("all batches have ties")


LEAST_GAP = 4e-6
"""Several times what any way computes wrong."""
SHAPES = {
    "narrow": {},
    "odd": {
        **{"deter": 30, "hidden": 11, "blocks": 3, "block_space": 2},
        **{"stoch": 3, "classes": 5, "units": 9},
    },
    "flat": {"actor_layers": 1, "critic_layers": 1, "prior_layers": 1, "reward_layers": 2},
    "deep": {"dyn_layers": 2, "posterior_layers": 2},
    "other kernels": {"kernel": 3, "depth": 3, "block_space": 4},
}


@OTHERS
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_losses_and_gradients_are_those_of_pytorch(
    name: str, kind: str, shape: dict[str, int]
) -> None:
    model = replace(make_config().model, **shape)
    theirs = gradients("PyTorch", kind, model)
    ours = gradients(name, kind, model)
    assert any(not torch.equal(ours[key], theirs[key]) for key in theirs), "control: one way twice"
    for key, value in theirs.items():
        off = (ours[key] - value).norm() / value.norm().clamp(min=1e-6)
        # The critic learns from means of bins up to 5e8, which are differences of large numbers.
        assert off < (1e-3 if key.startswith("val.") else 1e-4), (key, off)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_in_bfloat16_they_are_as_far_off_as_bfloat16_is(kind: str, shape: dict[str, int]) -> None:
    model = replace(make_config().model, **shape)
    ours, exact = gradients("native in bfloat16", kind, model), gradients("native", kind, model)
    off = {
        key: (ours[key] - value).norm() / value.norm().clamp(min=1e-6)
        for key, value in exact.items()
        if not key.startswith("val.")  # whose means of bins up to 5e8 leave nothing to compare
    }
    assert max(off.values()) > 1e-3, "control: nothing is rounded"
    assert max(off.values()) < 0.2, max(off.items(), key=lambda item: item[1])


@ALL
def test_what_is_left_to_others_is_said(name: str) -> None:
    model, chosen = make_config().model, backend(name)
    assert chosen.gaps(model) == ""
    deep = chosen.gaps(replace(model, dyn_layers=2))
    assert ("model.dyn_layers=2" in deep) == (name != "PyTorch")
    wide = chosen.gaps(replace(model, kernel=7))
    assert ("model.kernel=7" in wide) == (name == "native")


@ALL
@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_left_of_the_sizes_of_the_paper(name: str, size: str) -> None:
    given = {key.partition(".")[2]: value for key, value in SIZES[size].items()}
    assert backend(name).gaps(ModelConfig(**given)) == ""


@ALL
def test_a_backend_is_handed_down_to_every_part(name: str) -> None:
    chosen, spec, config = backend(name), make_spec(MIXED), make_config()
    trainer, policy = Trainer(spec, config, backend=chosen), Policy(spec, config, backend=chosen)
    for root in (trainer.agent, policy.enc, policy.dyn, policy.pol):
        parts = [part for part in root.modules() if hasattr(part, "ops")]
        assert parts and all(part.ops is chosen.ops for part in parts)
