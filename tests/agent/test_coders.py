"""Encoder and decoder: resolutions, mixed observations, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from agent_cases import MODEL, make_batch, make_config, make_spec

from dreamer_async.agent import Trainer
from dreamer_async.agent.coders import Decoder, Encoder, check_observations, flat_vector
from dreamer_async.agent.nets import BlockLinear, Conv, UpConv, initialize
from dreamer_async.envs.spec import ObsSpec


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(32, 32, 3), (64, 64, 1), (96, 96, 1), (32, 64, 3), (16, 16, 3)])
def test_every_resolution_comes_back(shape: tuple[int, int, int]) -> None:
    obs = {"image": ObsSpec(shape, "uint8")}
    encoder, decoder = Encoder(obs, MODEL), Decoder(obs, MODEL)
    image = torch.randint(0, 256, (2, *shape), generator=generator(), dtype=torch.uint8)
    tokens = encoder({"image": image}, torch.float32)
    assert tokens.shape == (2, encoder.width) == (2, shape[0] * shape[1] // 256 * 8)
    outs = decoder(torch.randn(2, 16), torch.randn(2, 4, 4))
    assert outs["image"].shape == (2, *shape)
    loss = decoder.loss(outs, {"image": image})["image"]
    assert loss.shape == (2,) and (loss > shape[0] * shape[1] * 0.01).all(), "a sum over pixels"


def test_several_images_split_in_the_order_of_the_observation_space() -> None:
    """The encoder sorts its keys, the decoder does not."""
    obs = {"right": ObsSpec((32, 32, 3), "uint8"), "left": ObsSpec((32, 32, 1), "uint8")}
    encoder, decoder = Encoder(obs, MODEL), Decoder(obs, MODEL)
    assert encoder.images == ["left", "right"] and decoder.images == ["right", "left"]
    decoder.imgout.bias.data = torch.tensor([0.0, 0.0, 0.0, 99.0])
    outs = decoder(torch.zeros(1, 16), torch.zeros(1, 4, 4))
    assert outs["right"].shape[-1] == 3 and (outs["right"] == 0.5).all()
    assert outs["left"].shape[-1] == 1 and (outs["left"] == 1.0).all()


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_upconv_is_upsampling_and_convolution(kernel: int) -> None:
    fast, plain = UpConv(3, 4, kernel), Conv(3, 4, kernel)
    initialize(fast, generator())
    fast.bias.data.normal_(generator=generator(1))
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, 5, 6, 3, generator=generator(2))
    large = F.interpolate(x.permute(0, 3, 1, 2), scale_factor=2.0).permute(0, 2, 3, 1)
    torch.testing.assert_close(fast(x), plain(large), atol=1e-5, rtol=1e-5)


def test_block_linear_is_block_diagonal() -> None:
    layer = BlockLinear(6, 4, 2)
    initialize(layer, generator())
    x = torch.randn(2, 1, 3, generator=generator(1))
    y = layer(x)
    x[1] += 1
    z = layer(x)
    assert torch.equal(y[0], z[0]) and not torch.equal(y[1], z[1])


def test_a_shared_input_is_as_good_as_a_repeated_one() -> None:
    layer = BlockLinear(2 * (3 + 4), 10, 2)
    initialize(layer, generator())
    own, shared = torch.randn(2, 5, 3, generator=generator(1)), torch.randn(5, 4)
    repeated = torch.cat([own, shared.expand(2, -1, -1)], -1)
    torch.testing.assert_close(layer(own, shared), layer(repeated))


def test_missing_values_become_zeros() -> None:
    floats = torch.tensor([[float("-inf"), 0.0, torch.e - 1]])
    flat = flat_vector(floats, ObsSpec((3,), "float32"))
    torch.testing.assert_close(flat, torch.tensor([[0.0, 0.0, 1.0]]))
    token = flat_vector(torch.tensor([-1, 1], dtype=torch.int32), ObsSpec((), "int32", 2))
    assert token.tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("key", ["items", "a.b", "train", "_modules", "vec", "weird key!"])
def test_any_key_can_be_an_observation(key: str) -> None:
    spec, config = make_spec({key: ObsSpec((2,), "float32")}), make_config()
    trainer = Trainer(spec, config)
    update = trainer.update(make_batch(spec, config), trainer.draw_noise(generator()))
    assert update.finite and f"loss/{key}" in update.metrics
    other = Trainer(spec, config)
    other.load_state_dict(trainer.state_dict())


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ({}, "no observation"),
        ({"cam": ObsSpec((84, 84, 3), "uint8")}, r"image 'cam' has shape \(84, 84, 3\); .* 16"),
        ({"cam": ObsSpec((8, 8, 3), "uint8")}, "multiples of 16"),
        ({"cam": ObsSpec((32, 32, 3), "float32")}, "image 'cam' has type float32"),
        ({"v": ObsSpec((2,), "uint8")}, "'v' has type uint8 but no number of classes"),
        ({"v": ObsSpec((1, 2, 3, 4), "float32")}, "at most 3 axes"),
        ({"reward": ObsSpec((1,), "float32")}, "'reward' is reserved"),
        (
            {"a": ObsSpec((32, 32, 3), "uint8"), "b": ObsSpec((64, 64, 3), "uint8")},
            "one resolution",
        ),
    ],
)
def test_observations_that_cannot_be_encoded(obs: dict[str, ObsSpec], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_observations(obs, stages=4)
    with pytest.raises(ValueError, match=message):
        Encoder(obs, MODEL)


def test_channels_must_fill_the_blocks() -> None:
    config = dataclasses.replace(MODEL, depth=3)
    with pytest.raises(ValueError, match=r"is 12; it must be a multiple of model\.block_space = 8"):
        Decoder({"image": ObsSpec((32, 32, 3), "uint8")}, config)
