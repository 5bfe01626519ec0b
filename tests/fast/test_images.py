"""The native convolutional encoder and decoder compute what PyTorch does, gradients too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from backends import least_gap
from torch import Tensor

from dreamer_async.agent import ops
from dreamer_async.agent.coders import Decoder, Encoder
from dreamer_async.agent.nets import initialize
from dreamer_async.agent.ops import ImageLayer, Part, compute_with
from dreamer_async.config import ModelConfig
from dreamer_async.envs.spec import ObsSpec
from dreamer_async.fast.native import images, library
from dreamer_async.fast.native.backend import OPS

SHAPES = [(32, 32, 3), (16, 16, 1), (48, 80, 4), (64, 48, 2)]
"""Widths of one tile and less, of no whole tiles in the small maps, and several bands of rows."""


pytestmark = pytest.mark.usefixtures("native_functions")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config(depth: int, kernel: int = 5) -> ModelConfig:
    return ModelConfig(
        deter=16, stoch=4, classes=4, hidden=8, units=8, blocks=2, depth=depth, kernel=kernel,
        block_space=2,
    )  # fmt: skip


def perturbed(module: Part) -> Part:
    """Biases and gains that are not their initial constants, computed natively."""
    compute_with(module, OPS)
    initialize(module, generator(1))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator(2)))
    return module


def pictures(rows: int, shape: tuple[int, ...], seed: int = 3) -> Tensor:
    return torch.randint(0, 256, (rows, *shape), generator=generator(seed), dtype=torch.uint8)


LEAST_GAP = 4e-6
"""Several times what either way computes wrong."""


@contextmanager
def plainly(module: Part) -> Iterator[None]:
    """PyTorch computes for a while."""
    compute_with(module, ops.PYTORCH)
    yield
    compute_with(module, OPS)


def untied(encoder: Encoder, rows: int, shape: tuple[int, ...]) -> Tensor:
    """Pictures for which no rounding decides where a gradient goes."""
    for seed in range(100):
        obs = pictures(rows, shape, seed)
        if least_gap(encoder, {"image": obs}) > LEAST_GAP:
            return obs
    raise AssertionError("all pictures have ties")


def both_ways(
    module: Part, compute: Callable[[], list[Tensor]]
) -> tuple[list[Tensor], list[Tensor]]:
    """Natively and with PyTorch."""
    ours = compute()
    with plainly(module):
        return ours, compute()


def close(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 2e-5) -> None:
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        error = (a - b).norm() / (b.norm() + 1e-6)
        assert error < tolerance, f"result {i}, {tuple(b.shape)}: {error:.1e}"


def encoded(encoder: Encoder, obs: Tensor) -> list[Tensor]:
    tokens = encoder({"image": obs}, torch.float32)
    weights = torch.randn(tokens.shape, generator=generator(4))
    parameters = list(encoder.parameters())
    return [tokens, *torch.autograd.grad((tokens * weights).sum(), parameters)]


@pytest.mark.parametrize("depth", [3, 8])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_encoder_agrees_with_torch(
    shape: tuple[int, int, int], kernel: int, depth: int
) -> None:
    spec = ObsSpec(shape, "uint8")
    encoder = perturbed(Encoder({"image": spec}, config(depth, kernel)))
    assert isinstance(encoder, Encoder)
    obs = untied(encoder, 3, shape)
    ours, theirs = both_ways(encoder, lambda: encoded(encoder, obs))
    close(ours, theirs)
    assert not all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), "one way twice"


def decoded(decoder: Decoder, target: Tensor) -> list[Tensor]:
    rows = target.shape[0]
    deter = torch.randn(rows, 16, generator=generator(5)).requires_grad_()
    stoch = torch.randn(rows, 4, 4, generator=generator(6)).requires_grad_()
    outs = decoder(deter, stoch)
    loss = decoder.loss(outs, {"image": target})["image"]
    weights = torch.rand(rows, generator=generator(7))
    inputs = [deter, stoch, *decoder.parameters()]
    return [outs["image"], loss, *torch.autograd.grad((loss * weights).sum(), inputs)]


@pytest.mark.parametrize("depth", [3, 8])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_decoder_and_its_loss_agree_with_torch(
    shape: tuple[int, int, int], kernel: int, depth: int
) -> None:
    spec = ObsSpec(shape, "uint8")
    decoder = perturbed(Decoder({"image": spec}, config(2 * depth, kernel)))
    assert isinstance(decoder, Decoder)
    ours, theirs = both_ways(decoder, lambda: decoded(decoder, pictures(3, shape)))
    close(ours, theirs, 1e-4)
    assert not all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), "one way twice"


def test_wide_layers_agree_with_torch() -> None:
    """Many channels: bands of few rows, and kernels that are larger than the first cache."""
    spec = ObsSpec((64, 64, 3), "uint8")
    encoder = perturbed(Encoder({"image": spec}, config(32)))
    assert isinstance(encoder, Encoder)
    obs = untied(encoder, 2, spec.shape)
    close(*both_ways(encoder, lambda: encoded(encoder, obs)))


def test_without_gradients_the_encoder_gives_the_same_bits() -> None:
    spec = ObsSpec((32, 32, 3), "uint8")
    encoder = perturbed(Encoder({"image": spec}, config(8)))
    obs = {"image": pictures(library.functions().images_of_group() + 1, spec.shape)}
    with torch.no_grad():
        alone = encoder(obs, torch.float32)
    assert torch.equal(alone, encoder(obs, torch.float32))


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("shape", [(32, 32, 3), (48, 80, 4), (96, 96, 1), (64, 64, 3)])
def test_few_images_are_cut_in_strips(
    shape: tuple[int, int, int], rows: int, kernel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without gradients; with them every image has a lane of its own."""
    encoder = perturbed(Encoder({"image": ObsSpec(shape, "uint8")}, config(4, kernel)))
    obs = {"image": pictures(rows, shape)}
    whole = encoder(obs, torch.float32)
    asked = []
    strips_of = images.strips_of

    def remembered(*args: int) -> int:
        asked.append(strips_of(*args))
        return asked[-1]

    monkeypatch.setattr(images, "strips_of", remembered)
    with torch.no_grad():
        cut = encoder(obs, torch.float32)
    close([cut], [whole], 5e-6)
    assert asked[0] * rows <= library.functions().images_of_group()
    assert asked[0] > 1 or rows == 3, "not cut"


