"""`dreamer_async.train` takes what the command takes, with the same meaning and the same errors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_run import TINY, kill_trainers

from dreamer_async import Run, train
from dreamer_async.cli.commands import parser
from dreamer_async.store.events import RunStarted, Warned
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.summary import load_config

SMALL = {key: value for key, _, value in (text.partition("=") for text in TINY)}
OTHERWISE = {"plain", "tensorboard", "kinds", "overrides"}
"""What docs/python.md says of these."""


@pytest.fixture(autouse=True)
def _nobody_trains_on(tmp_path: Path) -> Iterator[None]:
    yield
    kill_trainers(tmp_path)


def begin(tmp_path: Path, suite: str = "toy", **more: Any) -> Run:
    options = {"size": "tiny", "threads": 1, "device": "cpu", "settings": SMALL}
    return train(suite, runs_dir=tmp_path / "runs", **(options | more))


def test_every_flag_of_the_command_is_a_keyword() -> None:
    flags = {str(each.name).strip("_") for each in parser().commands["train"].params}
    assert flags - set(inspect.signature(train).parameters) == OTHERWISE


def test_a_run_repeats_actions_and_begins_with_the_weights_of_another(tmp_path: Path) -> None:
    first = begin(tmp_path, task="catch", steps=60)
    assert first.wait(120).reason == "completed"
    init = {"init": first.checkpoint(), "init_parts": "world_model"}
    run = begin(tmp_path, task="catch", steps=40, repeat=2, **init)
    assert run.wait(120).reason == "completed"
    said = [event.message for event in run.events() if isinstance(event, Warned)]
    assert any("began with" in text for text in said), said
    config = load_config(RunDir(run.path))
    assert (config.train.init_parts, config.env.repeat) == ("world_model", 2)


def test_a_run_learns_on_several_devices(tmp_path: Path) -> None:
    run = begin(tmp_path, task="catch", steps=60, devices=2, max_restarts=1)
    assert run.wait(300).reason == "completed"
    (started,) = (event for event in run.events() if isinstance(event, RunStarted))
    assert started.ranks == 2


def test_published_sets_up_what_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamer_async.python.train.start_trainer", lambda *_, **__: None)
    run = begin(tmp_path, "atari100k", published=True, size=None, settings={})
    assert load_config(RunDir(run.path)).size == "size200m"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeat": 0}, "env.repeat must be from 1 to 1000, got 0"),
        ({"repeat": "often"}, "repeat: expected a whole number"),
        ({"published": True}, "there is no published curve for toy"),
        ({"published": 1}, "published: expected true or false"),
        ({"init": "nothing"}, "there"),
        ({"init_parts": "world_model"}, "^init_parts world_model needs init RUN"),
        ({"devices": 3}, "env.num_envs=4 is of the whole run and cannot be divided among 3"),
        ({"devices": 0}, "devices must be from 1 to 1024, got 0"),
        ({"max_restarts": -1}, "max_restarts must be at least 0, got -1"),
    ],
)
def test_a_mistake_is_said_before_anything_is_created(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        begin(tmp_path, **options)
    assert not (tmp_path / "runs").exists()
