"""Triton kernels filter like the plain steps: those of all steps at once, for narrow models, and
those of one step. Without a GPU, numpy interprets them."""

from __future__ import annotations

from collections import Counter
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from agent_cases import VECTOR, make_batch, make_config, make_spec, no_triton
from compiling import SHARED, compiled_apart
from torch import Tensor

from dreamer_async.agent import Trainer
from dreamer_async.fast.cuda import fused, scan
from dreamer_async.fast.cuda.backend import CUDA
from dreamer_async.fast.cuda.step import Gradients, Kept, Latent, Weights, cast
from dreamer_async.fast.cuda.updates import Updates

if reason := no_triton():
    pytest.skip(reason, allow_module_level=True)
from dreamer_async.fast.cuda import filtering, step_kernels, stepping

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FLOAT32 = 2e-6 if DEVICE.type == "cpu" else 2e-5
"""Relative norm by which float32 may differ: sums are added up in another order, and a GPU has
approximate exponentials."""
BFLOAT16 = 0.05
"""It keeps 8 bits, and what is rounded when differs."""


class Shape(NamedTuple):
    batch: int
    steps: int
    deter: int
    hidden: int
    blocks: int
    stoch: int
    classes: int


class Case(NamedTuple):
    w: Weights
    latent: Latent
    inputs: tuple[Tensor, ...]
    outside: tuple[Tensor, ...]


def make_case(shape: Shape, dtype: torch.dtype, seed: int = 0) -> Case:
    """Made-up weights of a scale that keeps everything lively, and resets in every third place."""
    batch, steps, deter, hidden, blocks, stoch, classes = shape
    generator, block, wide = torch.Generator().manual_seed(seed), deter // blocks, stoch * classes

    def normal(*size: int, reads: int = 1) -> Tensor:
        return (torch.randn(*size, generator=generator) / reads**0.5).to(DEVICE)

    def near(value: float, *size: int) -> Tensor:
        return value + normal(*size, reads=25)

    parameters = (
        normal(deter, hidden, reads=deter), normal(wide, hidden, reads=stoch),
        near(0, hidden), near(0, hidden), near(1, hidden), near(1, hidden),
        normal(blocks, block, block, reads=block), normal(blocks, 2 * hidden, block, reads=hidden),
        near(1, deter), normal(blocks, block, 3 * block, reads=block), near(0, 3 * deter),
        normal(deter, hidden, reads=deter), near(1, hidden),
        normal(hidden, wide, reads=hidden), near(0, wide),
    )  # fmt: skip
    index = torch.randint(0, classes, (batch, stoch), generator=generator)
    keep = torch.rand(steps, batch, 1, generator=generator) > 0.3
    noise = torch.rand(steps, batch, stoch, generator=generator)
    inputs = (
        normal(batch, deter), F.one_hot(index, classes).flatten(1).to(DEVICE),
        normal(steps, batch, deter), normal(steps, batch, hidden), keep.to(DEVICE),
    )  # fmt: skip
    outside = normal(steps, batch, deter), normal(steps, batch, wide), normal(steps, batch, wide)
    return Case(
        cast(parameters, dtype),
        Latent(stoch, classes, 0.01),
        (*(x.to(dtype) for x in inputs), noise.to(DEVICE)),
        (*(x.to(dtype) for x in outside[:2]), outside[2]),
    )


def chosen(case: Case) -> Case:
    """The same with given classes instead of uniform numbers, so that no sample can differ."""
    noise = (case.inputs[-1] * case.latent.classes).long()
    return case._replace(inputs=(*case.inputs[:-1], noise))


class Result(NamedTuple):
    deter: Tensor
    stoch: Tensor
    logits: Tensor
    kept: Kept
    d: Gradients


def filtered(loops: scan.Loops, case: Case, results: Result | None = None) -> Result:
    """Forward and back; back through the given results, or else the own ones."""
    deter, stoch, logits, kept = loops.forward(case.w, case.latent, *case.inputs)
    found = results or Result(deter, stoch, logits, kept, Gradients(*[deter] * 8))
    states = (case.inputs[0], found.deter), (case.inputs[1], found.stoch)
    h, z = (torch.cat([first[None], then[:-1]]) for first, then in states)
    keep = case.inputs[4]
    d = loops.backward(case.w, case.latent, h, z, keep, found.logits, found.kept, case.outside)
    return Result(deter, stoch, logits, kept, d)


STEPS = 4
"""Of an update."""
KINDS = {"all at once": filtering, "step by step": stepping}


@pytest.fixture(params=KINDS.values(), ids=[*KINDS])
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    """Kernels that filter."""
    return request.param


def loops_of(kernels: ModuleType) -> scan.Loops:
    return scan.Loops(kernels.forward, kernels.backward)


def off(ours: Result, theirs: Result) -> dict[str, float]:
    """Relative norms of all differences."""
    names = "deter", "stoch", "logits", *Kept._fields, *(f"d{n}" for n in Gradients._fields)
    pairs = zip(
        (*ours[:3], *ours.kept, *ours.d), (*theirs[:3], *theirs.kept, *theirs.d), strict=True
    )
    return {
        name: float((a.float() - b.float()).norm() / b.float().norm().clamp(min=1e-9))
        for name, (a, b) in zip(names, pairs, strict=True)
    }


