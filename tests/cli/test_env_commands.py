"""`dreamer-async envs` and `env check`: what there is, what an agent sees, what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

from dreamer_async import envs
from dreamer_async.cli import main
from dreamer_async.envs import needs, registry
from dreamer_async.envs.check import Tally, patience
from tests.envs.gym_spaces import EXAMPLES


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(words) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def check(capsys: pytest.CaptureFixture[str], name: str, *options: str) -> dict[str, Any]:
    return json.loads(run(capsys, "env", "check", name, "--json", *options))


def test_every_suite_is_listed_with_its_number_of_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(run(capsys, "envs", "--json"))
    assert [entry["suite"] for entry in listed] == list(envs.suites())
    assert all(entry["about"] and "preset" in entry for entry in listed)
    text = run(capsys, "envs")
    for suite in envs.suites():
        line = next(line for line in text.splitlines() if line[2:].startswith(f"{suite} "))
        assert str(len(envs.tasks(suite)) or "any") in line.split()


def test_the_tasks_of_a_suite_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "envs", "atari100k")
    assert "pong (default)" in text and "  up_n_down" in text
    assert "train.train_ratio=256" in text and "can run here" in text
    assert "and 116 more: --all" in run(capsys, "envs", "minigrid")
    assert "more: --all" not in run(capsys, "envs", "minigrid", "--all")


def test_what_a_suite_and_a_task_need_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs: the package envpool, libQt5Gui.so.5" in run(capsys, "envs", "procgen")
    assert "needs: nothing else" in run(capsys, "envs", "toy")
    text = run(capsys, "envs", "bsuite", "--all").splitlines()
    assert "  catch/0 (default)" in text and "  catch/1" in text
    assert sum(line.startswith("  mnist") and "downloads" in line for line in text) == 60


def test_what_is_missing_is_said_with_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = registry.SUITES["toy"]
    lacking = (needs.of_extra("no_such_package", "toy"),)
    monkeypatch.setitem(registry.SUITES, "toy", replace(suite, needs=lacking))
    expected = (
        "toy needs the package no_such_package: not installed; pip install 'dreamer-async[toy]'"
    )
    assert expected in run(capsys, "envs")
    assert expected in run(capsys, "env", "check", "toy/seek", code=2)
    assert expected in run(capsys, "train", "toy", code=2)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("envs", "atri"), "did you mean atari"),
        (("env", "check", "atari/pongg"), "did you mean pong"),
        (("env", "check", "CartPol-v1"), "did you mean CartPole"),
        (("env", "check", "no_such_module:Env"), "no module 'no_such_module'"),
        (("env", "check", "tests.faulty_envs:Nothing"), "no attribute 'Nothing'"),
    ],
)
def test_mistakes_name_what_is_near(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], hint: str
) -> None:
    assert hint in run(capsys, *words, code=2)


def test_check_says_what_the_agent_sees(capsys: pytest.CaptureFixture[str]) -> None:
    report = check(capsys, "tests.faulty_envs:Walk")
    assert report["obs"]["image"] | {"mean": 0} == {
        "shape": [16, 32, 1], "dtype": "uint8", "encoder": "CNN", "classes": 0,
        "low": 0, "high": 254, "mean": 0, "key": "image", "taken": "an image of 16x32x1",
        "others": "vector|category:COUNT|hidden",
    }  # fmt: skip
    assert report["obs"]["robot_pose"]["encoder"] == "MLP"
    assert report["obs"]["room"]["classes"] == 5
    assert report["action"] == "one of 3 -> int64 -1 to 1"
    assert set(report["lengths"]) == {7} and len(report["lengths"]) >= 5
    assert 0 < report["terminal"] < len(report["lengths"])
    assert report["findings"] == []
    text = run(capsys, "env", "check", "tests.faulty_envs:Walk", "-n", "1")
    assert "nothing is wrong" in text and "16x32x1" in text
    assert report["resets"] == pytest.approx(1 / 8, abs=0.03)
    assert "of all agent steps: reset rows count, as in the official code" in text


@pytest.mark.parametrize(
    ("name", "findings"),
    [
        ("Unseeded", ["same seed gives other episodes"]),
        ("Wide", ["far reaches", "its space says -1 to 1"]),
        ("Dark", ["image holds nothing but 0 and 1", "room was 1 all the time"]),
        (
            "Endless",
            ["no episode ended", "vector of 5000", "field reaches 0 to", "never saw a rew"],
        ),
    ],
)
def test_check_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    findings: list[str],
) -> None:
    clock = count(step=0.01)  # in steps of the environment, however long they take
    monkeypatch.setattr("dreamer_async.envs.check.time", SimpleNamespace(monotonic=clock.__next__))
    report = check(capsys, f"tests.faulty_envs:{name}", "--seconds", "0.5")
    for finding in findings:
        assert any(finding in found for found in report["findings"]), report["findings"]


def test_deaths_that_were_bridged_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(step=0.01)
    monkeypatch.setattr("dreamer_async.envs.check.time", SimpleNamespace(monotonic=clock.__next__))
    report = check(capsys, "tests.faulty_envs:Exiting", "--seconds", "0.1")
    assert "is replaced (1 of at most 3 times)" in report["findings"][0]
    assert "died: exit code 3" in report["findings"][0]


def test_one_is_told_that_no_row_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Queue[str]()
    monkeypatch.setattr("dreamer_async.envs.check.SILENCE", 0.01)
    with patience(Tally(1), said.put):
        assert "no row for" in said.get(timeout=60)
    monkeypatch.setattr("dreamer_async.envs.check.SILENCE", 600.0)
    with patience(Tally(1), said.put):
        while not said.empty():
            said.get()
    assert said.empty()


def test_a_fixed_start_and_time_limits_are_remarked(capsys: pytest.CaptureFixture[str]) -> None:
    found = check(capsys, "minigrid/empty-5x5", "--seconds", "3")["findings"]
    assert any("start alike" in finding for finding in found), found
    found = check(capsys, "classic/pendulum", "-n", "2")["findings"]
    assert any("no episode was terminal" in finding for finding in found), found


def test_a_failing_environment_is_shown_with_its_own_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = run(capsys, "env", "check", "tests.faulty_envs:OldReset", code=69)
    assert "failed: reset must return" in message
    message = run(capsys, "env", "check", "tests.faulty_envs:Raising", code=69)
    assert "ArithmeticError: the wheel came off" in message and "faulty_envs.py" in message


def test_every_kind_of_space_is_shown_as_the_agent_and_as_the_environment_has_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = check(capsys, "tests.envs.gym_spaces:EveryKind", "-n", "3")
    seen = {name: (entry["dtype"], entry["classes"]) for name, entry in report["obs"].items()}
    assert seen.keys() == {*EXAMPLES} - {"Tuple", "Dict"} | {
        *("Tuple/0", "Tuple/1", "Dict/arm/0", "Dict/arm/1", "Dict/say")
    }
    assert seen["MultiBinary"] == ("int32", 2) and seen["Text"] == ("int32", 3)
    assert seen["Dict/arm/1"] == seen["Box_few"] == ("float32", 0)
    for words in (
        "Discrete: one of 3 -> int64 -1 to 1; ",
        "Box_unbounded: 2 numbers in [-1, 1] -> float64 [2] from -1 to 1 (a bound is inf",
        "Tuple/1: one of 3 -> int64 0 to 2",
        "Dict/say: one of 62, one of 63 -> a text of 1 to 2 characters out of 62",
    ):
        assert words in report["action"]
