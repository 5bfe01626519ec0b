"""Imagination laid out for few kernels is imagination step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from agent_cases import make_config, make_spec
from torch import Tensor

from dreamer_async.agent import Trainer
from dreamer_async.agent.states import RSSMState, Trajectory
from dreamer_async.envs.spec import ActionSpec, EnvSpec
from dreamer_async.fast.cuda.rollout import Rollout, fits

SEVERAL = ActionSpec(
    "several", 4, (("move", ActionSpec("discrete", 3)), ("turn", ActionSpec("continuous", 2)))
)
OFF = {"float32": 1e-5, "bfloat16": 0.05}
"""Relative norm by which one step may differ. bfloat16 keeps 8 bits, and rounds elsewhere."""


def make_case(kind: str, precision: str, **widths: int) -> tuple[Trainer, RSSMState]:
    """A trainer whose layers all matter, and states from where to imagine."""
    spec, config = make_spec(kind=kind), make_config()
    if kind == "several":
        spec = EnvSpec("toy", "case", spec.obs, SEVERAL)
    config = replace(config, model=replace(config.model, **widths))
    trainer, generator = (
        Trainer(spec, config, precision=precision),
        torch.Generator().manual_seed(3),
    )
    with torch.no_grad():
        for tensor in trainer.agent.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.3)
    model, rows = config.model, config.train.batch_size * config.train.batch_length
    deter = torch.randn(rows, model.deter, generator=generator)
    stoch = torch.randint(0, model.classes, (rows, model.stoch), generator=generator)
    return trainer, trainer.agent.state(deter, stoch)


def dreams(trainer: Trainer, start: RSSMState, steps: int) -> tuple[Trajectory, Trajectory]:
    """Step by step, and laid out for few kernels."""
    noise = trainer.draw_noise(torch.Generator().manual_seed(0))
    inputs = start, noise.action[:, :steps], noise.prior[:, :steps]
    return trainer.agent.imagine(*inputs).trajectory, Rollout(trainer.agent).imagine(*inputs)


def off(one: Tensor, two: Tensor) -> float:
    return float((one.float() - two.float()).norm() / two.float().norm())


KINDS = pytest.mark.parametrize("kind", ["discrete", "continuous", "several"])


@KINDS
@pytest.mark.parametrize("widths", [{}, {"hidden": 12, "prior_layers": 1, "actor_layers": 1}])
def test_all_steps_are_the_same(kind: str, widths: dict[str, int]) -> None:
    trainer, start = make_case(kind, "float32", **widths)
    plain, few = dreams(trainer, start, 4)
    assert few.feat.shape == plain.feat.shape and few.action.dtype == plain.action.dtype
    torch.testing.assert_close(few.feat, plain.feat, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(few.action, plain.action, rtol=1e-4, atol=1e-5)


@KINDS
@pytest.mark.parametrize("precision", OFF)
def test_a_step_is_near(kind: str, precision: str) -> None:
    trainer, start = make_case(kind, precision)
    plain, few = dreams(trainer, start, 1)
    deter = slice(trainer.config.model.deter)
    assert few.feat.dtype == plain.feat.dtype == trainer.agent.dtype
    assert off(few.feat[:, 1, deter], plain.feat[:, 1, deter]) < OFF[precision]


@KINDS
def test_every_parameter_counts(kind: str) -> None:
    trainer, start = make_case(kind, "float32")
    _, before = dreams(trainer, start, 4)
    read = [
        (name, tensor)
        for name, tensor in trainer.agent.named_parameters()
        if name.split(".")[0] in ("dyn", "pol") and ".obs" not in name
    ]
    for name, tensor in read:
        kept = tensor.detach().clone()
        with torch.no_grad():
            tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(5)))
        _, after = dreams(trainer, start, 4)
        assert not torch.equal(before.feat, after.feat), name
        with torch.no_grad():
            tensor.copy_(kept)


def test_it_is_for_the_layers_of_the_paper() -> None:
    assert fits(make_case("discrete", "float32")[0].agent)
    assert not fits(make_case("discrete", "float32", dyn_layers=2)[0].agent)
