"""A policy as one ONNX graph: encode, observe, act, for any runtime and any number of rows.

Inputs are the observations by their keys, `is_first` [N], what is remembered (`deter`, `stoch`,
`action`: zeros before the first step) and the random numbers of the step: `noise_posterior` [N, S],
uniform in [0, 1), and `noise_action`, uniform for classes and normal for vectors. So actions are
sampled as in training, and the same numbers give the same actions everywhere. Outputs are
`next_action`, `next_deter` and `next_stoch`, the inputs of the next step. Everything is float32.

The file is only left behind when onnxruntime agreed with PyTorch over 100 steps.

Legend: N rows, S stoch.
"""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamer_async import __version__
from dreamer_async.agent.policy import Policy, PolicyCarry, PolicyNoise
from dreamer_async.config import Config, from_dict
from dreamer_async.envs.spec import EnvSpec, ObsSpec
from dreamer_async.run import saved_spec
from dreamer_async.store import checkpoint
from dreamer_async.store.checkpoint_layout import AGENT, under
from dreamer_async.store.json_file import replacing

OPSET = 18
TOLERANCE = 1e-4
STEPS = 100
"""Steps over which the graph is compared, with one row and with three."""
OUTPUTS = ("next_action", "next_deter", "next_stoch")
CARRY = ("deter", "stoch", "action")


class DifferentPolicy(RuntimeError):
    """onnxruntime computes something else than PyTorch; the message says what and where."""


class Step(nn.Module):
    """One acting step as a module of tensors only."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._policy = policy
        self._parts = nn.ModuleList([policy.enc, policy.dyn, policy.pol])

    def forward(
        self,
        obs: tuple[Tensor, ...],
        is_first: Tensor,
        deter: Tensor,
        stoch: Tensor,
        action: Tensor,
        noise_posterior: Tensor,
        noise_action: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """obs in the order of the specification, the others as in `Policy.step`."""
        carry = PolicyCarry(deter, stoch, action)
        named = dict(zip(self._policy.spec.obs, obs, strict=True))
        noise = PolicyNoise(noise_posterior, noise_action)
        carry = self._policy.step(named, is_first, carry, noise)
        return carry.action, carry.deter, carry.stoch


class Exported(NamedTuple):
    """What was written."""

    bytes: int
    difference: float
    """Largest difference to PyTorch that the check saw."""


def export(found: checkpoint.Checkpoint, out: Path, seed: int = 0) -> Exported:
    """Write the policy of a checkpoint; raises DifferentPolicy, and then leaves no file."""
    policy = plain_policy(found)
    data = graph(policy, _facts(found, policy.spec))
    difference = compare(policy, data, seed)
    with replacing(out) as file:
        file.write(data)
    return Exported(len(data), difference)


def plain_policy(found: checkpoint.Checkpoint) -> Policy:
    """The policy of a checkpoint on the CPU, computed by PyTorch in float32."""
    config: Config = from_dict(found.manifest["config"])
    policy = Policy(saved_spec.of(found.manifest, config.env), config)
    policy.load(under(found.tensors, AGENT))
    return policy


def graph(policy: Policy, facts: dict[str, str]) -> bytes:
    """The serialised graph of one step, with `facts` as its metadata."""
    obs, *others = _example(policy, 2)
    batch = torch.export.Dim("batch", min=1)
    shapes = (tuple({0: batch} for _ in obs), *({0: batch} for _ in others))
    names = [*policy.spec.obs, "is_first", *CARRY, "noise_posterior", "noise_action"]
    with _quiet():
        program = torch.onnx.export(
            Step(policy).eval(),
            (obs, *others),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=names,
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for key, value in facts.items():
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString()


def _example(policy: Policy, rows: int) -> tuple[Any, ...]:
    """Arguments of `Step.forward` for N rows."""
    types = {"uint8": torch.uint8, "int32": torch.int32, "float32": torch.float32}
    obs = tuple(
        torch.zeros(rows, *spec.shape, dtype=types[spec.dtype]) for spec in policy.spec.obs.values()
    )
    noise = policy.draw_noise(rows, torch.Generator().manual_seed(0))
    return obs, torch.ones(rows, dtype=torch.bool), *policy.initial(rows), *noise


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what the exporter says of itself: of torchvision, and of things that will change."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def compare(policy: Policy, data: bytes, seed: int) -> float:
    """Step both from the same observations and random numbers; the largest difference.

    Each goes on from its own outputs. Raises DifferentPolicy beyond TOLERANCE.
    """
    ort: Any = importlib.import_module("onnxruntime")
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return max(_follow(policy, session, rows, seed) for rows in (1, 3))


def _follow(policy: Policy, session: Any, rows: int, seed: int) -> float:
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    carry, largest = policy.initial(rows), 0.0
    theirs = {name: part.numpy() for name, part in zip(CARRY, carry, strict=True)}
    for step in range(STEPS):
        obs = {name: _random(spec, rows, rng) for name, spec in policy.spec.obs.items()}
        first = np.full(rows, True) if step == 0 else rng.random(rows) < 0.05
        noise = policy.draw_noise(rows, generator)
        random = {f"noise_{name}": part.numpy() for name, part in noise._asdict().items()}
        tensors = {name: torch.from_numpy(value) for name, value in obs.items()}
        carry = policy.step(tensors, torch.from_numpy(first), carry, noise)
        out = session.run(
            [f"next_{name}" for name in CARRY], obs | random | theirs | {"is_first": first}
        )
        theirs = dict(zip(CARRY, out, strict=True))
        for name, own in zip(CARRY, carry, strict=True):
            largest = max(largest, _distance(own.numpy(), theirs[name], f"{name} of step {step}"))
    return largest


def _distance(ours: NDArray[Any], theirs: NDArray[Any], where: str) -> float:
    difference = float(np.abs(ours.astype(np.float64) - theirs).max())
    if not difference <= TOLERANCE:
        raise DifferentPolicy(f"onnxruntime differs from PyTorch by {difference:g} in {where}")
    return difference


def _random(spec: ObsSpec, rows: int, rng: np.random.Generator) -> NDArray[Any]:
    """Observations of no environment, but of the right shape, type and range."""
    shape = (rows, *spec.shape)
    if spec.dtype == "float32":
        return rng.standard_normal(shape).astype(np.float32)
    return rng.integers(spec.classes or 256, size=shape).astype(spec.dtype)


def _facts(found: checkpoint.Checkpoint, spec: EnvSpec) -> dict[str, str]:
    """What whoever runs the graph may want to know, as the metadata of the file."""
    action = {"kind": spec.action.kind, "size": spec.action.size}
    return {
        "task": f"{spec.suite}/{spec.task}",
        "env_steps": str(found.manifest["env_steps"]),
        "updates": str(found.manifest["updates"]),
        "action": json.dumps(action),
        "dreamer_async": __version__,
    }
