"""Settings of all tests: one CPU thread, repeatable examples, no settings from outside."""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.pop("DREAMER_RUNS_DIR", None)
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # numpy computes what a GPU would

import hypothesis
import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores it, and so would every process that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from fault_runs import Server

    from dreamer_async.replay.replay import Replay

hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, max_examples=100
)
hypothesis.settings.load_profile("repeatable")


LONGEST_S = 1800
"""Seconds after which a test that is not slow hangs, on any machine."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End the process that hangs in a test, and say where: the test has failed then."""
    if item.get_closest_marker("slow"):
        return (yield)
    stderr = item.config.stash[fault_handler_stderr_fd_key]  # ours, while pytest catches the rest
    faulthandler.dump_traceback_later(LONGEST_S, exit=True, file=stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    needy = [item for item in items if item.get_closest_marker("gpu")]
    if not needy:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needy:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


if flags := os.environ.get("KERNEL_FLAGS", "").split():
    # Another build of the native functions than this processor's: see fast/test_processors.py.
    from dreamer_async.fast.native import build

    build.FLAGS = (*build.FLAGS, *flags)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The process that forks trainers."""
    from fault_runs import Server

    server = Server()
    yield server
    server.close()


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    """Where a replay keeps its ring and its latents."""
    return tmp_path / "ring", tmp_path / "latents"


@pytest.fixture
def replay(paths: tuple[Path, Path]) -> Iterator[Replay]:
    """An empty replay of the spec that `experience` makes."""
    from experience import make_spec

    from dreamer_async.replay.replay import Replay

    with Replay.create(*paths, make_spec(), seed=0) as replay:
        yield replay


@pytest.fixture
def native_functions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """There are native functions, and even small work is shared among threads."""
    import torch
    from backends import native

    from dreamer_async.fast.native import library

    native()
    monkeypatch.setattr(library, "LEAST_NUMBERS", 0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _compile_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the choice of a cache, which a test may make in this process, to that test alone."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", os.environ.get("TORCHINDUCTOR_CACHE_DIR", ""))
    if not os.environ["TORCHINDUCTOR_CACHE_DIR"]:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
