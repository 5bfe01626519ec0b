"""Images as GPUs are given them, computed on a CPU: the same but for rounding, in whole vectors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamer_async.agent.coders import Decoder, Encoder
from dreamer_async.agent.nets import initialize
from dreamer_async.agent.ops import Part, compute_with
from dreamer_async.config import ModelConfig
from dreamer_async.envs.spec import ObsSpec
from dreamer_async.fast.cuda import images as gpu_images
from dreamer_async.fast.cuda.backend import OPS

MODEL = ModelConfig(
    deter=16, hidden=8, classes=4, depth=3, units=8, stoch=4, blocks=4, block_space=4
)
"""Maps of 6, 9, 12 and 12 channels."""
ROWS = 16
Run = Callable[[], Tensor]


@pytest.fixture(params=[1, 3])
def image(request: pytest.FixtureRequest) -> dict[str, ObsSpec]:
    return {"image": ObsSpec((32, 48, request.param), "uint8")}


def drawn(module: Part) -> Part:
    """Kernels as they are drawn, and biases and gains that are not all alike."""
    generator = torch.Generator().manual_seed(0)
    initialize(module, generator)
    for tensor in module.parameters():
        tensor.data += 0.1 * torch.randn(tensor.shape, generator=generator)
    return module


def encoding(obs: dict[str, ObsSpec], conv_dtype: torch.dtype) -> tuple[Part, Run]:
    encoder = Encoder(obs, MODEL)
    encoder.conv_dtype = conv_dtype
    generator = torch.Generator().manual_seed(1)
    shape = (ROWS, *obs["image"].shape)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return drawn(encoder), lambda: encoder({"image": images}, torch.float32)


def decoding(obs: dict[str, ObsSpec], conv_dtype: torch.dtype) -> tuple[Part, Run]:
    decoder = Decoder(obs, MODEL)
    decoder.conv_dtype = conv_dtype
    generator = torch.Generator().manual_seed(1)
    deter, stoch = (
        torch.randn(ROWS, 16, generator=generator),
        torch.randn(ROWS, 4, 4, generator=generator),
    )
    return drawn(decoder), lambda: decoder(deter, stoch)["image"]


def results(module: Part, run: Run) -> dict[str, Tensor]:
    """What comes out, and the gradients of a sum of it in which every number counts otherwise."""
    y = run()
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    named = dict(module.named_parameters())
    grads = torch.autograd.grad((y * weights).sum(), list(named.values()))
    return {"": y.detach(), **dict(zip(named, grads, strict=True))}


def offs(one: dict[str, Tensor], two: dict[str, Tensor]) -> dict[str, float]:
    """How far apart they are, relative to their norms."""
    return {name: float((one[name] - x).norm() / x.norm()) for name, x in two.items()}


def lay_out(
    module: Part, monkeypatch: pytest.MonkeyPatch, *, wide: bool = False
) -> list[tuple[int, int]]:
    """Compute as on a GPU from now on; inputs and outputs of convolutions, as they come."""
    compute_with(module, OPS)
    seen: list[tuple[int, int]] = []
    convolve = F.conv2d

    def watched(x: Tensor, kernel: Tensor, *args: object, **options: object) -> Tensor:
        seen.append((kernel.shape[1], kernel.shape[0]))
        return convolve(x, kernel, *args, **options)  # pyright: ignore[reportArgumentType, reportCallIssue]

    monkeypatch.setattr(F, "conv2d", watched)
    if wide:
        width = gpu_images._width
        monkeypatch.setattr(
            gpu_images, "_width", lambda channels, _: width(channels, torch.bfloat16)
        )
    return seen


@pytest.mark.parametrize("coder", [encoding, decoding])
@pytest.mark.parametrize("wide", [False, True])
def test_results_and_gradients_are_the_same(
    coder: Callable[..., tuple[Part, Run]],
    wide: bool,
    image: dict[str, ObsSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, run = coder(image, torch.float32)
    here = results(module, run)
    seen = lay_out(module, monkeypatch, wide=wide)
    there = results(module, run)
    assert any(not torch.equal(there[name], here[name]) for name in here), "control: rounded alike"
    assert max(offs(there, here).values()) < 1e-4
    narrow = [widths for widths in seen if any(width % 8 for width in widths)]
    assert len(seen) == 4 and bool(narrow) == (not wide), seen


@pytest.mark.parametrize("coder", [encoding, decoding])
def test_bfloat16_is_as_close_as_the_plain_way(
    coder: Callable[..., tuple[Part, Run]],
    image: dict[str, ObsSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = results(*coder(image, torch.float32))
    plain = offs(results(*coder(image, torch.bfloat16)), exact)
    module, run = coder(image, torch.bfloat16)
    seen = lay_out(module, monkeypatch)
    ours = offs(results(module, run), exact)
    assert not any(width % 8 for widths in seen for width in widths), seen
    # A gradient alone depends on which of two pixels rounding makes the larger one.
    assert ours[""] < 1.2 * plain[""] and sum(ours.values()) < 1.2 * sum(plain.values())
    assert min(plain.values()) > 1e-4, "control: bfloat16 rounds"


def test_the_gradient_of_a_maximum_goes_to_the_first_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-2, 3, (2, 8, 6, 5), generator=generator).float().requires_grad_()
    ours, plain = gpu_images.pool(x), F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert torch.equal(ours, plain)
    weights = torch.randn(ours.shape, generator=generator)
    grads = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (ours, plain)]
    assert torch.equal(*grads)
    quarters = x.unflatten(1, (-1, 2)).unflatten(3, (-1, 2))
    ties = (quarters == ours[:, :, None, :, None]).sum((2, 4))
    assert (ties > 1).any(), "control: some maxima are several"


@pytest.mark.parametrize("coder", [encoding, decoding])
def test_acting_keeps_to_few_launches(
    coder: Callable[..., tuple[Part, Run]],
    image: dict[str, ObsSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, run = coder(image, torch.bfloat16)
    with torch.no_grad():
        plain = run()
        seen = lay_out(module, monkeypatch)
        assert torch.equal(run(), plain), "PyTorch's own operations"
    assert any(width % 8 for widths in seen for width in widths), "control: nothing is widened"
