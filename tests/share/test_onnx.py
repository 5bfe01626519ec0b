"""Policies as ONNX, compared with what `act` does; skipped without the extra `onnx`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import make_run, newest

import dreamer_async
from dreamer_async.cli import main
from dreamer_async.run import pipeline
from dreamer_async.share import onnx
from dreamer_async.share.onnx import CARRY, DifferentPolicy
from dreamer_async.store.run_dir import RunDir

ort: Any = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROWS = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A toy run with images that was trained for a moment."""
    run = make_run(tmp_path_factory.mktemp("runs"), "train.steps=60", task="catch_pixels")
    assert pipeline.main(run, plain=False, resume=False) == 0
    return run


@pytest.fixture(scope="module")
def file(run: RunDir) -> Path:
    out = run.path.parent / "policy.onnx"
    assert main(["export", str(run.path), "--onnx", str(out)]) == 0
    return out


def test_the_graph_acts_as_the_agent_does(run: RunDir, file: Path) -> None:
    """A hundred steps of `act` from the same observations and random numbers, of five rows."""
    agent = dreamer_async.load(run.path, "cpu", seed=4)
    generator = torch.Generator().manual_seed(4)  # draws what `act` draws
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    rng, carry = np.random.default_rng(0), agent.initial(ROWS)
    theirs = {name: part.float().numpy() for name, part in zip(CARRY, carry, strict=True)}
    theirs["action"] = theirs["action"].astype(np.int64)
    actions = set()
    for step in range(100):
        obs = {"image": rng.integers(256, size=(ROWS, 32, 32, 1)).astype(np.uint8)}
        first = np.full(ROWS, step == 0) | (rng.random(ROWS) < 0.05)
        noise = agent.policy.draw_noise(ROWS, generator)
        action, carry = agent.step(obs, carry, first)
        random = {f"noise_{name}": part.numpy() for name, part in noise._asdict().items()}
        names = [f"next_{name}" for name in CARRY]
        out = session.run(names, obs | random | theirs | {"is_first": first})
        theirs = dict(zip(CARRY, out, strict=True))
        np.testing.assert_array_equal(theirs["action"], action)
        np.testing.assert_allclose(theirs["deter"], carry.deter.float().numpy(), atol=1e-4)
        actions |= set(action.tolist())
    assert len(actions) > 1, "actions are sampled"


def test_what_differs_is_not_written(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = newest(run)
    wrong = {name: tensor + 0.5 * ("dyngru.bias" in name) for name, tensor in found.tensors.items()}
    other = onnx.graph(onnx.plain_policy(replace(found, tensors=wrong)), {})
    monkeypatch.setattr(onnx, "graph", lambda policy, facts: other)
    with pytest.raises(DifferentPolicy, match="deter of step 0"):
        onnx.export(found, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_the_file_says_what_it_is(file: Path) -> None:
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["task"] == "toy/catch_pixels" and int(facts["env_steps"]) >= 60
    assert all(put.shape[0] == "batch" for put in session.get_inputs())
