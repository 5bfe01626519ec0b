"""A stack of layers on a GPU is that of PyTorch but for rounding; computed on a CPU here.

Legend: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from dreamer_async.agent import ops
from dreamer_async.agent.ops import Dense
from dreamer_async.fast.cuda.ops import dense, heads

LOW = torch.bfloat16


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_stack(dtype: torch.dtype = torch.float32) -> list[Dense]:
    """Two layers with a norm and a linear one: 24 -> 16 -> 16 -> 8."""
    sizes, gains = (24, 16, 16, 8), (normal(16, seed=7), normal(16, seed=8), None)
    layers = []
    for i, gain in enumerate(gains):
        kernel = (normal(*sizes[i : i + 2], seed=i) / sizes[i] ** 0.5).to(dtype)
        bias = normal(sizes[i + 1], seed=i + 10).to(dtype)
        layers.append(Dense(kernel.requires_grad_(), bias.requires_grad_(), gain))
    return layers


def off(x: Tensor, exact: Tensor) -> float:
    x, exact = x.detach().double(), exact.detach().double()
    return float((x - exact).norm() / exact.norm())


def computed(
    function: Callable[[Tensor, Sequence[Dense]], Tensor], dtype: torch.dtype
) -> list[Tensor]:
    """The output for [3, 5, I], then the gradients of all kernels and biases."""
    layers = make_stack()
    y = function(normal(3, 5, 24, seed=20).to(dtype), layers)
    assert y.shape == (3, 5, 8) and y.dtype == dtype
    params = [part for layer in layers for part in layer[:2]]
    return [y, *torch.autograd.grad((y.float() * normal(3, 5, 8, seed=21)).sum(), params)]


def test_it_is_as_near_as_pytorch() -> None:
    exact = computed(ops.dense, torch.float32)
    ours, theirs = computed(dense, LOW), computed(ops.dense, LOW)
    for mine, other, true in zip(ours, theirs, exact, strict=True):
        assert mine.dtype == other.dtype
        assert off(mine, true) < 0.02 and off(other, true) < 0.02
    assert any(not torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), "control"


@pytest.mark.parametrize("dtype", [torch.float32, LOW], ids=["float32", "bfloat16"])
def test_what_needs_no_cast_is_pytorch_s(dtype: torch.dtype) -> None:
    """One operation a product: steps of a policy are recorded as they are, not compiled."""
    x, layers = normal(5, 24, seed=20).to(dtype), make_stack(dtype)
    assert torch.equal(dense(x, layers), ops.dense(x, layers))


def test_heads_are_outputs_of_one_stack() -> None:
    *hidden, last = make_stack()
    other = Dense(normal(16, 3, seed=30), normal(3, seed=31), None)
    x = normal(5, 24, seed=20).to(LOW)
    one, two = heads(x, hidden, [last, other])
    assert one.dtype == two.dtype == torch.float32 and two.shape == (5, 3)
    assert torch.equal(one, dense(dense(x, hidden), [last]).float())
    assert torch.equal(two, dense(dense(x, hidden), [other]).float())
