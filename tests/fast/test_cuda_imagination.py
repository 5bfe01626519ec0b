"""Imagination in one Triton kernel is imagination step by step; without a GPU, numpy interprets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from agent_cases import make_batch, make_config, make_spec
from compiling import SHARED, compiled_apart
from torch import Tensor

from dreamer_async.agent import Trainer
from dreamer_async.agent.states import RSSMState, Trajectory
from dreamer_async.fast.cuda import fused
from dreamer_async.fast.cuda.backend import CUDA
from dreamer_async.fast.cuda.rollout import Imagination
from dreamer_async.fast.cuda.unfit import Unfit
from dreamer_async.fast.cuda.updates import Updates

pytest.importorskip("triton", reason="Triton comes with PyTorch for CUDA, or by itself")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WIDTHS = {
    "narrow": {"deter": 64, "hidden": 16, "units": 16, "stoch": 4, "classes": 4},
    "wide actor": {"deter": 64, "hidden": 16, "units": 128, "actor_layers": 1, "prior_layers": 3},
    "wide model": {"deter": 128, "hidden": 128, "units": 16, "stoch": 8, "classes": 2},
}
KINDS = pytest.mark.parametrize("kind", ["discrete", "continuous"])


def make_case(kind: str, precision: str, **widths: int) -> tuple[Trainer, RSSMState]:
    """A trainer whose parameters all matter, and 18 states from where to imagine, two tiles."""
    config = make_config()
    config = replace(config, model=replace(config.model, **widths))
    trainer = Trainer(make_spec(kind=kind), config, DEVICE, precision, CUDA)
    generator, model = torch.Generator().manual_seed(3), config.model
    with torch.no_grad():
        for tensor in trainer.agent.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=generator).to(DEVICE), alpha=0.3)
    rows = config.train.batch_size * config.train.batch_length
    deter = torch.randn(rows, model.deter, generator=generator)
    stoch = torch.randint(0, model.classes, (rows, model.stoch), generator=generator)
    return trainer, trainer.agent.state(deter.to(DEVICE), stoch.to(DEVICE))


def dreams(
    trainer: Trainer, start: RSSMState, steps: int, other: Imagination | None = None
) -> tuple[Trajectory, Trajectory]:
    """Step by step, and in one kernel."""
    noise = trainer.draw_noise(torch.Generator(DEVICE).manual_seed(0))
    inputs = start, noise.action[:, :steps], noise.prior[:, :steps]
    kernel = other or fused.imagination(trainer.agent)
    return trainer.agent.imagine(*inputs).trajectory, kernel.imagine(*inputs)


def off(one: Tensor, two: Tensor) -> float:
    return float((one.float() - two.float()).norm() / two.float().norm())


@KINDS
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
def test_all_steps_are_the_same(kind: str, widths: dict[str, int]) -> None:
    trainer, start = make_case(kind, "float32", **widths)
    plain, kernel = dreams(trainer, start, 2)
    assert kernel.feat.shape == plain.feat.shape and kernel.action.dtype == plain.action.dtype
    torch.testing.assert_close(kernel.feat, plain.feat, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(kernel.action, plain.action, rtol=1e-4, atol=2e-5)


@KINDS
def test_bfloat16_by_norm(kind: str) -> None:
    trainer, start = make_case(kind, "bfloat16", **WIDTHS["narrow"])
    plain, kernel = dreams(trainer, start, 1)
    deter = slice(trainer.config.model.deter)
    assert kernel.feat.dtype == torch.bfloat16
    assert 0 < off(kernel.feat[:, 1, deter], plain.feat[:, 1, deter]) < 0.05


def test_control_another_epsilon_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamer_async.fast.cuda import imagination

    monkeypatch.setattr(imagination, "NORM_EPS", 1e-2)
    plain, kernel = dreams(*make_case("continuous", "float32", **WIDTHS["narrow"]), 1)
    assert off(kernel.feat, plain.feat) > 1e-4


def test_a_whole_update_has_the_same_losses() -> None:
    trainer, _ = make_case("discrete", "float32", **WIDTHS["narrow"])
    batch = make_batch(trainer.spec, trainer.config).map(lambda x: x.to(DEVICE))
    noise = trainer.draw_noise(torch.Generator(DEVICE).manual_seed(0))
    plain = trainer.forward(batch, noise).maps
    Updates(trainer).fuse_imagination(fused.imagination(trainer.agent))
    for name, value in trainer.forward(batch, noise).maps.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_it_compiles_for(capability: int, dtype: str) -> None:
    """Down to machine code, by Triton's own assembler: half a minute for each, without any GPU."""
    found = compiled_apart("compile_imagination.py", capability, dtype)
    assert set(found) == {"discrete", "continuous"}
    assert all(0 < shared <= SHARED[capability] for (shared,) in found.values()), found


@pytest.mark.parametrize(
    ("widths", "why"),
    [
        ({"hidden": 24}, "powers of two"),
        ({"hidden": 8}, "powers of two"),
        ({"deter": 1024}, "powers of two from 16 to 512"),
        ({"dyn_layers": 2}, "one layer"),
    ],
)
def test_what_does_not_fit_is_said(widths: dict[str, int], why: str) -> None:
    trainer, _ = make_case("discrete", "float32", **{**WIDTHS["narrow"], **widths})
    with pytest.raises(Unfit, match=why):
        fused.imagination(trainer.agent)
