"""Native functions compute what PyTorch does, gradients too, on any number of threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from agent_cases import MIXED, MODEL, VECTOR, make_batch, make_config, make_spec
from backends import native
from torch import Tensor

from dreamer_async.agent import Policy, Trainer, distributions, losses
from dreamer_async.agent.backend import PYTORCH, Observe
from dreamer_async.agent.ops import Dense
from dreamer_async.agent.policy import PolicyNoise
from dreamer_async.agent.rssm import RSSM
from dreamer_async.agent.states import RSSMState
from dreamer_async.config import ModelConfig, OptimConfig
from dreamer_async.envs.spec import ActionSpec, EnvSpec
from dreamer_async.fast.native import twohot
from dreamer_async.fast.native.dense import dense_stack
from dreamer_async.fast.native.losses import latent_losses

WIDE = replace(MODEL, deter=48, hidden=24, units=40, classes=5, stoch=6, blocks=3)
"""Widths that fill no panel."""
FOURS = replace(WIDE, classes=4, stoch=7)
"""Four classes, which are sampled in another way, and a number of them that fills no vector."""
SEVERAL = ActionSpec.several(
    {
        "a": ActionSpec("discrete", 4),
        "b": ActionSpec("continuous", 2),
        "c": ActionSpec("discrete", 3),
    }
)


pytestmark = pytest.mark.usefixtures("native_functions")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(ours: Tensor, theirs: Tensor, tolerance: float = 2e-5) -> None:
    """Equal relative to the largest number, which gradients of small sums need."""
    size = max(theirs.abs().max().item(), 1e-3)
    torch.testing.assert_close(ours, theirs, atol=tolerance * size, rtol=tolerance)


# -- dense stacks ----------------------------------------------------------------------------------


def stack_of(widths: tuple[int, ...], plain_end: bool) -> list[Dense]:
    g, layers = generator(), []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        kernel = torch.randn(inputs, outputs, generator=g) / inputs**0.5
        bias, gain = torch.randn(2, outputs, generator=g)
        end = plain_end and i == len(widths) - 2
        layers.append(Dense(kernel, bias, None if end else 1 + gain / 3))
    return layers


def plain_stack(x: Tensor, layers: list[Dense]) -> Tensor:
    for layer in layers:
        x = x @ layer.kernel + layer.bias
        if layer.gain is not None:
            x = F.silu(F.rms_norm(x, layer.gain.shape, layer.gain, 1e-4))
    return x


def with_gradients(
    stack: Callable[[Tensor, list[Dense]], Tensor], x: Tensor, layers: list[Dense]
) -> list[Tensor]:
    leaf = lambda t: t.detach().requires_grad_()  # noqa: E731
    leaves = [Dense(leaf(k), leaf(b), None if g is None else leaf(g)) for k, b, g in layers]
    x = x.detach().requires_grad_()
    y = stack(x, leaves)
    given = torch.randn(y.shape, generator=generator(1))
    inputs = [x, *(t for layer in leaves for t in layer if t is not None)]
    return [y.detach(), *torch.autograd.grad(y, inputs, given)]


@pytest.mark.parametrize(
    ("widths", "plain_end", "rows"),
    [
        ((3, 5), True, 1),
        ((3, 5), False, 7),
        ((16, 32, 16), False, 48),
        ((40, 33, 20, 255), True, 97),
        ((1, 64, 64, 64), False, 200),
        ((600, 9), True, 50),
        ((4, 4097), False, 3),
    ],
)
def test_a_stack_agrees_with_torch(widths: tuple[int, ...], plain_end: bool, rows: int) -> None:
    layers, x = stack_of(widths, plain_end), torch.randn(rows, widths[0], generator=generator(2))
    ours, theirs = (with_gradients(f, x, layers) for f in (dense_stack, plain_stack))
    for one, other in zip(ours, theirs, strict=True):
        close(one, other)
    close(dense_stack(x, layers), theirs[0])  # without gradients, which is another way
    wrong = [layers[0]._replace(bias=layers[0].bias + 0.01), *layers[1:]]
    with pytest.raises(AssertionError):
        close(dense_stack(x, wrong), theirs[0])


def test_rows_of_a_stack_may_lie_apart() -> None:
    layers, x = stack_of((6, 8, 5), True), torch.randn(9, 4, 6, generator=generator(2))
    close(dense_stack(x[:, 2], layers), plain_stack(x[:, 2], layers))
    close(dense_stack(x, layers), plain_stack(x, layers))
    close(dense_stack(x.transpose(0, 1), layers), plain_stack(x.transpose(0, 1), layers))


def test_the_number_of_threads_changes_no_bit() -> None:
    layers, x = stack_of((70, 33, 20), True), torch.randn(1000, 70, generator=generator(2))
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(with_gradients(dense_stack, x, layers))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30, 0.0])
def test_extreme_inputs_end_as_with_torch(value: float) -> None:
    layers, x = stack_of((6, 8, 5), False), torch.full((2, 6), value)
    ours, theirs = dense_stack(x, layers), plain_stack(x, layers)
    torch.testing.assert_close(ours, theirs, equal_nan=True, atol=1e-5, rtol=1e-3)


# -- two-hot distributions -------------------------------------------------------------------------


def test_twohot_losses_agree_with_torch() -> None:
    g, bins = generator(), distributions.twohot_bins(255)
    logits = (3 * torch.randn(7, 30, 255, generator=g)).requires_grad_()
    targets = [torch.randn(7, 30, generator=g) * 10 ** (i + 1) for i in range(2)]
    targets[0][0, :4] = torch.tensor([0.0, 1e12, -1e12, bins[7].item()])
    pairs = ((1.0, targets[0]), (0.3, targets[1]))
    given = torch.randn(7, 30, generator=g)
    ours = twohot.twohot_loss(logits, bins, *pairs)
    theirs = losses.twohot_loss(logits, bins, *pairs)
    close(ours, theirs)
    one, other = (torch.autograd.grad(loss, logits, given)[0] for loss in (ours, theirs))
    close(one, other)
    with pytest.raises(AssertionError):
        close(twohot.twohot_loss(logits, bins, pairs[0]), theirs)


@torch.no_grad()
def test_twohot_means_agree_with_torch() -> None:
    bins = distributions.twohot_bins(255)
    logits = torch.randn(40, 255, generator=generator()) - bins.abs().log1p()
    ours = twohot.twohot_mean(logits, bins)
    close(ours, distributions.twohot_mean(logits, bins), 1e-4)
    symmetric = torch.cat([logits[:, :127], logits[:, 127:128], logits[:, :127].flip(-1)], -1)
    assert (twohot.twohot_mean(symmetric, bins) == 0).all() and not (ours == 0).any()


def test_targets_that_are_no_number_give_losses_that_are_none() -> None:
    bins, logits = distributions.twohot_bins(5), torch.zeros(2, 5, requires_grad=True)
    loss = twohot.twohot_loss(logits, bins, (1.0, torch.tensor([float("nan"), 1.0])))
    assert loss.isnan().tolist() == [True, False]
    [gradient] = torch.autograd.grad(loss.sum(), logits)
    assert gradient.isnan().any(-1).tolist() == [True, False]


# -- latents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variables", "classes"), [(6, 4), (5, 4), (3, 5), (2, 32)])
def test_losses_of_latents_agree_with_torch(variables: int, classes: int) -> None:
    g, shape = generator(), (9, 10, variables, classes)
    posterior, prior = (3 * torch.randn(shape, generator=g) for _ in range(2))
    posterior[0, :5] = prior[0, :5]  # no divergence, and no gradient below the free nats
    posterior[1, 0, 0, 0], prior[1, 1, 0, 0] = 200.0, -200.0
    leaves = posterior.requires_grad_(), prior.requires_grad_()
    weights = torch.randn(2, 9, 10, generator=g)

    def found(of: Callable[..., losses.LatentLosses], share: float = 0.01) -> list[Tensor]:
        result = of(*leaves, share, 1.0)
        total = (torch.stack(result[:2]) * weights).sum()
        return [x.detach() for x in result] + list(torch.autograd.grad(total, leaves))

    ours, plain = found(latent_losses), losses.latent_losses
    theirs, other = found(plain), found(plain, 0.05)
    for one, two in zip(ours, theirs, strict=True):
        close(one, two)
    assert (ours[0][0, :5] == 1).all() and (ours[4][0, :5] == 0).all()
    assert not any(torch.allclose(one, two) for one, two in zip(ours, other, strict=True))


# -- the recurrent model ---------------------------------------------------------------------------


def rssm(model: ModelConfig = WIDE) -> RSSM:
    dyn = RSSM(model, embed=11, action=3)
    with torch.no_grad():
        for parameter in dyn.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator(3)) * 0.2)
    return dyn


def observed(dyn: RSSM, observe: Observe, noise_seed: int = 5) -> list[Tensor]:
    """All results of filtering, and all gradients of random sums of them."""
    g, (batch, steps), config = generator(4), (5, 7), dyn.config
    classes = torch.randint(0, config.classes, (batch, config.stoch), generator=g)
    state = RSSMState(
        torch.tanh(torch.randn(batch, config.deter, generator=g)),
        F.one_hot(classes, config.classes).float(),
    )
    embed = torch.randn(batch, steps, 11, generator=g, requires_grad=True)
    action = 2 * torch.randn(batch, steps, 3, generator=g)
    reset = torch.rand(batch, steps, generator=g) < 0.3
    noise = torch.rand(batch, steps, config.stoch, generator=generator(noise_seed))
    result = observe(state, embed, action, reset, noise)
    outputs = [result.state.deter, result.state.stoch, result.logits]
    total = sum((x * torch.randn(x.shape, generator=g)).sum() for x in outputs)
    inputs = [embed, *(p for name, p in dyn.named_parameters() if "prior" not in name)]
    return [*(x.detach() for x in outputs), *torch.autograd.grad(total, inputs)]  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [WIDE, MODEL, FOURS])
@pytest.mark.parametrize("threads", [1, 3])
def test_filtering_agrees_with_the_loop_over_time(model: ModelConfig, threads: int) -> None:
    torch.set_num_threads(threads)
    dyn = rssm(model)
    ours = observed(dyn, native().filtering(dyn))
    theirs, other = observed(dyn, dyn.observe), observed(dyn, dyn.observe, noise_seed=6)
    for one, two in zip(ours, theirs, strict=True):
        close(one, two, 1e-4)
    assert torch.equal(ours[1], theirs[1]) and not torch.equal(ours[1], other[1])


def test_networks_with_other_counts_of_layers_are_left_to_torch() -> None:
    dyn = rssm(replace(WIDE, dyn_layers=2, posterior_layers=2))
    ours, theirs = observed(dyn, native().filtering(dyn)), observed(dyn, dyn.observe)
    for one, two in zip(ours, theirs, strict=True):
        close(one, two, 1e-4)


def action_of(kind: str) -> ActionSpec:
    return SEVERAL if kind == "several" else make_spec(VECTOR, kind).action


@pytest.mark.parametrize("kind", ["discrete", "continuous", "several"])
@pytest.mark.parametrize("rows", [1, 50])
def test_acting_agrees_with_torch(kind: str, rows: int) -> None:
    """Three steps, with other weights from the second on, which must not go unnoticed."""
    spec = EnvSpec("toy", "case", VECTOR, action_of(kind))
    config, g = replace(make_config(), model=WIDE), generator(7)
    policy, plain = (Policy(spec, config, backend=backend) for backend in (native(), PYTORCH))
    carry = policy.initial(rows)
    for step in range(3):
        if step < 2:
            weights = Trainer(spec, config).agent
            with torch.no_grad():
                for parameter in weights.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=g) * 0.2)
            policy.load(weights)
            plain.load(weights)
        obs = {"vector": torch.randn(rows, 3, generator=g)}
        flags = torch.rand(rows, 2, generator=g) < 0.3
        reset, noise = flags[:, 0], policy.draw_noise(rows, g)  # which are not beside each other
        ours = policy.step(obs, reset, carry, noise)
        forced = PolicyNoise(
            ours.stoch.argmax(-1), ours.action if kind == "discrete" else ours.action.double()
        )
        again = policy.step(obs, reset, carry, forced)
        theirs = plain.step(obs, reset, carry, noise)
        other = plain.step(obs, ~reset, carry, noise)
        assert torch.equal(ours.stoch, theirs.stoch) and ours.action.dtype == theirs.action.dtype
        for result in (ours, again):
            close(result.deter, theirs.deter)
            close(result.action.double(), theirs.action.double())
        assert torch.equal(again.stoch, theirs.stoch)
        assert step == 0 or not torch.allclose(theirs.deter, other.deter, atol=1e-3)
        carry = ours


@torch.no_grad()
def test_an_action_that_is_no_class_is_none() -> None:
    spec, config = make_spec(kind="discrete"), make_config()
    policy, plain = (Policy(spec, config, backend=backend) for backend in (native(), PYTORCH))
    g, agent = generator(), Trainer(spec, config).agent
    policy.load(agent)
    plain.load(agent)
    obs, reset = {"vector": torch.randn(3, 3, generator=g)}, torch.zeros(3, dtype=torch.bool)
    noise = policy.draw_noise(3, g)
    start = policy.initial(3)._replace(deter=torch.randn(3, 16, generator=g))
    carry = start._replace(action=torch.tensor([-1, 3, 2**40]))
    ours = policy.step(obs, reset, carry, noise)
    theirs, other = (plain.step(obs, reset, x, noise) for x in (carry, start))
    close(ours.deter, theirs.deter)
    assert not torch.allclose(theirs.deter, other.deter)


@pytest.mark.parametrize("kind", ["discrete", "continuous", "several"])
@pytest.mark.parametrize("forced", [False, True])
def test_imagination_agrees_with_the_loop_over_time(kind: str, forced: bool) -> None:
    spec = EnvSpec("toy", "case", VECTOR, action_of(kind))
    config = replace(make_config(batch=10, length=9), model=WIDE)
    trainer, plain = (Trainer(spec, config, backend=backend) for backend in (native(), PYTORCH))
    g = generator(8)
    with torch.no_grad():
        for parameter in trainer.agent.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=g) * 0.2)
    plain.load_state_dict(trainer.state_dict())
    classes = torch.randint(0, 5, (90, 6), generator=g)
    start = RSSMState(torch.randn(90, 48, generator=g), F.one_hot(classes, 5).float())
    noise = trainer.draw_noise(g)
    drawn = trainer.imagine(start, noise.action, noise.prior).trajectory
    if forced:  # the same again, by the samples instead of by the random numbers
        stoch = drawn.feat[:, 1:, 48:].unflatten(-1, (6, 5)).argmax(-1)
        action = drawn.action if kind == "discrete" else drawn.action.double()
        noise = noise._replace(action=action, prior=stoch)
    read, wanted = (x.imagine(start, noise.action, noise.prior) for x in (trainer, plain))
    ours, theirs = read.trajectory, wanted.trajectory
    for one, other in zip((*read.policy, *read[2:]), (*wanted.policy, *wanted[2:]), strict=True):
        close(one, other, 1e-4)
    assert ours.action.dtype == theirs.action.dtype
    close(ours.feat, theirs.feat)
    close(ours.action.float(), theirs.action.float())
    if forced:
        close(ours.feat, drawn.feat)
    assert not torch.equal(ours.feat[:, 1], ours.feat[:, 2])


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_whole_updates_agree(kind: str) -> None:
    """Twice, so that whatever the first one left behind of the old parameters would be seen."""
    spec, config = make_spec(MIXED, kind), make_config(lr=1e-3, warmup=0)
    states, metrics = [], []
    for backend in (native(), PYTORCH):
        trainer, g = Trainer(spec, config, backend=backend), generator()
        before = [p.detach().clone() for p in trainer.optim.params]
        trainer.update(make_batch(spec, config), trainer.draw_noise(g))
        update = trainer.update(make_batch(spec, config, seed=1), trainer.draw_noise(g))
        states.append(trainer.state_dict())
        metrics.append(update.metrics)
        assert not any(map(torch.equal, before, trainer.optim.params))
    for name, theirs in states[1].items():
        # LaProp divides by the root of squares, so that tiny gradients make steps of full size.
        rounding = 2e-3 if name.startswith("agent.") else 1e-2 * theirs.abs().max().item()
        torch.testing.assert_close(states[0][name], theirs, atol=rounding, rtol=1e-2)
    for name, theirs in metrics[1].items():
        torch.testing.assert_close(metrics[0][name], theirs, atol=1e-3, rtol=1e-2)


def test_the_optimiser_agrees_with_torch() -> None:
    g = generator()
    shapes = [(70, 33), (5,), (3, 4, 5), (2000,)]
    grads = [[torch.randn(shape, generator=g) * 10**i for shape in shapes] for i in range(3)]
    grads[0][0] = torch.randn(70, 40, generator=g)[:, :33]  # rows apart
    start = [torch.randn(shape, generator=g) for shape in shapes]
    results = []
    for backend in (native(), PYTORCH):
        params = {str(i): x.clone().requires_grad_() for i, x in enumerate(start)}
        optim = backend.optimiser(params, OptimConfig(lr=1e-2, warmup=2))
        for part in grads[:-1]:
            optim.step(part, torch.tensor(True))
        metrics = optim.step(grads[-1], torch.tensor(True))
        optim.step([x * torch.nan for x in start], torch.tensor(False))  # changes nothing
        results.append([*optim.params, *optim.rms, *optim.momentum, optim.count, *metrics.values()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert results[0][12] == 3 and not torch.equal(results[0][0], start[0])
