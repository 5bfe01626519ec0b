"""A whole update and an acting step on "cuda" without a GPU: every operation, but no numbers.

What they find: a tensor of the host among those of the device, and reads that wait for the device.
`tests/fast/test_fake_device.py` runs this file in a process that has the fake device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from agent_cases import IMAGE, MIXED, VECTOR, make_batch, make_config, make_obs, make_spec, shallow
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dreamer_async.agent import Batch, Noise, Policy, Trainer, policy
from dreamer_async.agent import trainer as update
from dreamer_async.agent.nets import PRECISIONS, Kernel
from dreamer_async.agent.policy import PolicyNoise
from dreamer_async.envs.spec import ActionSpec, EnvSpec
from dreamer_async.fast.cuda import lowered
from dreamer_async.fast.cuda.backend import CUDA
from dreamer_async.parallel.group import Group

WAITS = "_local_scalar_dense", "nonzero", "unique", "masked_select"
"""Parts of the names of operations after which the host has to know a result to go on."""
ACTIONS = {
    "discrete": ActionSpec("discrete", 3),
    "continuous": ActionSpec("continuous", 2),
    "several": ActionSpec.several(
        {"stick": ActionSpec("continuous", 2), "keys": ActionSpec("discrete", 4)}
    ),
}
OBSERVATIONS = {
    "vector": VECTOR,
    "image": IMAGE,
    "mixed": MIXED,
}

every_kind = pytest.mark.parametrize(
    ("action", "obs", "precision"),
    [
        *(("discrete", "mixed", precision) for precision in PRECISIONS),
        ("continuous", "vector", "bfloat16"),
        ("several", "image", "bfloat16"),
    ],
)
"""Every kind of action and of observation in the precision of GPUs, and the other precisions.

None depends on which is beside it.
"""


class Watch(TorchDispatchMode):
    """Keeps the names of operations that mix devices or wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        name = func.name().removeprefix("aten::").partition(".")[0]
        if any(word in name for word in WAITS):
            self.bad.append(name)  # before the call, which fails where it needs numbers
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        if len({tensor.device for tensor in tensors}) > 1:
            self.bad.append(name)
        return result


def lower(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """As `nets.lower`, with new parameters: a FakeTensor's type cannot be changed in place."""
    for layer in module.modules():
        if isinstance(layer, Kernel):
            for name in ("kernel", "bias"):
                low = getattr(layer, name).detach().to(dtype)
                setattr(layer, name, torch.nn.Parameter(low, requires_grad=False))


def move(module: torch.nn.Module, to: torch.dtype | torch.device) -> torch.nn.Module:
    """As `Module.to`: its parameters are born on the device, and change their type as above."""
    if isinstance(to, torch.dtype):
        lower(module, to)
    return module


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Tensors without memory; what needs numbers, or moves what is already there, is left out."""
    for module in (lowered, policy):
        monkeypatch.setattr(module, "lower", lower, raising=False)
    monkeypatch.setattr(update, "initialize", lambda *_: None)
    monkeypatch.setattr(torch.nn.Module, "to", move)
    # `Lowered` copies modules, whose tensors know their mode.
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda self, memo: self, raising=False)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        yield mode


def trainer_of(spec: EnvSpec, precision: str) -> tuple[Trainer, Batch, Noise]:
    """A trainer on the device, with a batch and the noise of one update."""
    config = shallow(make_config(batch=2, length=2, horizon=2))
    with torch.device("cuda"):
        trainer = Trainer(spec, config, "cuda:0", precision, CUDA)
    batch = make_batch(make_spec(dict(spec.obs)), config)
    lead = batch.action.shape
    dtype = getattr(torch, spec.action.dtype)
    batch = batch._replace(action=torch.zeros(*lead, *spec.action.shape, dtype=dtype))
    noise = trainer.draw_noise(torch.Generator().manual_seed(0))
    return trainer, batch.map(lambda tensor: tensor.to("cuda:0")), noise


@every_kind
def test_an_update_stays_on_the_device(action: str, obs: str, precision: str) -> None:
    spec = dataclasses.replace(make_spec(OBSERVATIONS[obs]), action=ACTIONS[action])
    trainer, batch, noise = trainer_of(spec, precision)
    with Watch() as seen:
        done = trainer.update(batch, noise)
    assert not seen.bad and seen.count > 100
    results = done.deter, done.stoch, done.finite, *done.metrics.values()
    assert {str(tensor.device) for tensor in results} == {"cuda:0"}


def test_what_ranks_exchange_stays_on_the_device() -> None:
    """A recording of an update holds the sums over ranks, too."""
    trainer, batch, noise = trainer_of(make_spec(MIXED), "bfloat16")
    group = Group(1, 2, lambda tensor: tensor.add_(tensor))
    trainer.ranks = trainer.agent.ranks = group.ranks
    with Watch() as seen:
        trainer.update(batch, noise)
    assert not seen.bad and seen.count > 100
    sent = trainer.state_dict()
    assert {str(tensor.device) for tensor in sent.values()} == {"cuda:0"}, "NCCL sends no other"
    assert not [name for name, tensor in sent.items() if not dense(tensor)], "and no part of one"
    assert dense(torch.zeros(4, 2).t()) and not dense(torch.zeros(4, 2)[:, 0]), "control"


def dense(tensor: Tensor) -> bool:
    """Whether its numbers lie side by side, in whatever order."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order).is_contiguous()


@every_kind
def test_an_acting_step_stays_on_the_device(action: str, obs: str, precision: str) -> None:
    spec = dataclasses.replace(make_spec(OBSERVATIONS[obs]), action=ACTIONS[action])
    with torch.device("cuda"):
        subject = Policy(spec, shallow(make_config()), "cuda:0", precision, CUDA)
    drawn = subject.draw_noise(4, torch.Generator().manual_seed(0))
    noise = PolicyNoise(*(tensor.to("cuda:0") for tensor in drawn))
    given = {
        key: make_obs(item, (4,), torch.Generator()).to("cuda:0") for key, item in spec.obs.items()
    }
    first = torch.ones(4, dtype=torch.bool, device="cuda:0")
    with Watch() as seen:
        carry = subject.step(given, first, subject.initial(4), noise)
    assert not seen.bad and seen.count > 10
    assert {str(tensor.device) for tensor in carry} == {"cuda:0"}


def test_a_tensor_of_the_host_is_caught() -> None:
    with Watch() as seen:
        torch.mul(torch.ones(3, device="cuda"), torch.tensor(2.0))
    assert seen.bad == ["mul"]


@pytest.mark.parametrize("read", [Tensor.nonzero, Tensor.item, Tensor.unique, bool])
def test_a_wait_for_the_device_is_caught(read: Any) -> None:
    with Watch() as seen, pytest.raises((RuntimeError, TypeError)):
        read(torch.ones(1, device="cuda"))
    assert seen.bad


def test_a_number_read_inside_an_update_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, batch, noise = trainer_of(make_spec(), "float32")
    monkeypatch.setattr(update, "global_norm", lambda grads: grads[0].norm().item())
    with Watch() as seen, pytest.raises(RuntimeError):
        trainer.update(batch, noise)
    assert seen.bad == ["_local_scalar_dense"]


def test_a_batch_that_was_left_on_the_host_is_caught() -> None:
    trainer, batch, noise = trainer_of(make_spec(), "float32")
    forgotten = batch._replace(reward=torch.zeros(batch.reward.shape))
    with pytest.raises(RuntimeError, match=r"[Dd]evice"):
        trainer.update(forgotten, noise)
