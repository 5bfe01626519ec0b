"""Eager and compiled are the same code and agree; a graph is really made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from agent_cases import IMAGE, VECTOR, make_batch, make_config, make_spec

from dreamer_async.agent import Trainer, gpu_images, kernels
from dreamer_async.agent.optim import LaProp
from envs.spec import ObsSpec


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    kernels.use(None)  # they would leave nothing to compile
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def compare(backend: str, obs: dict[str, ObsSpec], kind: str) -> None:
    spec, config = make_spec(obs, kind), make_config(lr=1e-3, warmup=0)
    eager, compiled = Trainer(spec, config), Trainer(spec, config)
    compiled.compile(backend)
    batch, generator = make_batch(spec, config), torch.Generator().manual_seed(0)
    noise = eager.draw_noise(generator)
    for _ in range(2):
        one, two = eager.update(batch, noise), compiled.update(batch, noise)
        for name, value in one.metrics.items():
            torch.testing.assert_close(
                two.metrics[name], value, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
            )
        torch.testing.assert_close(two.deter, one.deter, rtol=1e-3, atol=1e-3)
        assert torch.equal(one.stoch, two.stoch)
    counters = torch._dynamo.utils.counters
    # Three of filtering, one of imagining, two of losses; those of images stay eager on a CPU.
    graphs = 6 - any(item.is_image for item in obs.values())
    assert counters["stats"]["unique_graphs"] == graphs and not counters["graph_break"]
    compiled.update(make_batch(spec, config, seed=1), compiled.draw_noise(generator))
    assert counters["stats"]["unique_graphs"] == graphs, "another batch needs no other graph"
    forced = noise._replace(posterior=(noise.posterior * 4).long())
    compiled.update(batch, forced)
    assert counters["stats"]["unique_graphs"] == graphs + 1, (
        "negative control: recompiling is counted"
    )


@pytest.mark.parametrize("obs", [VECTOR, VECTOR | IMAGE], ids=["vector", "image"])
def test_traced_graphs_agree_with_eager(obs: dict[str, ObsSpec]) -> None:
    compare("aot_eager", obs, "discrete")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_all_that_a_gpu_compiles_can_be_traced(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same graphs on a CPU, which leaves some of them eager otherwise."""
    monkeypatch.setattr(gpu_images, "fit", lambda _: True)
    spec, config = make_spec(VECTOR | IMAGE), make_config(lr=1e-3, warmup=0)
    eager, compiled = (Trainer(spec, config, precision=precision) for _ in range(2))
    for trainer in (eager, compiled):
        named = dict(zip(trainer.optim.names, trainer.optim.params, strict=True))
        trainer.optim = LaProp(named, config.optim, flat=True)
    compiled.device = torch.device("cuda")
    compiled.compile("aot_eager")
    compiled.device = torch.device("cpu")
    batch, generator = make_batch(spec, config), torch.Generator().manual_seed(0)
    for _ in range(2):
        noise = eager.draw_noise(generator)
        one, two = eager.update(batch, noise), compiled.update(batch, noise)
        off = 1e-3 if precision == "float32" else 0.1
        for name in ("loss/total", "opt/grad_norm", "opt/update_rms", "value/mean"):
            torch.testing.assert_close(two.metrics[name], one.metrics[name], rtol=off, atol=off)
        assert one.metrics.keys() == two.metrics.keys()
    counters = torch._dynamo.utils.counters
    # Five of filtering, encoder, imagining, two of losses, their sum, is it finite, the optimiser,
    # what follows, metrics.
    assert counters["stats"]["unique_graphs"] == 14 and not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_compiled_agrees_with_eager(kind: str) -> None:
    compare("inductor", VECTOR | IMAGE, kind)
