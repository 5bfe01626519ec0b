"""Feature maps by native functions: equal to PyTorch's, gradients too, and never a must."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from agent_cases import IMAGE, make_batch, make_config, make_spec
from torch import Tensor

from dreamer_async import compile_cache, native
from dreamer_async.agent import Trainer, kernels
from dreamer_async.agent.feature_maps import pool_norm_silu, shuffle_norm_silu
from dreamer_async.config import TrainConfig

Block = Callable[[Tensor, Tensor], Tensor]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    assert native.use(TrainConfig(), CPU) == "", "these tests need a C++ compiler"
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    kernels.use(None)


def results(block: Block, x: Tensor, scale: Tensor) -> list[Tensor]:
    """Output and gradients for a gradient that differs from place to place."""
    x, scale = x.detach().requires_grad_(), scale.detach().requires_grad_()
    y = block(x, scale)
    given = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, (x, scale), given)]


def plain(block: Block) -> Block:
    def without(x: Tensor, scale: Tensor) -> Tensor:
        kernels.use(None)
        try:
            return block(x, scale)
        finally:
            native.use(TrainConfig(), CPU)

    return without


def inputs(block: Block, channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (2 * height, 2 * width, channels)
    if block is shuffle_norm_silu:
        shape = (height, width, 4 * channels)
    scale = 1 + torch.randn(channels, generator=generator) / 3
    return 2 * torch.randn(3, *shape, generator=generator), scale


@pytest.mark.parametrize("block", [pool_norm_silu, shuffle_norm_silu])
@pytest.mark.parametrize(
    ("channels", "height", "width"),
    [
        (1, 1, 1),
        (3, 4, 5),
        (8, 6, 6),
        (12, 2, 3),
        (16, 3, 2),
        (48, 2, 2),
        (200, 2, 70),
        (4096, 1, 2),
    ],
)
def test_native_functions_agree_with_torch(
    block: Block, channels: int, height: int, width: int
) -> None:
    x, scale = inputs(block, channels, height, width)
    for ours, theirs in zip(results(block, x, scale), results(plain(block), x, scale), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("block", [pool_norm_silu, shuffle_norm_silu])
def test_in_bfloat16_only_the_last_rounding_differs(block: Block) -> None:
    x, scale = inputs(block, 12, 4, 5)
    x = x.to(torch.bfloat16)
    exact = results(plain(block), x.float(), scale)
    for ours, wanted in zip(results(block, x, scale), exact, strict=True):
        step = 2.0**-8 * wanted.abs().max()
        assert ours.dtype == (torch.float32 if ours.ndim == 1 else torch.bfloat16)
        # The given gradient was rounded, too: a step for it and one for the result.
        assert ((ours.float() - wanted).abs() <= 3 * step).all()


def test_the_comparison_sees_a_wrong_scale() -> None:
    x, scale = inputs(pool_norm_silu, 8, 2, 2)
    ours, wrong = (
        results(pool_norm_silu, x, scale),
        results(plain(pool_norm_silu), x, scale * 1.001),
    )
    assert not any(
        torch.allclose(a, b, atol=2e-5, rtol=2e-5) for a, b in zip(ours, wrong, strict=True)
    )


def test_of_equal_pixels_the_first_one_gets_the_gradient() -> None:
    x = torch.tensor([[1.0, 2.0], [2.0, 2.0]]).view(1, 2, 2, 1).expand(-1, -1, -1, 8).contiguous()
    _, dx, _ = results(pool_norm_silu, x, torch.linspace(0.5, 2.0, 8))
    _, wanted, _ = results(plain(pool_norm_silu), x, torch.linspace(0.5, 2.0, 8))
    torch.testing.assert_close(dx, wanted)
    assert dx[0, 0, 1].all() and not dx[0, 1].any()


@pytest.mark.parametrize("block", [pool_norm_silu, shuffle_norm_silu])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), 1e30, -1e30, 0.0])
def test_extreme_values_end_as_with_torch(block: Block, dtype: torch.dtype, value: float) -> None:
    """NaN must stay NaN: it is how an update is found to be bad."""
    x, scale = inputs(block, 8, 2, 2)
    x = torch.full_like(x, value).to(dtype)
    ours, theirs = block(x, scale), plain(block)(x, scale)
    torch.testing.assert_close(ours, theirs, equal_nan=True, atol=1e-6, rtol=0.01)


@pytest.mark.parametrize("block", [pool_norm_silu, shuffle_norm_silu])
def test_every_number_of_threads_fills_the_same_maps(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "LEAST_NUMBERS", 0)
    x, scale = inputs(block, 8, 7, 5)
    torch.set_num_threads(1)
    one = results(block, x, scale)
    torch.set_num_threads(4)
    for ours, wanted in zip(results(block, x, scale), one, strict=True):
        assert torch.equal(ours, wanted)


def test_a_whole_update_is_the_same() -> None:
    spec, config = make_spec(IMAGE), make_config()
    gradients = []
    for library in (native.load()[0], None):
        kernels.use(library)
        trainer = Trainer(spec, config)
        noise = trainer.draw_noise(torch.Generator().manual_seed(0))
        forward, grads = trainer.gradients(make_batch(spec, config), noise)
        gradients.append([forward.total.detach(), *grads])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_mixed_precision_keeps_everything_but_convolutions_in_float32() -> None:
    spec, config = make_spec(IMAGE), make_config()
    trainer = Trainer(spec, config, precision="mixed")
    seen = []
    for conv in (trainer.agent.enc.cnn[0][0], trainer.agent.dec.imgout):
        conv.register_forward_hook(lambda _, x, y: seen.append((x[0].dtype, y.dtype)))
    noise = trainer.draw_noise(torch.Generator().manual_seed(0))
    forward = trainer.forward(make_batch(spec, config), noise)
    assert seen == [(torch.bfloat16, torch.bfloat16)] * 2
    assert forward.tokens.dtype == forward.observed.state.deter.dtype == torch.float32
    assert all(m.dtype == torch.float32 for m in forward.maps.values())
    full = Trainer(spec, config).forward(make_batch(spec, config), noise)
    for name, value in forward.maps.items():
        close = torch.isclose(value.mean(), full.maps[name].mean(), rtol=0.02, atol=0.02)
        assert close, (name, value.mean(), full.maps[name].mean())


# -- building ----------------------------------------------------------------------------------


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, and no memory of a library."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    native.load.cache_clear()
    yield cache
    native.load.cache_clear()


def test_it_is_built_once_where_only_its_user_can_write(unbuilt: Path) -> None:
    assert native.use(TrainConfig(), CPU) == ""
    [path] = unbuilt.iterdir()
    assert stat.S_IMODE(unbuilt.stat().st_mode) == 0o700
    before = path.stat()
    native.load.cache_clear()
    assert native.use(TrainConfig(), CPU) == "" and path.stat() == before


@pytest.mark.parametrize(
    ("script", "said"),
    [(None, "no C++ compiler"), ("echo no space >&2; exit 1", "no space"), ("true", "too short")],
)
def test_without_a_working_compiler_torch_does_it(
    unbuilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, said: str
) -> None:
    broken = tmp_path / "g++"
    if script is not None:
        broken.write_text(f"#!/bin/sh\n{script}\n")
        broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert said in native.use(TrainConfig(), CPU)
    x, scale = inputs(pool_norm_silu, 8, 2, 2)
    assert torch.equal(pool_norm_silu(x, scale), plain(pool_norm_silu)(x, scale))
    assert not unbuilt.exists() or not os.listdir(unbuilt), "no litter"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "g++ -O2",
            "CXX is 'g++ -O2', which is no program here; name a program alone, such as CXX=g++",
        ),
        ("ccache g++", "such as CXX=g++"),
        ("nowhere-c++", "CXX is 'nowhere-c++', which is no program here; is it installed?"),
        ("\x1b[2J", r"CXX is '\\x1b[2J'"),
    ],
)
def test_a_compiler_that_is_none_is_named(
    unbuilt: Path, monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    monkeypatch.setenv("CXX", given)
    assert said in native.use(TrainConfig(), CPU).replace("\\", "\\\\")


def test_what_a_killed_build_left_goes_and_a_library_of_others_is_not_loaded(
    unbuilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying = tmp_path / "g++"
    copying.write_text("#!/bin/sh\nexit 1\n")
    copying.chmod(0o755)
    monkeypatch.setenv("CXX", str(copying))
    left = unbuilt / f"{native.SCRATCH}{'0' * 16}"
    left.mkdir(parents=True)
    unbuilt.chmod(0o700)
    (left / "x.o").touch()
    living = compile_cache.scratch(unbuilt, native.SCRATCH)
    assert "failed" in native.use(TrainConfig(), CPU)
    assert list(unbuilt.iterdir()) == [living]


@pytest.mark.parametrize(("mode", "trusted"), [(0o700, True), (0o755, True), (0o775, False)])
def test_only_libraries_that_nobody_else_can_write_are_loaded(
    tmp_path: Path, mode: int, trusted: bool
) -> None:
    path, link = tmp_path / "kernels.so", tmp_path / "link.so"
    path.touch()
    path.chmod(mode)
    link.symlink_to(path)
    assert compile_cache.is_trusted(path) == trusted
    assert not compile_cache.is_trusted(link) and not compile_cache.is_trusted(tmp_path)


@pytest.mark.parametrize(
    ("train", "device"),
    [(TrainConfig(native=False), CPU), (TrainConfig(), torch.device("cuda"))],
)
def test_it_is_used_where_it_is_wanted_only(train: TrainConfig, device: torch.device) -> None:
    assert native.use(train, device) == ""
    assert not kernels.ready()


def test_a_forked_process_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LEAST_NUMBERS", 0)
    torch.set_num_threads(3)
    x, scale = inputs(pool_norm_silu, 8, 7, 5)
    wanted = pool_norm_silu(x, scale)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if torch.equal(pool_norm_silu(x, scale), wanted) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
