"""Feature maps by native functions: equal to PyTorch's, gradients too, and never a must."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from agent_cases import IMAGE, make_batch, make_config, make_spec
from backends import native
from torch import Tensor

from dreamer_async.agent import Trainer, ops
from dreamer_async.agent.backend import PYTORCH
from dreamer_async.fast.choose import choose
from dreamer_async.fast.cuda.backend import CUDA, WITHOUT_NATIVE
from dreamer_async.fast.native import build, library
from dreamer_async.fast.native.feature_maps import pool_norm_silu, shuffle_norm_silu
from dreamer_async.fast.native.load import load
from dreamer_async.machine import compile_cache

Block = Callable[..., Tensor]
CPU = torch.device("cpu")


PLAIN: dict[Block, Block] = {
    pool_norm_silu: ops.pool_norm_silu,
    shuffle_norm_silu: ops.shuffle_norm_silu,
}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def problem() -> str:
    """Why there are no native functions."""
    return choose(CPU, native=True)[1]


def results(block: Block, x: Tensor, scale: Tensor) -> list[Tensor]:
    """Output and gradients for a gradient that differs from place to place."""
    x, scale = x.detach().requires_grad_(), scale.detach().requires_grad_()
    y = block(x, scale)
    given = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, (x, scale), given)]


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
    for ours, theirs in zip(results(block, x, scale), results(PLAIN[block], x, scale), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("block", [pool_norm_silu, shuffle_norm_silu])
def test_in_bfloat16_only_the_last_rounding_differs(block: Block) -> None:
    x, scale = inputs(block, 12, 4, 5)
    x = x.to(torch.bfloat16)
    exact = results(PLAIN[block], x.float(), scale)
    for ours, wanted in zip(results(block, x, scale), exact, strict=True):
        step = 2.0**-8 * wanted.abs().max()
        assert ours.dtype == (torch.float32 if ours.ndim == 1 else torch.bfloat16)
        # The given gradient was rounded, too: a step for it and one for the result.
        assert ((ours.float() - wanted).abs() <= 3 * step).all()


def test_the_comparison_sees_a_wrong_scale() -> None:
    x, scale = inputs(pool_norm_silu, 8, 2, 2)
    ours, wrong = (
        results(pool_norm_silu, x, scale),
        results(PLAIN[pool_norm_silu], x, scale * 1.001),
    )
    assert not any(
        torch.allclose(a, b, atol=2e-5, rtol=2e-5) for a, b in zip(ours, wrong, strict=True)
    )


def test_of_equal_pixels_the_first_one_gets_the_gradient() -> None:
    x = torch.tensor([[1.0, 2.0], [2.0, 2.0]]).view(1, 2, 2, 1).expand(-1, -1, -1, 8).contiguous()
    _, dx, _ = results(pool_norm_silu, x, torch.linspace(0.5, 2.0, 8))
    _, wanted, _ = results(PLAIN[pool_norm_silu], x, torch.linspace(0.5, 2.0, 8))
    torch.testing.assert_close(dx, wanted)
    assert dx[0, 0, 1].all() and not dx[0, 1].any()


@pytest.mark.parametrize("block", [pool_norm_silu, shuffle_norm_silu])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), 1e30, -1e30, 0.0])
def test_extreme_values_end_as_with_torch(block: Block, dtype: torch.dtype, value: float) -> None:
    """NaN must stay NaN: it is how an update is found to be bad."""
    x, scale = inputs(block, 8, 2, 2)
    x = torch.full_like(x, value).to(dtype)
    ours, theirs = block(x, scale), PLAIN[block](x, scale)
    torch.testing.assert_close(ours, theirs, equal_nan=True, atol=1e-6, rtol=0.01)


@pytest.mark.parametrize("block", [pool_norm_silu, shuffle_norm_silu])
def test_every_number_of_threads_fills_the_same_maps(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "LEAST_NUMBERS", 0)
    x, scale = inputs(block, 8, 7, 5)
    torch.set_num_threads(1)
    one = results(block, x, scale)
    torch.set_num_threads(4)
    for ours, wanted in zip(results(block, x, scale), one, strict=True):
        assert torch.equal(ours, wanted)


def test_a_whole_update_is_the_same() -> None:
    spec, config = make_spec(IMAGE), make_config()
    gradients = []
    for backend in (native(), PYTORCH):
        trainer = Trainer(spec, config, backend=backend)
        noise = trainer.draw_noise(torch.Generator().manual_seed(0))
        forward, grads = trainer.gradients(make_batch(spec, config), noise)
        gradients.append([forward.total.detach(), *grads])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_mixed_precision_keeps_everything_but_convolutions_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, config = make_spec(IMAGE), make_config()
    trainer = Trainer(spec, config, precision="mixed", backend=native())
    seen, convolve = [], F.conv2d

    def watched(x: Tensor, *inputs: object, **options: object) -> Tensor:
        y = convolve(x, *inputs, **options)  # pyright: ignore[reportArgumentType, reportCallIssue]
        seen.append((x.dtype, y.dtype))
        return y

    monkeypatch.setattr(F, "conv2d", watched)
    noise = trainer.draw_noise(torch.Generator().manual_seed(0))
    forward = trainer.forward(make_batch(spec, config), noise)
    assert set(seen) == {(torch.bfloat16, torch.bfloat16)}
    assert forward.embed.dtype == forward.observed.state.deter.dtype == torch.float32
    assert all(m.dtype == torch.float32 for m in forward.maps.values())
    full = Trainer(spec, config, backend=native()).forward(make_batch(spec, config), noise)
    for name, value in forward.maps.items():
        close = torch.isclose(value.mean(), full.maps[name].mean(), rtol=0.02, atol=0.02)
        assert close, (name, value.mean(), full.maps[name].mean())


# -- building ----------------------------------------------------------------------------------


@pytest.fixture
def built() -> Path:
    """The library that is used here."""
    native = load()
    assert native.library is not None, native.problem
    return Path(native.library._name)


def compiler_script(folder: Path, script: str) -> Path:
    """A shell script in place of a compiler."""
    path = folder / "g++"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, and no memory of a library."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    load.cache_clear()
    yield cache
    load.cache_clear()


def test_it_is_built_once_where_only_its_user_can_write(
    built: Path, unbuilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # it gives what the compiler gave when all other tests asked for it
    copying = compiler_script(tmp_path, f'for last; do :; done\ncp {built} "$last"')
    monkeypatch.setenv("CXX", str(copying))
    assert problem() == ""
    [path] = unbuilt.iterdir()
    assert stat.S_IMODE(unbuilt.stat().st_mode) == 0o700
    before = path.stat()
    copying.write_text("#!/bin/sh\nexit 1\n")
    load.cache_clear()
    assert problem() == "" and path.stat() == before


@pytest.mark.parametrize(
    ("script", "said"),
    [(None, "no C++ compiler"), ("echo no space >&2; exit 1", "no space"), ("true", "too short")],
)
def test_without_a_working_compiler_torch_does_it(
    unbuilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, said: str
) -> None:
    broken = tmp_path / "g++" if script is None else compiler_script(tmp_path, script)
    monkeypatch.setenv("CXX", str(broken))
    backend, why = choose(CPU, native=True)
    assert said in why and backend is WITHOUT_NATIVE
    assert not unbuilt.exists() or not os.listdir(unbuilt), "no litter"


def test_a_compiler_that_takes_too_long_is_given_up(
    unbuilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = compiler_script(tmp_path, "exec sleep 60")
    monkeypatch.setenv("CXX", str(slow))
    monkeypatch.setattr(build, "SECONDS", 0.1)
    assert problem() == f"{slow} took more than 0.1 s; the next start tries again"
    assert not os.listdir(unbuilt), "no litter"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "g++ -O2",
            "CXX is 'g++ -O2', which is not a program here; name a program alone, such as CXX=g++",
        ),
        ("ccache g++", "such as CXX=g++"),
        ("nowhere-c++", "CXX is 'nowhere-c++', which is not a program here; is it installed?"),
        ("\x1b[2J", r"CXX is '\\x1b[2J'"),
    ],
)
def test_a_compiler_that_is_none_is_named(
    unbuilt: Path, monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    monkeypatch.setenv("CXX", given)
    assert said in problem().replace("\\", "\\\\")


def test_what_a_killed_build_left_goes(
    unbuilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(compiler_script(tmp_path, "exit 1")))
    left = unbuilt / f"{build.SCRATCH}{'0' * 16}"
    left.mkdir(parents=True)
    unbuilt.chmod(0o700)
    (left / "x.o").touch()
    living = compile_cache.scratch(unbuilt, build.SCRATCH)
    assert "failed" in problem()
    assert list(unbuilt.iterdir()) == [living]


def writable(path: Path, mode: int = 0o777) -> None:
    path.write_text("theirs")
    path.chmod(mode)


def linked(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))
    writable(path.with_name("elsewhere"), 0o700)


def ours_alone(path: Path) -> None:
    writable(path, 0o700)


@pytest.mark.parametrize(
    ("plant", "kept"), [(writable, False), (linked, False), (ours_alone, True)]
)
def test_a_library_of_others_is_not_loaded_but_built_anew(
    unbuilt: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], None], kept: bool
) -> None:
    """Under the very name that this processor's has; the control is one that nobody else wrote."""
    monkeypatch.setattr(build, "compile_to", lambda path, *_, **__: path.write_text("ours"))
    path = build.built("g++")
    assert path.parent == unbuilt and path.read_text() == "ours"
    path.unlink()
    plant(path)
    assert build.built("g++") == path
    assert path.read_text() == ("theirs" if kept else "ours")
    assert compile_cache.is_trusted(path)


