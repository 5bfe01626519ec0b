"""The optimiser compared with the official code, stage by stage (f_*)."""

from __future__ import annotations

import pytest
import torch
from oracle_cases import Case, close, load
from torch import Tensor, nn

from dreamer_async.agent.optim import (
    LaProp,
    clip_by_agc,
    learning_rate,
    scale_by_momentum,
    scale_by_rms,
)
from dreamer_async.config import OptimConfig

pytestmark = pytest.mark.oracle
VARIANTS = {
    "official": OptimConfig(),
    "fast": OptimConfig(lr=1e-2, warmup=4),
    "noagc": OptimConfig(lr=1e-2, warmup=0, agc=1e30),  # a bound that never binds
}
TRUE = torch.tensor(True)


@pytest.fixture
def f() -> Case:
    return load("f_optimizer")


def test_stages(f: Case) -> None:
    params, grads = f.under("params/"), f.under("grads/")
    rms = momentum = [torch.zeros_like(p) for p in params.values()]
    for step in range(len(next(iter(grads.values())))):
        count = torch.tensor(step + 1)
        g: list[Tensor] = [grads[name][step] for name in params]
        g = clip_by_agc(g, list(params.values()), 0.3, 1e-3)
        compare(f, "agc", step, g, 1e-5)
        g, rms = scale_by_rms(g, rms, count, 0.999, 1e-20)
        compare(f, "rms", step, g, 2e-4)
        g, momentum = scale_by_momentum(g, momentum, count, 0.9)
        compare(f, "momentum", step, g, 2e-4)


def compare(f: Case, stage: str, step: int, values: list[Tensor], tolerance: float) -> None:
    for name, value in zip(f.under("params/"), values, strict=True):
        close(value, f[f"stages/{stage}/{name}"][step], tolerance, f"{stage} {step} {name}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_after_several_updates(f: Case, variant: str) -> None:
    grads = f.under("grads/")
    params = {name: nn.Parameter(p.clone()) for name, p in f.under("params/").items()}
    optim, checked = LaProp(params, VARIANTS[variant]), 0
    for step in range(1, 21):
        before = {name: p.detach().clone() for name, p in params.items()}
        optim.step([grads[name][step - 1] for name in params], TRUE)
        for name, update in f.under(f"{variant}/update_{step}/").items():
            start, after = f[f"params/{name}"], f[f"{variant}/params_after_{step}/{name}"]
            near(params[name] - before[name], update, before[name], f"update {step} {name}")
            near(params[name] - start, after - start, start, f"all {step} updates of {name}")
            checked += 1
    assert checked >= 4 * len(params)


def near(change: Tensor, expected: Tensor, parameter: Tensor, name: str) -> None:
    """Compare changes; those of large parameters are rounded to the parameter's last digit."""
    bound = 2e-4 * expected.abs().max() + 2e-7 * parameter.abs().max()
    assert (change - expected).abs().max() <= bound, name


def test_first_update_changes_nothing(f: Case) -> None:
    params = {name: nn.Parameter(p.clone()) for name, p in f.under("params/").items()}
    metrics = LaProp(params, OptimConfig()).step([g[0] for g in f.under("grads/").values()], TRUE)
    assert metrics["opt/lr"] == 0
    assert all(torch.equal(p, f[f"params/{name}"]) for name, p in params.items())


def test_schedule(f: Case) -> None:
    config = OptimConfig()
    for count, lr in zip(f["schedule/const/count"], f["schedule/const/lr"], strict=True):
        close(
            learning_rate(count, config.lr, config.warmup), lr, 5e-5
        )  # the official one is rounded