def test_without_gradients_the_decoder_gives_the_same_bits_and_keeps_nothing() -> None:
    spec = ObsSpec((32, 32, 3), "uint8")
    decoder = perturbed(Decoder({"image": spec}, config(8)))
    deter, stoch = torch.randn(5, 16, generator=generator(5)), torch.zeros(5, 4, 4)
    with torch.no_grad():
        alone = decoder(deter, stoch)["image"]
    kept = decoder(deter, stoch)["image"]
    assert torch.equal(alone, kept)
    assert alone.grad_fn is None and kept.grad_fn is not None


def test_the_number_of_threads_changes_no_bit() -> None:
    spec = ObsSpec((32, 32, 1), "uint8")
    encoder = perturbed(Encoder({"image": spec}, config(8)))
    decoder = perturbed(Decoder({"image": spec}, config(8)))
    assert isinstance(encoder, Encoder) and isinstance(decoder, Decoder)
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        obs = pictures(37, spec.shape)
        results.append([*encoded(encoder, obs), *decoded(decoder, obs)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_what_was_computed_before_leaves_no_trace() -> None:
    """Memory of a thread is used again; NaN or another size in it must not come back."""
    torch.set_num_threads(1)
    spec = ObsSpec((32, 32, 1), "uint8")
    encoder = perturbed(Encoder({"image": spec}, config(3)))
    decoder = perturbed(Decoder({"image": spec}, config(4)))
    assert isinstance(encoder, Encoder) and isinstance(decoder, Decoder)
    obs = pictures(2, spec.shape)
    before = [*encoded(encoder, obs), *decoded(decoder, obs)]
    large = perturbed(Encoder({"image": ObsSpec((96, 96, 1), "uint8")}, config(8)))
    broken = perturbed(Encoder({"image": spec}, config(8)))
    blind = perturbed(Decoder({"image": spec}, config(4)))
    with torch.no_grad():
        for parameter in [next(broken.parameters()), *blind.parameters()]:
            parameter.fill_(float("nan"))
    assert isinstance(large, Encoder) and isinstance(broken, Encoder)
    assert isinstance(blind, Decoder)
    encoded(large, pictures(2, (96, 96, 1)))
    wrong = [*encoded(broken, obs), *decoded(blind, obs)]
    assert all(result.isnan().any() for result in wrong[:2]), "the control computes no NaN"
    after = [*encoded(encoder, obs), *decoded(decoder, obs)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_of_equal_pixels_the_first_is_the_largest() -> None:
    """In flat images all pixels of a window are equal; only one of them may get the gradient."""
    spec = ObsSpec((32, 32, 1), "uint8")
    encoder = perturbed(Encoder({"image": spec}, config(8)))
    assert isinstance(encoder, Encoder)
    flat = torch.full((2, 32, 32, 1), 51, dtype=torch.uint8)
    ours, theirs = both_ways(encoder, lambda: encoded(encoder, flat))
    # Rounding chooses among equal pixels, so that only sums over them must agree.
    biases = [i for i, (name, _) in enumerate(encoder.named_parameters(), 1) if "bias" in name]
    close([ours[i] for i in (0, *biases)], [theirs[i] for i in (0, *biases)], 1e-4)


@pytest.mark.parametrize("taps", [3, 5])
def test_kernels_are_multiplied_at_the_points(taps: int) -> None:
    """A product of polynomials is that of their values: four outputs by interpolation."""
    transform = images.kernel_transform(taps).double()
    points, scales = images.POINTS[taps]
    values = torch.tensor([[x**k for x in points] + [float(k == 3)] for k in range(4)])
    kernel = torch.randn(taps, generator=generator()).double()
    signal = torch.randn(4, generator=generator(1)).double()
    product = torch.zeros(taps + 3).double()
    for i in range(taps):
        product[i : i + 4] += kernel[i] * signal
    at_points = torch.tensor([sum(c * x**k for k, c in enumerate(product)) for x in points])
    ours = (transform @ kernel)[:-1] * (values.double().T @ signal)[:-1]
    assert torch.allclose(ours, at_points.double() * torch.tensor(scales).double(), atol=1e-6)


def test_other_kernels_are_left_to_torch() -> None:
    layer = ImageLayer(torch.zeros(8, 1, 7, 7), torch.zeros(8), torch.ones(8))
    known = ImageLayer(torch.zeros(8, 1, 5, 5), torch.zeros(8), torch.ones(8))
    assert images._fit([known], images.KERNELS)
    assert not images._fit([known], images.PHASE_KERNELS)
    assert not images._fit([layer], images.KERNELS)
    assert not images._fit([known, layer], images.KERNELS)
    assert not images._fit([known._replace(kernel=known.kernel.double())], images.KERNELS)


@pytest.mark.parametrize("kernel", [1, 7, 9, 11])
def test_other_kernels_learn_what_torch_does(kernel: int) -> None:
    """Those of the decoder are smaller after upsampling: 7 and 9 become 5."""
    shape = (32, 32, 3)
    spec = {"image": ObsSpec(shape, "uint8")}
    encoder, decoder = (perturbed(kind(spec, config(4, kernel))) for kind in (Encoder, Decoder))
    assert isinstance(encoder, Encoder) and isinstance(decoder, Decoder)
    obs = untied(encoder, 3, shape)
    close(*both_ways(encoder, lambda: encoded(encoder, obs)))
    close(*both_ways(decoder, lambda: decoded(decoder, pictures(3, shape))), 1e-4)
