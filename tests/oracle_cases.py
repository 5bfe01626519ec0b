"""Reads the reference vectors: finds files, builds configs from their settings, maps names.

The files are described in tests/oracle/README.md. Another folder of the same format can be
given by the environment variable ORACLE_DIR.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dreamer_async.agent.coders import module_name
from dreamer_async.config import (
    Config,
    ConfigError,
    LossConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from dreamer_async.envs.spec import ActionSpec, EnvSpec, ObsSpec

DIRECTORY = Path(os.environ.get("ORACLE_DIR") or Path(__file__).parent / "oracle")
FLAGS = ("reward", "is_first", "is_last", "is_terminal")

FIXED: Mapping[str, Any] = {
    "ac_grads": False,
    "advnorm.impl": "none",
    "con.output": "binary",
    "dec.simple.act": "silu",
    "dec.simple.norm": "rms",
    "dec.simple.outer": False,
    "dec.simple.outscale": 1.0,
    "dec.simple.strided": False,
    "dec.simple.winit": "trunc_normal_in",
    "dec.typ": "simple",
    "dyn.rssm.absolute": False,
    "dyn.rssm.act": "silu",
    "dyn.rssm.norm": "rms",
    "dyn.rssm.outscale": 1.0,
    "dyn.typ": "rssm",
    "enc.simple.act": "silu",
    "enc.simple.norm": "rms",
    "enc.simple.outer": False,
    "enc.simple.strided": False,
    "enc.simple.symlog": True,
    "enc.typ": "simple",
    "imag_loss.slowtar": False,
    "opt.anneal": 0,
    "opt.momentum": True,
    "opt.schedule": "const",
    "opt.wd": 0.0,
    "policy_dist_cont": "bounded_normal",
    "policy_dist_disc": "categorical",
    "repl_loss.slowtar": False,
    "repval_grad": True,
    "repval_loss": True,
    "retnorm.debias": False,
    "retnorm.impl": "perc",
    "reward_grad": True,
    "rewhead.output": "symexp_twohot",
    "slowvalue.every": 1,
    "valnorm.impl": "none",
    "value.output": "symexp_twohot",
}
"""Official settings that this project has as constants."""


@dataclass(frozen=True)
class Case:
    """One reference file."""

    name: str
    settings: dict[str, Any]
    tensors: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor, or skip the test by name if the file lacks it."""
        if name not in self.tensors:
            pytest.skip(f"{self.name} has no {name}")
        return self.tensors[name]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Return all tensors below a prefix, without the prefix."""
        return {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}


def names(pattern: str) -> list[str]:
    """Return the reference files that match a pattern, without suffix."""
    return sorted(p.stem for p in DIRECTORY.glob(f"{pattern}.safetensors"))


@functools.cache
def load(name: str) -> Case:
    """Read one reference file; skip the test by name if it is not there."""
    path = DIRECTORY / f"{name}.safetensors"
    if not path.exists() or not path.with_suffix(".json").exists():
        pytest.skip(f"{DIRECTORY} has no {name}")
    settings = json.loads(path.with_suffix(".json").read_text())["settings"]
    return Case(name, settings, load_file(path))


def read_csv(name: str) -> list[dict[str, str]]:
    """Read a reference table; skip the test by name if it is not there."""
    path = DIRECTORY / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"{DIRECTORY} has no {name}.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def close(actual: Tensor, expected: Tensor, tolerance: float, name: str = "") -> None:
    """Assert that the largest error is within a share of the largest expected magnitude."""
    assert actual.shape == expected.shape, (name, actual.shape, expected.shape)
    actual, expected = actual.detach().double(), expected.double()
    if not expected.numel():
        return
    error = (actual - expected).abs().max().item()
    scale = max(expected.abs().max().item(), 1e-12)
    assert error <= tolerance * scale, f"{name}: error {error:.3g} of {scale:.3g}"


def layout(official: Tensor, name: str = "kernel") -> Tensor:
    """Turn an official parameter into ours: convolutions HWIO -> OIHW."""
    return official.permute(3, 2, 0, 1) if official.ndim == 4 and "kernel" in name else official


def our_name(official: str) -> str:
    """enc/cnn0/kernel -> enc.cnn0.kernel."""
    match = re.fullmatch(r"dec/vec/(.+)/(\w+)/(\w+)", official)
    if match:
        return f"dec.vec.{module_name(match[1])}.{match[2]}.{match[3]}"
    return official.replace("/", ".")


def ours(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and transpose official parameters."""
    return {our_name(k): layout(v, k).contiguous() for k, v in official.items()}


@torch.no_grad()
def set_parameters(module: nn.Module, official: Mapping[str, Tensor]) -> None:
    """Copy official parameters into a module; both must have the same names and shapes."""
    own, given = dict(module.named_parameters()), ours(official)
    assert sorted(own) == sorted(given), set(own) ^ set(given)
    for name, parameter in own.items():
        assert parameter.shape == given[name].shape, name
        parameter.copy_(given[name])


