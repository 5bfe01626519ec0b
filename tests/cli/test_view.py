"""`--env-arg` and `--as`: how a user says what an environment is, once and for the whole run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dreamer_async
from dreamer_async.cli import main
from dreamer_async.envs.suites.gym import ALLOWED
from dreamer_async.store.events import Warned, read_events
from tests.tiny_run import AS_OPTIONS

NAME = "tests.faulty_envs:Pictured"


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED, NAME)


def train(root: Path, *words: str, name: str = NAME) -> int:
    fixed = ["--size", "tiny", "--device", "cpu", "--plain", "--steps", "60"]
    where = ["--runs-dir", str(root / "runs")]
    return main(["train", "gym", "--task", name, *fixed, *where, *AS_OPTIONS, *words])


def test_the_view_is_part_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The environment cannot be built without its argument, nor be read with its text."""
    view = ["--env-arg", "side=40", "--env-arg", "high=20", "--as", "words=hidden"]
    assert train(tmp_path, *view, "-s", "env.image=resize") == 0
    (run,) = (tmp_path / "runs").iterdir()
    where = ["--runs-dir", str(tmp_path / "runs")]
    said = [
        e.event.message for e in read_events(run / "events.jsonl")[0] if type(e.event) is Warned
    ]
    assert any("tiles is taken for an image, but its numbers end at 20" in text for text in said)
    capsys.readouterr()

    assert main(["runs", "show", "last", *where]) == 0
    shown = capsys.readouterr().out
    assert 'env.args={"side": 40, "high": 20}' in shown
    assert 'env.kinds={"words": "hidden"}' in shown and "env.image=resize" in shown

    assert main(["eval", "last", "-n", "1", "--task", NAME, *where]) == 0
    assert main(["dream", "last", "--task", NAME, "--out", str(tmp_path / "d.png"), *where]) == 0
    agent = dreamer_async.load(run)
    assert {name: spec.shape for name, spec in agent.spec.obs.items()} == {"tiles": (32, 32, 1)}
    capsys.readouterr()

    again = ["resume", "last", "--steps", "90", "--plain", "--task", NAME, *where]
    assert main([*again, "-s", "env.kinds=tiles=category"]) == 2
    assert "env.kinds cannot change" in capsys.readouterr().err
    assert main(again) == 0
    assert "arguments of the environment: side=40 high=20" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("how", ["pad", "resize"])
@pytest.mark.parametrize(
    ("shape", "dtype", "high", "seen"),
    [
        ([84, 84, 1], "uint8", 255, {"pad": [96, 96, 1], "resize": [80, 80, 1]}),
        ([40, 40, 3], "uint8", 255, {"pad": [48, 48, 3], "resize": [32, 32, 3]}),
        ([210, 160, 3], "uint8", 255, {"pad": [224, 160, 3], "resize": [208, 160, 3]}),
        ([3, 64, 64], "uint8", 255, {"pad": [64, 64, 3], "resize": [64, 64, 3]}),
        ([64, 64, 12], "uint8", 255, {"pad": [64, 64, 12], "resize": [64, 64, 12]}),
        ([96, 96, 4], "float32", 1, {"pad": [96, 96, 4], "resize": [96, 96, 4]}),
        ([64, 64], "bool", 1, {"pad": [64, 64, 1], "resize": [64, 64, 1]}),
        ([4, 84, 84, 3], "uint8", 255, {"pad": [96, 96, 12], "resize": [80, 80, 12]}),
    ],
)
def test_images_of_any_size_train(
    shape: list[int],
    dtype: str,
    high: int,
    seen: dict[str, list[int]],
    how: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "tests.faulty_envs:Shaped"
    monkeypatch.setenv(ALLOWED, name)
    args = [
        "--env-arg",
        f"shape={shape}",
        "--env-arg",
        f"dtype={dtype}",
        "--env-arg",
        f"high={high}",
    ]
    assert train(tmp_path, *args, "-s", f"env.image={how}", name=name) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert list(dreamer_async.load(run).spec.obs["image"].shape) == seen[how]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env-arg", "side"], "--env-arg expects key=value, got 'side'"),
        (["--env-arg", "side=1", "--env-arg", "side=2"], "--env-arg gives side twice"),
        (["--env-arg", "side={"], "is not valid JSON"),
        (["--env-arg", "size=32"], "has no argument 'size'; did you mean side?"),
        (["--as", "words=hiden"], "key=hidden, vector, image,"),
        (["--as", "words=category:0"], "category:COUNT"),
        (["--as", "words"], "--as expects key=value"),
        (["--env-arg", "side=32"], "of key words has no fixed length"),
        (
            ["--env-arg", "side=32", "--as", "words=hidden", "--as", "tile=image"],
            "unknown observation key 'tile'; did you mean tiles?",
        ),
        (["-s", "env.image=resize:40"], "in multiples of 16"),
        (["-s", "env.image=resize:0x16"], "in multiples of 16"),
        (["-s", "env.image=crop"], "pad, resize,"),
    ],
)
def test_a_mistake_is_one_line_and_creates_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def check(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["env", "check", NAME, "-n", "1", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "shape", "taken", "finding"),
    [
        (["--env-arg", "side=84"], [96, 96, 1], "84x84x1, padded with black to 96x96", ""),
        (["--env-arg", "side=84", "-s", "env.image=resize"], [80, 80, 1], "scaled to 80x80", ""),
        (["--env-arg", "side=16", "--env-arg", "high=10"], [16, 16, 1], "", "tiles=category"),
        (
            ["--env-arg", "side=16", "--env-arg", "high=10", "--as", "tiles=category"],
            [256],
            "256 categories of 11 classes each",
            "",
        ),
        (
            ["--env-arg", "side=40", "--env-arg", "dtype=float32", "--env-arg", "high=1"],
            [48, 48, 1],
            "of float32 in [0, 1]",
            "--as tiles=vector",
        ),
    ],
)
def test_check_says_what_it_took_a_key_for_and_how_to_change_it(
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    shape: list[int],
    taken: str,
    finding: str,
) -> None:
    report = check(capsys, "--as", "words=hidden", *words)
    seen = report["obs"]["tiles"]
    assert seen["shape"] == shape and taken in seen["taken"] and seen["key"] == "tiles"
    about = [text for text in report["findings"] if "tiles" in text]
    assert len(about) == bool(finding) and finding in "".join(about)


def test_check_prints_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--env-arg", "side=84", "--as", "words=hidden"]
    assert main(["env", "check", NAME, "-n", "1", *words]) == 0
    assert "others: --as tiles=vector|category:COUNT|hidden" in capsys.readouterr().out
    assert main(["env", "check", NAME, *words, "-s", "train.seed=3"]) == 2
    assert "makes no difference here; use env.args" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["plan", "bench"])
def test_plan_and_bench_take_them_too(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    part = ["gym", "--no-speeds"] if command == "plan" else ["replay", "--suite", "gym"]
    words = [command, *part, "--task", NAME, "--env-arg", "sidde=3"]
    assert main(words) == 2
    assert "did you mean side?" in capsys.readouterr().err
