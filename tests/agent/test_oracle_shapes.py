"""Parameter counts, shapes and initial statistics compared with the official code (h_*)."""

from __future__ import annotations

import functools
import math
from collections import Counter

import pytest
import torch
from oracle_cases import layout, our_name, read_csv

from dreamer_async.agent import Agent, Trainer
from dreamer_async.config import SIZES, Config, LossConfig, ModelConfig
from dreamer_async.envs.spec import ActionSpec, EnvSpec, ObsSpec

pytestmark = pytest.mark.oracle
IMAGES = {"atari": (96, 96, 1), "atari100k": (64, 64, 3)}
SIZE_NAMES = [name for name in SIZES if name != "tiny"]


def spec(task: str) -> EnvSpec:
    obs = {"image": ObsSpec(IMAGES[task], "uint8")}
    return EnvSpec(task, "pong", obs, ActionSpec("discrete", 18))


def model(size: str) -> ModelConfig:
    return ModelConfig(**{key.removeprefix("model."): v for key, v in SIZES[size].items()})


@functools.cache
def shapes(task: str, size: str) -> dict[str, torch.Size]:
    """Build an agent without memory; return all parameter shapes but the slow critic's."""
    with torch.device("meta"):
        agent = Agent(spec(task), model(size), LossConfig())
    named = agent.named_parameters()
    return {name: p.shape for name, p in named if not name.startswith("slowval")}


@pytest.mark.parametrize("size", SIZE_NAMES)
@pytest.mark.parametrize("task", IMAGES)
def test_parameter_counts(task: str, size: str) -> None:
    rows = [r for r in read_csv("h_param_counts") if (r["task"], r["size"]) == (task, size)]
    if not rows:
        pytest.skip(f"h_param_counts.csv has no {task} {size}")
    counts: Counter[str] = Counter()
    for name, shape in shapes(task, size).items():
        counts[name.split(".")[0]] += math.prod(shape)
        counts["total"] += math.prod(shape)
    assert counts == {k: int(v) for k, v in rows[0].items() if k not in ("task", "size")}


@pytest.mark.parametrize("size", SIZE_NAMES)
@pytest.mark.parametrize("task", IMAGES)
def test_parameter_names_and_shapes(task: str, size: str) -> None:
    rows = [r for r in read_csv("h_param_shapes") if (r["task"], r["size"]) == (task, size)]
    if not rows:
        pytest.skip(f"h_param_shapes.csv has no {task} {size}")
    expected = {our_name(r["name"]): our_shape(r["name"], r["shape"]) for r in rows}
    assert shapes(task, size) == expected


def our_shape(name: str, text: str) -> torch.Size:
    shape = tuple(int(side) for side in text.split("x"))
    return layout(torch.empty(shape, device="meta"), name).shape


def test_initial_statistics() -> None:
    rows = [r for r in read_csv("h_init_stats") if r["task"] in IMAGES]
    groups = {(r["task"], r["size"]) for r in rows}
    for task, size in sorted(groups):
        config = Config(size=size, model=model(size))
        agent = Trainer(spec(task), config).agent
        own = dict(agent.named_parameters())
        for row in rows:
            if (row["task"], row["size"]) == (task, size):
                check_statistics(own[our_name(row["name"])].detach(), row)


def check_statistics(tensor: torch.Tensor, row: dict[str, str]) -> None:
    """Compare with one drawing of the official code, within five standard errors."""
    mean, std, largest = (float(row[k]) for k in ("mean", "std", "absmax"))
    name, root = row["name"], math.sqrt(tensor.numel())
    if std == 0:
        assert (tensor == mean).all(), name
        return
    assert tensor.mean().abs() <= 5 * std / root, name
    assert abs(tensor.std(correction=0) / std - 1) <= 5 / root, name
    if tensor.numel() > 5000:
        assert abs(tensor.abs().max() / largest - 1) <= 0.02, name
    assert tensor.abs().max() <= 2.28 / 0.8796 * std * 1.2, name


def test_statistics_notice_a_block_fan() -> None:
    """Negative control: the fan of one block instead of the whole width is noticed."""
    rows = [r for r in read_csv("h_init_stats") if r["name"] == "dyn/dyngru/kernel"]
    for row in rows:
        shape = tuple(int(side) for side in row["shape"].split("x"))
        wrong = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with pytest.raises(AssertionError, match="dyngru"):
            check_statistics(wrong * float(row["std"]) * math.sqrt(shape[0]), row)
