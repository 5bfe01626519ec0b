"""Dense layers that multiply bfloat16, on processors that do: what is rounded, and what is not.

Whole updates are compared in `test_backends`.
"""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
import torch
from agent_cases import VECTOR, make_batch, make_config, make_spec
from backends import native, native_in_bfloat16
from torch import Tensor

from dreamer_async.agent import Trainer
from dreamer_async.agent.ops import Dense
from dreamer_async.cli import doctor
from dreamer_async.config import TrainConfig
from dreamer_async.fast import place
from dreamer_async.fast.native import build, library
from dreamer_async.machine import device

SHAPES = (
    *((1, 1, 1), (1, 33, 5), (5, 7, 70), (16, 32, 32), (17, 31, 33), (46, 640, 64)),
    *((100, 512, 255), (300, 96, 32)),
)
"""Rows, inputs and outputs: whole tiles and pieces of them."""


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().float()


def layer(rows: int, inputs: int, outputs: int) -> tuple[Tensor, Dense, Tensor]:
    """Rows, a linear layer, and the gradient of what it gives."""
    torch.manual_seed(rows)
    x, kernel = torch.randn(rows, inputs), torch.randn(inputs, outputs)
    kept = [tensor.requires_grad_() for tensor in (x, kernel, torch.randn(outputs))]
    return kept[0], Dense(kept[1], kept[2], None), torch.randn(rows, outputs)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_products_are_those_of_rounded_numbers(rows: int, inputs: int, outputs: int) -> None:
    x, one, given = layer(rows, inputs, outputs)
    y = native_in_bfloat16().ops.dense(x, [one])
    dx, dkernel, dbias = torch.autograd.grad(y, (x, one.kernel, one.bias), given)
    for ours, wanted in (
        (y, rounded(x) @ rounded(one.kernel) + one.bias),
        (dx, rounded(given) @ rounded(one.kernel).t()),
        (dkernel, rounded(x).t() @ rounded(given)),
        (dbias, given.sum(0)),
    ):
        torch.testing.assert_close(
            ours, wanted, atol=1e-6 * float(wanted.detach().abs().max()), rtol=1e-5
        )
    exact = x @ one.kernel + one.bias
    assert (y - exact).abs().max() > 1e-4 * exact.abs().max(), "control: nothing is rounded"


def test_tiles_and_pairs_make_the_same_products(tmp_path: Path) -> None:
    """Nothing else tests those that native functions do not use on this processor."""
    native_in_bfloat16()
    program = tmp_path / "tiles"
    flags = ("-std=c++17", "-O1", "-fsanitize=address", "-march=native", "-mamx-tile", "-mamx-bf16")
    source = Path(__file__).with_name("tiles.cpp")
    command = ["g++", *flags, "-I", str(build.FOLDER), str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    done = subprocess.run([str(program)], check=True, capture_output=True, text=True)
    off = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    assert len(off) == 27
    assert max(apart for apart, _ in off) < 1e-6
    exact = [from_exact for _, from_exact in off]
    assert max(exact) < 0.02 and sum(far > 1e-4 for far in exact) > 20, "control: it is rounded"


def test_float32_beside_it_stays_what_it_was() -> None:
    """A parameter is packed in both ways, and a thread's way is its own."""
    x, one, _ = layer(5, 40, 6)
    one = one._replace(kernel=torch.nn.Parameter(one.kernel.detach()))
    before = native().ops.dense(x, [one])
    low = native_in_bfloat16().ops.dense(x, [one])
    after = native().ops.dense(x, [one])
    assert torch.equal(before, after) and not torch.equal(before, low)
    seen: list[bool] = []
    with library.bfloat16_kernels():
        other = threading.Thread(target=lambda: seen.append(library.packs_bfloat16()))
        other.start()
        other.join()
        assert library.packs_bfloat16()
    assert seen == [False] and not library.packs_bfloat16()


def test_a_changed_parameter_is_packed_anew() -> None:
    x, one, _ = layer(3, 20, 4)
    kernel = torch.nn.Parameter(one.kernel.detach())
    one = one._replace(kernel=kernel)
    before = native_in_bfloat16().ops.dense(x, [one])
    with torch.no_grad():
        kernel.mul_(2.0)
    torch.testing.assert_close(
        native_in_bfloat16().ops.dense(x, [one]) - one.bias, 2 * (before - one.bias)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38, 0.0])
def test_extreme_values_end_as_with_float32(value: float) -> None:
    """NaN must stay NaN: it is how an update is found to be bad."""
    x, one, _ = layer(3, 20, 4)
    x = torch.full_like(x, value).detach()
    ours, exact = (backend.ops.dense(x, [one]) for backend in (native_in_bfloat16(), native()))
    assert torch.equal(ours.isfinite(), exact.isfinite())
    assert ours.isnan().all() or not torch.tensor(value).isnan()


def test_an_update_changes_parameters_that_are_float32() -> None:
    spec, config = make_spec(VECTOR), make_config()
    trainer = Trainer(spec, config, precision="bfloat16-dense", backend=native_in_bfloat16())
    before = [tensor.clone() for tensor in trainer.agent.parameters()]
    for seed in (0, 1):  # the first has a learning rate of 0
        noise = trainer.draw_noise(torch.Generator().manual_seed(seed))
        assert trainer.update(make_batch(spec, config, seed), noise).finite
    after = list(trainer.agent.parameters())
    assert trainer.agent.dtype == torch.float32
    assert all(tensor.dtype == torch.float32 for tensor in after)
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_a_run_takes_it_only_where_it_is_asked_for() -> None:
    native_in_bfloat16()
    asked = place.take_place(TrainConfig(device="cpu", precision="bfloat16-dense"))
    assert (asked.backend.name, asked.precision) == (
        "native in bfloat16",
        "bfloat16-dense",
    ) and asked.library
    usual = place.take_place(TrainConfig(device="cpu"))
    assert (usual.backend.name, usual.precision) == ("native", "float32")


def test_functions_that_were_built_without_it_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    native()
    monkeypatch.setattr(device, "processor_flags", lambda: device.PAIRS)
    monkeypatch.setattr(place, "permits_bfloat16", lambda: False)
    found = place.take_place(TrainConfig(device="cpu", precision="bfloat16-dense"))
    assert (found.backend.name, found.precision) == ("native", "float32")
    assert found.replaced == "the native functions were built without bfloat16: float32 instead"


def test_where_it_cannot_be_had_a_run_computes_in_float32_and_says_so() -> None:
    found = place.take_place(TrainConfig(device="cpu", precision="bfloat16-dense", native=False))
    assert (found.precision, found.library) == ("float32", "") and "float32" in found.replaced
    assert place.take_place(TrainConfig(device="cpu", native=False)).replaced == ""


@pytest.mark.parametrize(
    ("flags", "said"),
    [(device.PAIRS | device.TILES, True), (device.PAIRS, True), (device.BFLOAT16, False)],
)
def test_the_doctor_says_where_it_can_be_had(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], said: bool
) -> None:
    monkeypatch.setattr(device, "processor_flags", lambda: frozenset(flags))
    monkeypatch.setattr(doctor.nvidia, "unused", str)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ("--precision bfloat16-dense" in doctor._torch().detail) == said