SHAPES = {
    "powers of two": Shape(3, 4, deter=16, hidden=8, blocks=4, stoch=4, classes=4),
    "more rows than a tile": Shape(17, 2, deter=32, hidden=16, blocks=2, stoch=8, classes=8),
    "odd everywhere": Shape(5, 3, deter=30, hidden=11, blocks=3, stoch=3, classes=5),
    "one step": Shape(2, 1, deter=48, hidden=24, blocks=4, stoch=6, classes=3),
    "one row": Shape(1, 3, deter=64, hidden=16, blocks=1, stoch=5, classes=7),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_kernels_filter_like_the_plain_steps(kernels: ModuleType, shape: Shape) -> None:
    case = make_case(shape, torch.float32)
    theirs = filtered(scan.EAGER.in_time(), case)
    ours = filtered(loops_of(kernels), case, theirs)
    assert torch.equal(ours.stoch, theirs.stoch)
    assert {name: by for name, by in off(ours, theirs).items() if not by < FLOAT32} == {}


def test_bfloat16_by_norm(kernels: ModuleType) -> None:
    case = chosen(make_case(Shape(16, 3, 64, 32, 4, 8, 4), torch.bfloat16))
    theirs = filtered(scan.EAGER.in_time(), case)
    ours = filtered(loops_of(kernels), case, theirs)
    assert ours.deter.dtype == torch.bfloat16 and ours.logits.dtype == torch.float32
    assert {name: by for name, by in off(ours, theirs).items() if not by < BFLOAT16} == {}


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_control_kernels_without_resets_are_seen(kernels: ModuleType, way: str) -> None:
    case = make_case(SHAPES["powers of two"], torch.float32)
    loops = loops_of(kernels)

    def forgetful(*inputs: Any) -> Any:
        keep = 6 if way == "forward" else 4
        seen = (torch.ones_like(x) if i == keep else x for i, x in enumerate(inputs))
        return getattr(loops, way)(*seen)

    theirs = filtered(scan.EAGER.in_time(), case)
    ours = filtered(loops._replace(**{way: forgetful}), case, theirs)
    assert off(ours, theirs)["deter" if way == "forward" else "du"] > 100 * FLOAT32


def test_control_another_epsilon_is_seen(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(SHAPES["powers of two"], torch.float32)
    theirs = filtered(scan.EAGER.in_time(), case)
    monkeypatch.setattr(kernels, "NORM_EPS", 1e-3)
    differences = off(filtered(loops_of(kernels), case, theirs), theirs)
    assert differences["deter"] > 10 * FLOAT32 and differences["du"] > 10 * FLOAT32


class Counted:
    """A kernel that says when it is launched."""

    def __init__(self, kernel: Any, name: str, calls: list[str]) -> None:
        self.kernel, self.__name__, self.calls = kernel, name, calls

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.calls.append(self.__name__)
        return self.kernel[grid]


LAUNCHED = {
    "all at once": {"filter_forward": 1, "filter_backward": 1},
    "step by step": {
        **dict.fromkeys(("read_state", "read_hidden", "recur", "read_observation"), STEPS),
        **dict.fromkeys(("through_samples", "through_gates", "through_hidden"), STEPS),
        "through_inputs": 1,
    },
}
"""How often each kernel is, in an update."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_update_has_the_same_gradients(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, config = make_spec(VECTOR), make_config(length=STEPS, horizon=2)
    batch = make_batch(spec, config).map(lambda x: x.to(DEVICE))
    trainer = Trainer(spec, config, DEVICE, backend=CUDA)
    updates = Updates(trainer)
    noise = trainer.draw_noise(torch.Generator(DEVICE).manual_seed(0))
    updates.fuse_filtering(scan.EAGER.in_time())
    _, wanted = trainer.gradients(batch, noise)
    calls: list[str] = []
    module = {"all at once": filtering, "step by step": step_kernels}[kind]
    for name in LAUNCHED[kind]:
        monkeypatch.setattr(module, name, Counted(getattr(module, name), name, calls))
    monkeypatch.setattr(fused, "narrow", lambda model, dtype: kind == "all at once")
    updates.fuse_filtering(fused.filtering(trainer.agent.dyn, trainer.agent.dtype))
    _, grads = trainer.gradients(batch, noise)
    assert Counter(calls) == LAUNCHED[kind]
    for name, a, b in zip(trainer.optim.names, grads, wanted, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-7, name


# -- compiled for cards that are not here --------------------------------------------------------

REGISTERS = 65_536
"""Of one processor, for all threads of a program."""


@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("size", ["size1m", "size12m", "size200m"])
def test_they_compile_for(capability: int, dtype: str, size: str) -> None:
    """Down to machine code, by Triton's own assembler: a minute for each, without any GPU."""
    found = compiled_apart("compile_kernels.py", capability, dtype, size)
    narrow = size == "size1m"
    names = {kind: kind.partition(",")[0] for kind in found}
    assert {*names.values()} == set(LAUNCHED["all at once" if narrow else "step by step"])
    for kind, (shared, registers, stack) in found.items():
        warps = filtering.WARPS if narrow else stepping.warps_of(names[kind])
        assert 0 <= shared <= SHARED[capability], found
        assert registers * 32 * warps <= REGISTERS, found
        assert stack == 0 or dtype == "fp32", found
