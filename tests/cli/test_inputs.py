"""What the words of `train` become on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamer_async.cli import inputs, main
from dreamer_async.cli.inputs import SOONER, configure
from dreamer_async.config import Config
from tests.tiny_run import AS_OPTIONS

OWN = (51_000_000, 32.0, 16)
SHORT = (110_000, 256.0, 1)


def plan(config: Config) -> tuple[int, float, int]:
    return config.train.steps, config.train.train_ratio, config.env.num_envs


def test_without_a_gpu_atari_has_a_plan_that_a_person_can_wait_for() -> None:
    config, _, note = configure("atari", None, None, {"train.device": "cpu"}, [])
    assert plan(config) == SHORT and (config.env.suite, config.env.task) == ("atari", "pong")
    assert "110,000 steps" in note and "--steps 51M" in note
    more = configure("atari", None, None, {"train.device": "cpu", "env.num_envs": 4}, []).config
    assert plan(more) == (110_000, 256.0, 4), "what is given counts"


@pytest.mark.parametrize(
    ("flags", "options"),
    [({"train.steps": "51M"}, {}), ({}, {"published": True})],
    ids=["steps", "published"],
)
def test_the_suites_own_plan_is_there_for_who_asks(
    flags: dict[str, Any], options: dict[str, Any]
) -> None:
    config, _, note = configure("atari", None, None, flags | {"train.device": "cpu"}, [], **options)
    assert plan(config) == OWN and note == (SOONER if config.size == "size1m" else "")


def test_with_a_gpu_atari_has_its_own_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "device_kind", lambda _: "cuda")
    config, _, note = configure("atari", None, None, {}, [])
    assert plan(config) == OWN and not note


@pytest.mark.parametrize("suite", ["atari100k", "dmc-vision", "classic"])
def test_other_suites_have_one_plan_everywhere(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(inputs, "device_kind", lambda _, device=device: device)
        plans.append(plan(configure(suite, None, None, {}, []).config))
    assert plans[0] == plans[1]


@pytest.mark.parametrize(("suite", "words"), [("classic", []), ("toy", ["optim.lr=3e-4"])])
def test_a_learning_rate_that_is_not_the_papers_is_said_unless_it_was_asked_for(
    suite: str, words: list[str]
) -> None:
    config, _, note = configure(suite, None, None, {"train.device": "cpu"}, words)
    assert config.optim.lr == 3e-4
    assert note == (
        "" if words else "classic takes a learning rate of 0.0003; the paper's: -s optim.lr=4e-05"
    )


@pytest.mark.parametrize(
    ("size", "words"), [("size1m", []), ("size12m", []), ("size1m", ["lr=4e-5"])]
)
def test_the_smallest_official_size_says_that_it_learns_faster_with_more(
    size: str, words: list[str]
) -> None:
    config, _, note = configure("dmc-proprio", None, size, {"train.device": "cpu"}, words)
    assert config.optim.lr == 4e-5, "the paper's, unless another is asked for"
    assert note == (SOONER if size == "size1m" and not words else "")
    assert "-s optim.lr=1.6e-4" in SOONER


@pytest.mark.parametrize(("steps", "learns"), [(60, False), (61, True)])
def test_a_run_that_ends_before_its_first_update_says_so(
    steps: int, learns: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Four environments give 32 windows of 8 steps with 64 steps; 61 end with all four's 16th."""
    words = ["--size", "tiny", "--sync", "--plain", "--steps", str(steps), "--device", "cpu"]
    assert main(["train", "toy", *words, *AS_OPTIONS, "--runs-dir", str(tmp_path)]) == 0
    said = capfd.readouterr().out
    note = f"{steps} steps end before the first update, which comes at step 64"
    assert (note not in said) == learns and said.strip().endswith(f", update {int(learns)}")