def parse_space(text: str) -> ObsSpec:
    """Read 'Space(int32, shape=(), low=0, high=6)'."""
    match = re.fullmatch(r"Space\((\w+), shape=\(([\d, ]*)\), low=(\S+), high=(\S+)\)", text)
    assert match, text
    dtype, shape = match[1], tuple(int(x) for x in match[2].split(",") if x.strip())
    if dtype == "uint8" and len(shape) == 3:
        return ObsSpec(shape, "uint8")
    if dtype in ("int32", "int64"):
        return ObsSpec(shape, "int32", int(match[4]) - int(match[3]))
    if dtype != "float32":
        pytest.skip(f"observation {text} is not supported")
    return ObsSpec(shape, "float32")


def env_spec(settings: Mapping[str, Any]) -> EnvSpec:
    """Build the environment of a whole-agent case; skip if it has several actions."""
    spaces = {k: v for k, v in settings["obs_space"].items() if k not in FLAGS}
    obs = {k: parse_space(v) for k, v in spaces.items() if not k.startswith("log/")}
    if list(settings["act_space"]) != ["action"]:
        pytest.skip(f"action space {sorted(settings['act_space'])} is not one 'action'")
    action = parse_space(settings["act_space"]["action"])
    if action.classes:
        if action.shape:
            pytest.skip(f"action space {settings['act_space']} is not one class index")
        return EnvSpec("oracle", "case", obs, ActionSpec("discrete", action.classes))
    return EnvSpec("oracle", "case", obs, ActionSpec("continuous", action.shape[0]))


def config(settings: Mapping[str, Any]) -> Config:
    """Build our config from official settings; skip if one of them has no counterpart."""
    try:
        return _config(settings)
    except ConfigError as error:
        pytest.skip(str(error))


def _config(settings: Mapping[str, Any]) -> Config:
    given = settings["agent_config"]
    for name, value in FIXED.items():
        if given.get(name, value) != value:
            pytest.skip(f"{name}={given[name]} is not supported")
    _check_same(given, "enc.simple", "dec.simple", ("depth", "mults", "units", "kernel"))
    _check_same(given, "rewhead", "value", ("units", "bins"))
    _check_same(given, "imag_loss", "repl_loss", ("lam", "slowreg"))
    for head in ("rewhead", "conhead", "policy"):
        _check_same(given, "enc.simple", head, ("units",))
    sizes = settings["sizes"]
    # The recorded optimiser had a schedule past its warm-up but fresh moments.
    optim = OptimConfig(
        lr=given["opt.lr"], warmup=0, agc=given["opt.agc"] or 1e30, beta2=given["opt.beta2"],
        momentum=given["opt.beta1"], eps=given["opt.eps"],
    )  # fmt: skip
    train = TrainConfig(batch_size=sizes["B"], batch_length=sizes["T"])
    return Config("oracle", _model(given), _loss(given), optim, train=train)


def _check_same(given: Mapping[str, Any], one: str, other: str, fields: tuple[str, ...]) -> None:
    for field in fields:
        if given[f"{one}.{field}"] != given[f"{other}.{field}"]:
            pytest.skip(f"{one}.{field} and {other}.{field} differ")


def _model(given: Mapping[str, Any]) -> ModelConfig:
    rssm = {k.rsplit(".", 1)[1]: v for k, v in given.items() if k.startswith("dyn.rssm.")}
    return ModelConfig(
        deter=rssm["deter"], hidden=rssm["hidden"], classes=rssm["classes"],
        stoch=rssm["stoch"], blocks=rssm["blocks"], unimix=rssm["unimix"],
        dyn_layers=rssm["dynlayers"], posterior_layers=rssm["obslayers"],
        prior_layers=rssm["imglayers"],
        depth=given["enc.simple.depth"], units=given["enc.simple.units"],
        kernel=given["enc.simple.kernel"], multipliers=tuple(given["enc.simple.mults"]),
        block_space=given["dec.simple.bspace"],
        encoder_layers=given["enc.simple.layers"], decoder_layers=given["dec.simple.layers"],
        reward_layers=given["rewhead.layers"], cont_layers=given["conhead.layers"],
        actor_layers=given["policy.layers"], critic_layers=given["value.layers"],
        bins=given["value.bins"], actor_min_std=given["policy.minstd"],
        actor_max_std=given["policy.maxstd"], actor_outscale=given["policy.outscale"],
    )  # fmt: skip


def _loss(given: Mapping[str, Any]) -> LossConfig:
    scales = {k.split(".")[1]: v for k, v in given.items() if k.startswith("loss_scales.")}
    return LossConfig(
        reconstruction=scales["rec"], reward=scales["rew"], cont=scales["con"],
        dyn=scales["dyn"], rep=scales["rep"], actor=scales["policy"], critic=scales["value"],
        replay_critic=scales["repval"], free_nats=given["dyn.rssm.free_nats"],
        horizon=given["horizon"], discount_in_cont=given["contdisc"],
        return_lambda=given["imag_loss.lam"], entropy=given["imag_loss.actent"],
        slow_regularizer=given["imag_loss.slowreg"], slow_rate=given["slowvalue.rate"],
        imagine_length=given["imag_length"], imagine_last=given["imag_last"],
        return_rate=given["retnorm.rate"], return_floor=given["retnorm.limit"],
        return_low=given["retnorm.perclo"], return_high=given["retnorm.perchi"],
    )  # fmt: skip
