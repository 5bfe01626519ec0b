"""On a CUDA device: the same numbers as on the CPU, and a whole run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from agent_cases import MIXED, make_batch, make_config, make_obs, make_spec
from tiny_run import make_run, newest
from torch import Tensor

from dreamer_async.agent import Batch, Noise, Policy, Trainer
from dreamer_async.fast.choose import choose
from dreamer_async.machine.device import set_arithmetic
from dreamer_async.run.pipeline import main

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact_float32() -> None:
    set_arithmetic(torch.device("cuda"), "float32")


KINDS = pytest.mark.parametrize("kind", ["discrete", "continuous"])


def inputs(trainer: Trainer) -> tuple[Batch, Noise]:
    noise = trainer.draw_noise(torch.Generator().manual_seed(0))
    batch = make_batch(trainer.spec, trainer.config)
    return batch.map(lambda tensor: tensor.to(trainer.device)), noise


def gradients(kind: str, device: str, precision: str = "float32") -> dict[str, Tensor]:
    backend, _ = choose(torch.device(device), native=False)
    trainer = Trainer(make_spec(MIXED, kind), make_config(), device, precision, backend)
    _, grads = trainer.gradients(*inputs(trainer))
    return {n: g.cpu() for n, g in zip(trainer.optim.names, grads, strict=True)}


def distance(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """Norm of the difference over the norm, all gradients together."""
    flat = [torch.cat([g.flatten() for g in grads.values()]) for grads in (one, two)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


@KINDS
def test_float32_gradients_agree_with_the_cpu(kind: str) -> None:
    assert distance(gradients(kind, "cuda"), gradients(kind, "cpu")) < 1e-3


@KINDS
def test_bfloat16_gradients_are_near(kind: str) -> None:
    off = distance(gradients(kind, "cuda", "bfloat16"), gradients(kind, "cuda"))
    assert 0 < off < 0.3


@KINDS
def test_the_policy_acts_alike(kind: str) -> None:
    spec, config = make_spec(MIXED, kind), make_config()
    source = Trainer(spec, config).agent
    generator = torch.Generator().manual_seed(0)
    obs = {key: make_obs(item, (4,), generator) for key, item in spec.obs.items()}
    first = torch.ones(4, dtype=torch.bool)
    results = []
    for device in ("cpu", "cuda"):
        backend, _ = choose(torch.device(device), native=False)
        policy = Policy(spec, config, device, backend=backend)
        policy.load(source)
        acted, _ = policy.act(obs, first, policy.initial(4), torch.Generator().manual_seed(1))
        results.append(torch.as_tensor(acted.action).float())
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("captured", [True, False], ids=["captured", "eager"])
def test_a_run_trains_saves_and_resumes(captured: bool, tmp_path: Path) -> None:
    compiled = str(captured).lower()
    run = make_run(tmp_path, "train.steps=300", f"train.compile={compiled}", "train.device=cuda")
    assert main(run, plain=True, resume=False) == 0
    assert newest(run).manifest["updates"] > 0
    assert main(run, plain=True, resume=True, overrides=["train.steps=400"]) == 0
    assert newest(run).manifest["env_steps"] >= 400
