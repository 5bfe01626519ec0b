"""Layers, encoder, decoder and RSSM compared with the official code (c_* and d_*)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from agent_cases import no_triton
from backends import backend
from oracle_cases import Case, close, load, set_parameters
from torch import Tensor, nn

from dreamer_async.agent.backend import Observe
from dreamer_async.agent.coders import Decoder, Encoder
from dreamer_async.agent.distributions import categorical_entropy, categorical_kl, onehot, unimix
from dreamer_async.agent.losses import kl_losses
from dreamer_async.agent.nets import MLP, BlockLinear, Conv, Linear, RMSNorm, from_blocks, to_blocks
from dreamer_async.agent.ops import compute_with
from dreamer_async.agent.rssm import RSSM
from dreamer_async.agent.states import RSSMState
from dreamer_async.config import ModelConfig
from dreamer_async.envs.spec import ObsSpec
from dreamer_async.fast.cuda import fused, scan

pytestmark = pytest.mark.oracle


def match(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def c() -> Case:
    return load("c_layers")


@pytest.fixture
def d() -> Case:
    return load("d_rssm")


@pytest.mark.parametrize("name", ["rmsnorm", "rmsnorm_img"])
def test_rmsnorm(c: Case, name: str) -> None:
    layer = RMSNorm(c.settings["d"])
    set_parameters(layer, c.under("rmsnorm/params/norm/"))
    match(layer(c[f"{name}/x"]), c[f"{name}/y"])


@pytest.mark.parametrize(
    ("name", "inner"), [("linear", "linear"), ("linear_shaped", "linears"), ("blocklinear", "bl")]
)
def test_linear(c: Case, name: str, inner: str) -> None:
    x, params = c[f"{name}/x"], c.under(f"{name}/params/{inner}/")
    kernel = params["kernel"]
    if kernel.ndim == 3:
        layer: nn.Module = BlockLinear(x.shape[-1], kernel.shape[0] * kernel.shape[2], len(kernel))
        set_parameters(layer, params)
        y = from_blocks(layer(to_blocks(x, len(kernel))))
    else:
        layer = Linear(*kernel.shape)
        set_parameters(layer, params)
        y = layer(x)
    match(y.reshape(c[f"{name}/y"].shape), c[f"{name}/y"])


@pytest.mark.parametrize("name", ["conv", "conv3"])
def test_convolution(c: Case, name: str) -> None:
    params = c.under(f"{name}/params/{name}/")
    size, _, inputs, outputs = params["kernel"].shape
    layer = Conv(inputs, outputs, size)
    set_parameters(layer, params)
    match(layer(c[f"{name}/x"]), c[f"{name}/y"])


def test_mlp(c: Case) -> None:
    layer = MLP(c.settings["d"], c.settings["out"], 3)
    set_parameters(layer, c.under("mlp/params/mlp/"))
    match(layer(c["mlp/x"]), c["mlp/y"])


def model_config(settings: dict[str, Any]) -> ModelConfig:
    return ModelConfig(
        deter=settings["deter"], hidden=12, classes=settings["classes"],
        stoch=settings["stoch"], depth=settings["depth"], units=settings["units"],
        block_space=settings["bspace"],
    )  # fmt: skip


def spec_of(x: Tensor) -> ObsSpec:
    """Describe an observation [B, T, *]; integer ones have 6 classes in these files."""
    shape = tuple(x.shape[2:])
    if x.dtype == torch.uint8:
        return ObsSpec(shape, "uint8")
    return ObsSpec(shape, "float32") if x.is_floating_point() else ObsSpec(shape, "int32", 6)


BACKENDS = pytest.mark.parametrize("way", ["PyTorch", "native", "CUDA"])


@BACKENDS
@pytest.mark.parametrize("name", ["enc_img", "enc_vec", "enc_both"])
def test_encoder(c: Case, name: str, way: str) -> None:
    obs = c.under(f"{name}/obs/")
    encoder = Encoder({k: spec_of(v) for k, v in obs.items()}, model_config(c.settings))
    compute_with(encoder, backend(way).ops)
    set_parameters(encoder, c.under(f"{name}/params/"))
    tokens = encoder({k: v.flatten(0, 1) for k, v in obs.items()}, torch.float32)
    expected = c[f"{name}/tokens"].flatten(0, 1)
    assert encoder.width == expected.shape[-1]
    match(tokens, expected)


@BACKENDS
@pytest.mark.parametrize("name", ["dec_img", "dec_both"])
def test_decoder(c: Case, name: str, way: str) -> None:
    target = c.under(f"{name}/target/")
    decoder = Decoder({k: spec_of(v) for k, v in target.items()}, model_config(c.settings))
    compute_with(decoder, backend(way).ops)
    params = {f"dec/{k}": v for k, v in c.under(f"{name}/params/").items()}
    set_parameters(nn.ModuleDict({"dec": decoder}), params)
    deter, stoch = (c[f"{name}/feat/{k}"].flatten(0, 1) for k in ("deter", "stoch"))
    flat = {k: v.flatten(0, 1) for k, v in target.items()}
    outs = decoder(deter, stoch)
    losses = decoder.loss(outs, flat)
    for key, value in c.under(f"{name}/pred/").items():
        out = outs[key].argmax(-1).float() if decoder_classes(decoder, key) else outs[key]
        match(out.reshape(value.shape), value)
        match(losses[key].reshape(value.shape[:2]), c[f"{name}/loss/{key}"])


def decoder_classes(decoder: Decoder, key: str) -> int:
    return decoder.outputs[key].spec.classes if key in decoder.vectors else 0


KINDS = ["disc", "cont"]


def rssm(d: Case, kind: str) -> RSSM:
    s = d.settings
    config = ModelConfig(
        deter=s["deter"], hidden=s["hidden"], classes=s["classes"], stoch=s["stoch"],
        blocks=s["blocks"], unimix=s["unimix"], dyn_layers=s["dynlayers"],
        posterior_layers=s["obslayers"], prior_layers=s["imglayers"],
    )  # fmt: skip
    model = RSSM(config, s["tok"], s["actions"] if kind == "disc" else s["adim"])
    set_parameters(model, d.under(f"{kind}/params/"))
    return model


def actions(d: Case, kind: str, name: str) -> Tensor:
    action = d[f"{kind}/{name}"]
    return onehot(action, d.settings["actions"], torch.float32) if kind == "disc" else action


def carry(d: Case, kind: str) -> RSSMState:
    return RSSMState(d[f"{kind}/carry/deter"], d[f"{kind}/carry/stoch"])


@pytest.mark.parametrize("kind", KINDS)
def test_core_and_prior(d: Case, kind: str) -> None:
    model, state = rssm(d, kind), carry(d, kind)
    deter = model.sequence_model(*state, d[f"{kind}/core/action"])
    match(deter, d[f"{kind}/core/deter_next"])
    match(model.prior(state.deter), d[f"{kind}/prior/logit"])


@pytest.mark.parametrize("kind", KINDS)
def test_one_observation(d: Case, kind: str) -> None:
    embed, reset = d[f"{kind}/seq/tokens"][:, 0], d[f"{kind}/seq/reset"][:, 0]
    action, index = actions(d, kind, "seq/action")[:, 0], d[f"{kind}/seq/post_index"][:, 0]
    state, logits = rssm(d, kind).observe_step(carry(d, kind), embed, action, reset, index)
    match(state.deter, d[f"{kind}/observe/deter_next"])
    match(logits, d[f"{kind}/observe/post_logit"])


def filtering(model: RSSM, way: str) -> Observe:
    """By a backend, or all at once in Triton kernels."""
    if way != "fused":
        return backend(way).filtering(model)
    steps = scan.EAGER._replace(loops=fused.filtering(model, torch.float32))
    return scan.filtering(model, steps)


WAYS = ["PyTorch", "native", "CUDA", *([] if no_triton() else ["fused"])]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_with_resets_and_its_gradients(d: Case, kind: str, way: str) -> None:
    model, share = rssm(d, kind), d.settings["unimix"]
    seq = {k: d[f"{kind}/seq/{k}"] for k in ("tokens", "reset", "post_index")}
    assert seq["reset"].any() and not seq["reset"].all()
    action = actions(d, kind, "seq/action")
    inputs = seq["tokens"], action, seq["reset"], seq["post_index"]
    observed = filtering(model, way)(carry(d, kind), *inputs)
    state, prior_logits = observed.state, model.prior(observed.state.deter)
    match(state.deter, d[f"{kind}/seq/deter"])
    match(observed.logits, d[f"{kind}/seq/post_logit"])
    match(prior_logits, d[f"{kind}/seq/prior_logit"])
    post, prior = (unimix(x, share).log() for x in (observed.logits, prior_logits))
    dyn, rep = kl_losses(post, prior, d.settings["free_nats"])
    match(dyn, d[f"{kind}/seq/loss_dyn"])
    match(rep, d[f"{kind}/seq/loss_rep"])
    match(categorical_kl(post, prior).sum(-1), d[f"{kind}/seq/kl_raw"])
    match(categorical_entropy(prior).sum(-1).mean(), d[f"{kind}/seq/dyn_ent"])
    match(categorical_entropy(post).sum(-1).mean(), d[f"{kind}/seq/rep_ent"])
    value = dyn.mean() + 0.1 * rep.mean()
    value = value + (d[f"{kind}/grad/w_deter"] * state.deter).mean()
    value = value + (d[f"{kind}/grad/w_stoch"] * state.stoch).mean()
    match(value, d[f"{kind}/grad/value"])
    named = dict(model.named_parameters())
    grads = torch.autograd.grad(value, list(named.values()))
    expected = {k.replace("/", "."): v for k, v in d.under(f"{kind}/grad/params/").items()}
    assert sorted(expected) == sorted(named)
    for name, grad in zip(named, grads, strict=True):
        close(grad, expected[name], 5e-5, name)


@pytest.mark.parametrize("kind", KINDS)
def test_imagination_with_given_actions(d: Case, kind: str) -> None:
    model, state = rssm(d, kind), carry(d, kind)
    given = actions(d, kind, "imagine/action")
    for h in range(given.shape[1]):
        state = model.imagine_step(state, given[:, h], d[f"{kind}/imagine/prior_index"][:, h])
        match(state.deter, d[f"{kind}/imagine/deter"][:, h])
        match(model.prior(state.deter), d[f"{kind}/imagine/logit"][:, h])
