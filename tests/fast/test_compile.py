"""Eager and compiled are the same code and agree; a graph is really made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from agent_cases import IMAGE, VECTOR, make_batch, make_config, make_spec, shallow

from dreamer_async.agent import Trainer
from dreamer_async.envs.spec import ObsSpec
from dreamer_async.fast.cuda.backend import CUDA
from dreamer_async.fast.cuda.updates import Updates, gpu_options, launches_dependently

GRAPHS = 16
"""Five of filtering, encoder, three of imagining (weights, the first step, the others), two of
losses, their sum, is it finite, the optimiser, what follows, metrics."""


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def compare(compiler: str, obs: dict[str, ObsSpec], kind: str, precision: str) -> None:
    spec, config = make_spec(obs, kind), shallow(make_config(lr=1e-3, warmup=0))
    eager, other = (Trainer(spec, config, precision=precision, backend=CUDA) for _ in range(2))
    compiled = Updates(other)
    compiled.compile(compiler)
    batch, generator = make_batch(spec, config), torch.Generator().manual_seed(0)
    off = 1e-3 if precision == "float32" else 0.1
    noise = eager.draw_noise(generator)
    for _ in range(2):
        one, two = eager.update(batch, noise), compiled(batch, noise)
        names = one.metrics if precision == "float32" else COARSE
        for name in names:
            torch.testing.assert_close(
                two.metrics[name],
                one.metrics[name],
                rtol=off,
                atol=off,
                msg=lambda m, n=name: f"{n}: {m}",
            )
        assert one.metrics.keys() == two.metrics.keys()
        if precision == "float32":
            torch.testing.assert_close(two.deter, one.deter, rtol=1e-3, atol=1e-3)
            assert torch.equal(one.stoch, two.stoch)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == GRAPHS and not counters["graph_break"]
    compiled(make_batch(spec, config, seed=1), eager.draw_noise(generator))
    assert counters["stats"]["unique_graphs"] == GRAPHS, "another batch needs no other graph"


COARSE = ("loss/total", "opt/grad_norm", "opt/update_rms", "value/mean")
"""What does not depend on which class is drawn where bfloat16 rounds."""


@pytest.mark.parametrize(
    ("obs", "precision"),
    [(VECTOR, "float32"), (VECTOR | IMAGE, "bfloat16")],
    ids=["vector-float32", "image-bfloat16"],
)
def test_all_that_a_gpu_compiles_can_be_traced(obs: dict[str, ObsSpec], precision: str) -> None:
    """The same graphs on a CPU: to the digit, and what a GPU is given by default."""
    compare("aot_eager", obs, "discrete", precision)


def test_compiling_again_is_counted() -> None:
    """The control of the test before."""
    double = torch.compile(lambda x: x * 2, backend="eager", dynamic=False, fullgraph=True)
    stats = torch._dynamo.utils.counters["stats"]
    for given, graphs in [(torch.ones(2), 1), (torch.zeros(2), 1), (torch.ones(2).long(), 2)]:
        double(given)
        assert stats["unique_graphs"] == graphs


def test_kernels_start_early_only_where_somebody_asks_for_it() -> None:
    """The name has to be inductor's, which refuses one that it does not know."""
    wanted, unwanted = gpu_options(dependent_launch=True), gpu_options(dependent_launch=False)
    assert wanted.keys() - unwanted.keys() == {"triton.enable_pdl"}
    assert launches_dependently()
    torch.compile(lambda x: x, options=wanted)
    with pytest.raises(RuntimeError, match="enable_pdx"):
        torch.compile(lambda x: x, options={"triton.enable_pdx": True})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_compiled_agrees_with_eager(kind: str) -> None:
    compare("inductor", VECTOR | IMAGE, kind, "float32")