@pytest.mark.parametrize("patience", [60.0, 0.0], ids=["", "control"])
def test_runs_that_start_together_build_once(
    unbuilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """As those of a sweep do, where each would take all cores for a while."""
    calls = tmp_path / "calls"
    said = f'echo x >> {calls}\nsleep 0.2\nfor last; do :; done\ntouch "$last"'
    slow = compiler_script(tmp_path, said)
    monkeypatch.setattr(build, "SECONDS", patience)
    monkeypatch.setattr(build, "_call", lambda *words, **_: subprocess.run(words, check=True))
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(build.built, [str(slow)] * 2)
    assert first == second and first.parent == unbuilt
    once = len(list(build.FOLDER.rglob("*.cpp"))) + 1
    assert len(calls.read_text().split()) == (once if patience else 2 * once)


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


def test_it_is_used_where_it_is_wanted_only() -> None:
    assert choose(CPU, native=True)[0].name == "native"
    assert choose(CPU, native=False) == (WITHOUT_NATIVE, "")
    for wanted in (True, False):
        assert choose(torch.device("cuda", 0), native=wanted) == (CUDA, "")


def test_what_one_agent_computes_with_is_nothing_to_another() -> None:
    """Nothing is switched in the process: a choice for one leaves the other as it was."""
    spec, config = make_spec(IMAGE), make_config()
    one = Trainer(spec, config, backend=native())
    ops_of = lambda trainer: trainer.agent.enc.ops  # noqa: E731
    other = Trainer(spec, config, backend=choose(torch.device("cuda", 0), native=True)[0])
    third = Trainer(spec, config)
    assert (ops_of(one), ops_of(other), ops_of(third)) == (native().ops, CUDA.ops, PYTORCH.ops)


def test_a_forked_process_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "LEAST_NUMBERS", 0)
    torch.set_num_threads(3)
    x, scale = inputs(pool_norm_silu, 8, 7, 5)
    wanted = pool_norm_silu(x, scale)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if torch.equal(pool_norm_silu(x, scale), wanted) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
