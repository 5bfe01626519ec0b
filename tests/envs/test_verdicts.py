"""`env check` and a run see the same environments, so they say the same of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamer_async.cli import main
from dreamer_async.store.events import RunFinished, Warned, read_events
from tests.faulty_envs import FAULTS
from tests.tiny_run import TINY

FAST = ("two_sizes", "class")
SMALL = [
    *("--plain", "--sync", "--device", "cpu", "--envs", "2", "--steps", "40"),
    *(f"--set={line}" for line in TINY),
    *("--set=env.num_envs=2", "--set=train.batch_size=2", "--set=train.batch_length=4"),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def check(name: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """What `env check` answers, and its last words."""
    code = main(["env", "check", f"tests.faulty_envs:{name}", "--json", "-n", "3"])
    said = capfd.readouterr()
    return code, said.err.strip() or said.out


def train(name: str, root: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """What a run answers, and its last words."""
    runs = ["--runs-dir", str(root / "runs")]
    code = main(["train", "gym", "--task", f"tests.faulty_envs:{name}", *SMALL, *runs])
    return code, capfd.readouterr().err.strip()


def reason(words: str) -> str:
    """Without what depends on which environment was first, or on the action."""
    return words.partition("\n")[0].partition(" failed: ")[2] or words.partition("\n")[0]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=[] if fault in FAST else pytest.mark.slow)
        for fault in vars(FAULTS)
    ],
)
def test_what_one_refuses_the_other_refuses_with_the_same_words(
    fault: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checked, why = check(f"FAULTS.{fault}", capfd)
    trained, reported = train(f"FAULTS.{fault}", tmp_path, capfd)
    assert checked == trained == (0 if fault == "none" else checked)
    assert (checked != 0) == (fault != "none"), "the control has no fault"
    if checked:
        assert reason(why) and reason(why) in reported
    if checked == 2:
        assert not (tmp_path / "runs").exists(), "nothing is created for a space"


def warnings(root: Path) -> list[str]:
    (run,) = (root / "runs").iterdir()
    events = [record.event for record in read_events(run / "events.jsonl")[0]]
    assert isinstance(events[-1], RunFinished)
    said = [event.message for event in events if isinstance(event, Warned)]
    return [text for text in said if text.startswith("about the environment")]


@pytest.mark.parametrize("name", ["Wide", "Walk", pytest.param("Moment", marks=pytest.mark.slow)])
def test_a_run_repeats_once_what_env_check_says(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, report = check(name, capfd)
    assert code == 0
    assert train(name, tmp_path, capfd)[0] == 0
    found = [text.split()[:2] for text in json.loads(report)["findings"]]
    said = [text.removeprefix("about the environment: ").split()[:2] for text in warnings(tmp_path)]
    expected = {"Wide": "far reaches", "Moment": "an episode"}
    assert ([expected[name].split()] if name in expected else []) == found[:1], "Walk is well"
    assert said == found
