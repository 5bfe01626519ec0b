"""A run starts, trains, saves and ends on every name of a device, and leaves other cards alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gpu_sim.card import COMPILING_S, INTERPRETED, Card, trainer, updates
from tests.tiny_run import newest

DEVICES = pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
TWO: dict[str, Any] = {"FAKE_GPUS": 2}


@DEVICES
def test_a_run_that_records_its_updates_ends_well(card: Card, device: str) -> None:
    run = card.run(f"train.device={device}")
    done = card.call(*trainer(run), **TWO, **INTERPRETED)
    assert done.code == 0, done.output
    assert newest(run).manifest["updates"] > 0 and updates(run) > 0
    assert not done.broken
    assert done.lines(r"END capture: \d{3,} nodes.* bad 0  unjoined 0"), "nothing was recorded"
    assert "not recorded" not in done.output and "not compiled" not in done.output


@DEVICES
def test_a_run_without_compiling_and_recording_ends_well(card: Card, device: str) -> None:
    run = card.run(f"train.device={device}", "train.compile=false", "train.capture=false")
    done = card.call(*trainer(run), **TWO)
    assert done.code == 0, done.output
    assert updates(run) > 0 and not done.broken and not done.lines("capture")


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_compiled_run_ends_well(card: Card, device: str) -> None:
    run = card.run(f"train.device={device}")
    done = card.call(*trainer(run), patience=COMPILING_S, **TWO)
    assert done.code == 0, done.output
    assert updates(run) > 0 and not done.broken
    assert done.lines(r"END capture: \d{3,} nodes.* bad 0  unjoined 0")
    assert any(name.startswith("triton ") for name in card.nodes()), "nothing was compiled"


@pytest.mark.parametrize("compiled", ["true", "false"])
@pytest.mark.parametrize(("device", "other"), [("cuda:1", 0), ("cuda:0", 1)])
def test_nothing_is_done_on_another_card(
    card: Card, device: str, other: int, compiled: str
) -> None:
    run = card.run(f"train.device={device}", f"train.compile={compiled}")
    done = card.call(*trainer(run), **TWO, **INTERPRETED)
    assert done.code == 0, done.output
    on = r"dev(ice)? %d\b"
    assert done.lines(on % (1 - other)), "the log does not say what happens on which card"
    assert not done.lines(on % other)


def test_a_run_on_the_cpu_opens_no_context(card: Card) -> None:
    run = card.run("train.device=cpu")
    done = card.call(*trainer(run))
    assert done.code == 0, done.output
    assert updates(run) > 0 and not done.lines("CONTEXT|dev(ice)? \\d")


def test_a_call_that_breaks_a_recording_is_seen(card: Card) -> None:
    """The control of all that asks for an empty `broken`."""
    words = (
        "import torch; from dreamer_async.fast.cuda.capture import cuda_graph\n"
        "x = torch.ones(9, device='cuda:0')\n"
        "cuda_graph(lambda: x.sum().item())"
    )
    done = card.call("-c", words)
    assert done.code == 1 and "capturing" in done.output
    assert done.broken
