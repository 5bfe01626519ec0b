"""The optimiser: literal steps and what it promises."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from dreamer_async.agent.optim import (
    LaProp,
    clip_by_agc,
    keep_if,
    learning_rate,
    scale_by_momentum,
    scale_by_rms,
)
from dreamer_async.config import OptimConfig
from dreamer_async.fast.cuda.flat import WIDTH, Flat
from dreamer_async.fast.cuda.optim import FlatLaProp

YES, NO = torch.tensor(True), torch.tensor(False)


def test_agc_clips_each_tensor_by_its_own_norm() -> None:
    params = [torch.tensor([3.0, 4.0]), torch.zeros(2), torch.tensor([3.0, 4.0])]
    grads = [torch.tensor([30.0, 40.0]), torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4])]
    clipped = clip_by_agc(grads, params, 0.3, 1e-3)
    torch.testing.assert_close(clipped[0], torch.tensor([0.9, 1.2]))  # norm 0.3 * 5
    torch.testing.assert_close(clipped[1], torch.tensor([1.8e-4, 2.4e-4]))  # norm 0.3 * floor
    assert torch.equal(clipped[2], grads[2])


def test_first_normalised_step_has_size_one() -> None:
    """Bias correction makes the first direction the sign, whatever the gradient's scale."""
    grads = [torch.tensor([1e-8, -5.0, 0.0])]
    zeros = [torch.zeros(3)]
    one = torch.tensor(1)
    scaled, rms = scale_by_rms(grads, zeros, one, 0.999, 1e-20)
    torch.testing.assert_close(scaled[0], torch.tensor([1.0, -1.0, 0.0]))
    torch.testing.assert_close(rms[0], torch.tensor([1e-19, 0.025, 0.0]))
    moved, momentum = scale_by_momentum(scaled, zeros, one, 0.9)
    torch.testing.assert_close(moved[0], scaled[0])
    torch.testing.assert_close(momentum[0], 0.1 * scaled[0])


def test_momentum_follows_the_normalisation() -> None:
    """Adam would average the raw gradients: (1 + 1000) / 2 / rms; LaProp averages signs."""
    optim = LaProp({"p": nn.Parameter(torch.ones(1))}, OptimConfig(lr=1.0, warmup=0, agc=1e9))
    optim.step([torch.tensor([1.0])], YES)
    optim.step([torch.tensor([1000.0])], YES)
    second = 1000.0 / ((0.999 * 1e-3 + 1e3) / (1 - 0.999**2)) ** 0.5
    expected = (0.9 * 0.1 * 1.0 + 0.1 * second) / (1 - 0.9**2)
    assert optim.params[0].item() == pytest.approx(1 - 1 - expected, abs=1e-4)


def test_learning_rate_rises_from_zero() -> None:
    rate = lambda count: learning_rate(torch.tensor(count), 4e-5, 1000).item()  # noqa: E731
    assert rate(0) == 0
    assert rate(500) == pytest.approx(2e-5)
    assert rate(1000) == rate(5000) == pytest.approx(4e-5)
    assert learning_rate(torch.tensor(0), 4e-5, 0).item() == pytest.approx(4e-5)


def test_keep_if_lets_no_nan_through() -> None:
    old = [torch.tensor([1.0, -0.0])]
    keep_if(NO, old, [torch.full((2,), float("nan"))])
    assert old[0].tolist() == [1.0, 0.0] and old[0].signbit().tolist() == [False, True]
    keep_if(YES, old, [torch.tensor([2.0, 3.0])])
    assert old[0].tolist() == [2.0, 3.0]


def test_a_skipped_step_changes_nothing() -> None:
    optim = LaProp({"p": nn.Parameter(torch.ones(3))}, OptimConfig(lr=0.1, warmup=0))
    optim.step([torch.ones(3)], YES)
    state = [optim.params[0], optim.rms[0], optim.momentum[0], optim.count]
    before = [s.detach().clone() for s in state]
    optim.step([torch.full((3,), float("nan"))], NO)
    assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True))
    optim.step([torch.ones(3)], YES)
    assert not torch.equal(before[0], optim.params[0])


def pair(flat: bool) -> tuple[LaProp, list[list[torch.Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    params = {"kernel": draw(40, 30), "row": draw(WIDTH), "one": draw(1), "bias": draw(WIDTH + 1)}
    return (FlatLaProp if flat else LaProp)(params, OptimConfig(lr=0.1, warmup=3)), [
        [draw(*p.shape) * 10**scale for p in params.values()] for scale in (-3, 0, 3)
    ]


@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_flat_tensors_are_updated_alike(backend: str | None) -> None:
    (plain, steps), (flat, _) = pair(False), pair(True)
    assert isinstance(flat, FlatLaProp)
    if backend:
        flat.compile(partial(torch.compile, backend=backend, fullgraph=True, dynamic=False))
    for grads in steps:
        wanted, metrics = (optim.step([g.clone() for g in grads], YES) for optim in (plain, flat))
        torch.testing.assert_close(metrics, wanted)
    state = lambda optim: [*optim.params, *optim.rms, *optim.momentum, optim.count]  # noqa: E731
    torch.testing.assert_close(state(flat), state(plain))
    before = [tensor.clone() for tensor in state(flat)]
    flat.step([g * torch.nan for g in steps[0]], NO)
    assert all(torch.equal(a, b) for a, b in zip(before, state(flat), strict=True))
    flat.step(steps[0], YES)
    assert not any(torch.equal(a, b) for a, b in zip(before, state(flat), strict=True))


def test_flat_moments_are_loaded_in_place() -> None:
    flat, steps = pair(True)
    flat.step(steps[0], YES)
    saved = [tensor.clone() for tensor in (*flat.params, *flat.rms, *flat.momentum, flat.count)]
    wanted = flat.step(steps[1], YES)
    for tensor, value in zip(
        (*flat.params, *flat.rms, *flat.momentum, flat.count), saved, strict=True
    ):
        tensor.copy_(value)
    torch.testing.assert_close(flat.step(steps[1], YES), wanted, rtol=0, atol=0)


def test_where_tensors_lie_is_known_without_reading_from_the_device() -> None:
    """A tensor without memory stands for one on a device, where reading means waiting."""
    flat = Flat([torch.empty(WIDTH + 1, device="meta"), torch.empty(3, device="meta")])
    assert flat.owner.shape == (3,)
    with pytest.raises(RuntimeError):  # the control
        flat.owner.tolist()
