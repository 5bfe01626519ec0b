"""Tiny agents and made-up batches for the tests of `dreamer_async.agent`."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata

import torch
from torch import Tensor

from dreamer_async.agent import Batch
from dreamer_async.config import Config, LossConfig, ModelConfig, OptimConfig, TrainConfig
from dreamer_async.envs.spec import ActionSpec, EnvSpec, ObsSpec

MODEL = ModelConfig(deter=16, hidden=8, classes=4, depth=2, units=8, stoch=4, blocks=4)
VECTOR = {"vector": ObsSpec((3,), "float32")}
IMAGE = {"image": ObsSpec((32, 32, 3), "uint8")}
MIXED = VECTOR | IMAGE | {"token": ObsSpec((), "int32", 5)}


def no_triton() -> str:
    """Why kernels in Triton cannot run here, not even interpreted; empty if they can."""
    try:
        version = metadata.version("triton")
    except metadata.PackageNotFoundError:
        return "needs Triton, which comes with PyTorch for CUDA"
    if torch.cuda.is_available() or tuple(map(int, version.split(".")[:2])) >= (3, 7):
        return ""
    return f"Triton {version} does not interpret kernels with numpy 2.4"


def make_spec(obs: dict[str, ObsSpec] = VECTOR, kind: str = "discrete", size: int = 3) -> EnvSpec:
    action = ActionSpec("discrete" if kind == "discrete" else "continuous", size)
    return EnvSpec("toy", "case", obs, action)


def make_config(
    batch: int = 3, length: int = 6, horizon: int = 4, lr: float = 4e-5, warmup: int = 1000
) -> Config:
    return Config(
        "test",
        MODEL,
        LossConfig(imagine_length=horizon),
        OptimConfig(lr=lr, warmup=warmup),
        train=TrainConfig(batch_size=batch, batch_length=length),
    )


def shallow(config: Config) -> Config:
    """One layer each: more of the same take longer to trace and show nothing else."""
    few = {f"{part}_layers": 1 for part in ("encoder", "decoder", "actor", "critic")}
    return replace(config, model=replace(config.model, **few))


def make_obs(spec: ObsSpec, lead: tuple[int, ...], generator: torch.Generator) -> Tensor:
    shape = (*lead, *spec.shape)
    if spec.is_image:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    if spec.classes:
        return torch.randint(0, spec.classes, shape, generator=generator, dtype=torch.int32)
    return torch.randn(shape, generator=generator)


def make_batch(spec: EnvSpec, config: Config, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    lead = (config.train.batch_size, config.train.batch_length + 1)
    first = torch.rand(lead, generator=g) < 0.15
    last = torch.zeros(lead, dtype=torch.bool)
    last[:, :-1] = first[:, 1:]
    if spec.action.kind == "discrete":
        action = torch.randint(0, spec.action.size, lead, generator=g, dtype=torch.int32)
    else:
        action = torch.randn(*lead, spec.action.size, generator=g)
    return Batch(
        {key: make_obs(obs, lead, g) for key, obs in spec.obs.items()},
        action,
        torch.randn(lead, generator=g),
        first,
        last,
        last & (torch.rand(lead, generator=g) < 0.5),
        torch.rand(lead[0], config.model.deter, generator=g).half(),
        torch.randint(0, config.model.classes, (lead[0], config.model.stoch), generator=g).byte(),
    )
