"""The command line: mistakes cost one line and nothing is created; the read commands read."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import STARTED

from dreamer_async import __version__, cli
from dreamer_async.cli import entry, inputs, launch
from dreamer_async.cli.inputs import SOONER
from dreamer_async.cli.words.task import find_task
from dreamer_async.config import from_dict, override, resolve, to_dict
from dreamer_async.machine import compiler
from dreamer_async.run import pipeline
from dreamer_async.store.events import (
    Checkpointed,
    Episode,
    EventWriter,
    Gauges,
    PhaseChanged,
    RunFinished,
)
from dreamer_async.store.json_file import read_json, write_json_atomic
from dreamer_async.store.run_dir import RunDir, list_runs
from dreamer_async.store.summary import load_config

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def invoke(here: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process and return exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunDir, bool, bool]]:
    """Replace the trainer; holds what it was called with, and keeps new settings as it would."""
    calls: list[tuple[RunDir, bool, bool]] = []

    def main(run: RunDir, *, plain: bool, resume: bool, overrides: Sequence[str] = ()) -> int:
        calls.append((run, plain, resume))
        write_json_atomic(run.config_path, to_dict(override(load_config(run), overrides)))
        return 0

    monkeypatch.setattr(pipeline, "main", main)
    return calls


def make_run(root: Path, *overrides: str) -> RunDir:
    config = resolve("toy", "catch", size="tiny", overrides=overrides)
    return RunDir.create(root / "runs", "toy-catch", config=to_dict(config))


# -- mistakes --------------------------------------------------------------------------------

TRAIN_TOY = "train toy --plain"
MISTAKES = [
    ("trian atari", "did you mean"),
    ("--nonsense", "no such option"),
    ("train", "missing argument 'suite'; see `dreamer-async train --help`"),
    ("train --plain", "missing argument 'suite'"),
    ("train toy extra", "unexpected extra argument"),
    ("train atarii", "did you mean atari"),
    ("train ''", "unknown suite or task ''"),
    ("train cartpole-v1", "did you mean CartPole-v1"),
    ("train pong", "did you mean atari/pong or atari100k/pong or Pong-v5?"),
    ("plan gymm", "did you mean gym?"),
    ("train zzqqzz", "`dreamer-async envs` lists the suites"),
    ("train gym", "gym needs a task: any Gymnasium id or module:factory, such as `gym --task"),
    ("plan Gym", "gym needs a task"),
    ("bench env --suite gym", "gym needs a task"),
    ("env check gym", "gym needs a task"),
    ("train atari/pong --task pong", "atari/pong names a task already"),
    ("train CartPole-v1 --task pong", "--task pong needs a suite in front of it"),
    ("train nowhere:build", "there is no module 'nowhere'"),
    ("train Atari:pong", "a task of a suite is written SUITE/TASK"),
    ("train atari --task pongg", "pong"),
    ("train atari --task ''", "task"),
    ("train atari --task ../../etc/passwd", "task"),
    ("train toy --task zzz", "task"),
    ("train gym --task NoSuchEnv-v0", "NoSuchEnv-v0"),
    ("train classic --task CartPole-v9999", "CartPole"),
    (f"{TRAIN_TOY} --siz tiny", "--size"),
    (f"{TRAIN_TOY} --size", "requires an argument"),
    (f"{TRAIN_TOY} --size huge", "unknown size 'huge' (known: tiny, toy, size1m"),
    (f"{TRAIN_TOY} --size size12", "did you mean size12m"),
    (f"{TRAIN_TOY} --size 12g", "did you mean size12m"),
    (f"{TRAIN_TOY} --steps 1.5q", "train.steps: expected a whole number"),
    (f"{TRAIN_TOY} --steps 0.1k1", "train.steps: expected a whole number"),
    (f"{TRAIN_TOY} --steps ten", "train.steps: expected a whole number, got 'ten'"),
    (f"{TRAIN_TOY} --steps 0", "train.steps must be positive, got 0"),
    (f"{TRAIN_TOY} --steps -5", "train.steps must be positive, got -5"),
    (f"{TRAIN_TOY} --steps 1.5", "train.steps: expected a whole number"),
    (f"{TRAIN_TOY} --steps inf", "train.steps: expected a whole number"),
    (f"{TRAIN_TOY} --steps ''", "train.steps: expected a whole number"),
    (f"{TRAIN_TOY} --envs 0", "env.num_envs must be from 1 to 4096"),
    (f"{TRAIN_TOY} --envs 99999", "env.num_envs must be from 1 to 4096"),
    (f"{TRAIN_TOY} --repeat 0", "env.repeat must be from 1 to 1000, got 0"),
    ("train atari --plain --repeat 2", "atari pong repeats each action over 4 frames by itself"),
    (f"{TRAIN_TOY} --published", "there is no published curve for toy"),
    ("plan toy --published", "there is no published curve for toy"),
    (f"{TRAIN_TOY} --seed -1", "train.seed must be from 0"),
    (f"{TRAIN_TOY} --seed 99999999999", "train.seed must be from 0"),
    (f"{TRAIN_TOY} --ratio 0", "train.train_ratio must be positive"),
    (f"{TRAIN_TOY} --ratio nan", "train.train_ratio: expected a number"),
    (f"{TRAIN_TOY} --device tpu", "train.device must be auto, cpu, cuda or cuda:N"),
    (f"{TRAIN_TOY} --device cuda:999", "cuda:999"),
    (
        f"{TRAIN_TOY} --devices 3",
        "env.num_envs=16 is of the whole run and cannot be divided among 3",
    ),
    (f"{TRAIN_TOY} --devices 0", "invalid value for '--devices'"),
    (
        f"{TRAIN_TOY} --precision float16",
        "train.precision must be auto, float32, bfloat16, bfloat16-dense or mixed",
    ),
    (f"{TRAIN_TOY} --threads -1", "train.threads must be from 0 to 1024"),
    (f"{TRAIN_TOY} -s", "requires an argument"),
    (f"{TRAIN_TOY} -s train.batch_siz=8", "did you mean train.batch_size"),
    (f"{TRAIN_TOY} -s batch_size", "expected key=value"),
    (f"{TRAIN_TOY} -s batch_size=8", "'batch_size' could be env.batch_size or train.batch_size"),
    (f"{TRAIN_TOY} -s train_ration=8", "did you mean train.train_ratio"),
    (f"{TRAIN_TOY} -s task=x", "env.task is set by --task"),
    (f"{TRAIN_TOY} -s =", "unknown setting ''"),
    (f"{TRAIN_TOY} -s train.batch_size=big", "train.batch_size: expected a whole number"),
    (f"{TRAIN_TOY} -s train.batch_length=1", "train.batch_length must be at least 2"),
    (f"{TRAIN_TOY} -s train.compile=maybe", "train.compile: expected true or false"),
    (f"{TRAIN_TOY} -s train.keep_checkpoints=1", "at least 2"),
    (f"{TRAIN_TOY} -s env.task=x", "env.task is set by --task"),
    (f"{TRAIN_TOY} -s size=tiny", "size is set by --size"),
    (f"{TRAIN_TOY} -s env.batch_size=99", "env.batch_size must be from 0 to env.num_envs"),
    (f"{TRAIN_TOY} -s replay.capacity=3", "replay.capacity must hold one window"),
    (f"{TRAIN_TOY} -s model.deter=100", "model.deter must be a multiple"),
    (f"{TRAIN_TOY} -s model.classes=300", "model.classes must be from 2 to 256"),
    (f"{TRAIN_TOY} -s loss.imagine_last=1", "loss.imagine_last must be 0 (all) or at least 2"),
    (
        f"{TRAIN_TOY} --task catch_pixels -s model.multipliers=1,1,1,1,1,2",
        "multiples of 64, which model.multipliers halves 6 times",
    ),
    (
        f"{TRAIN_TOY} --task catch_pixels -s model.depth=3",
        "model.depth times the last of model.multipliers is 12",
    ),
    (
        "train CartPole-v1 --plain -s image=resize:64",
        "gym CartPole-v1: env.image=resize:64 is for images, and there are none; leave it out",
    ),
    ("plan classic -s env.image=resize", "classic cartpole: env.image=resize is for images"),
    ("env check classic/cartpole -s env.image=resize", "env.image=resize is for images, and there"),
    (
        "env check minigrid -s env.image=resize",
        "env.image=resize makes no difference; leave it out",
    ),
    (f"{TRAIN_TOY} -s __class__=1", "unknown setting"),
    (f"{TRAIN_TOY} --sync -s env.batch_size=4", "env.batch_size has no effect in lockstep"),
    (f"{TRAIN_TOY} --max-restarts 2", "--max-restarts needs --devices"),
    (
        "train CartPole-v1 --plain --env-arg a=1 -s env.args={}",
        "-s env.args would replace what --env-arg gives",
    ),
    ("plan classic --as a=image -s kinds={}", "-s kinds would replace what --as gives"),
    (f"{TRAIN_TOY} -s 'a\x1b[2Jb=1'", "unknown setting"),
    (f"{TRAIN_TOY} --runs-dir ''", "--runs-dir needs the path of a directory"),
    (f"{TRAIN_TOY} --runs-dir /dev/null", "is not a directory"),
    (f"{TRAIN_TOY} --replay-dir nowhere", "--replay-dir needs an existing directory"),
    (f"{TRAIN_TOY} --replay-dir /dev/null", "--replay-dir needs an existing directory"),
    ("resume", "there are no runs in runs"),
    ("resume nothing", "there is no run 'nothing' in runs"),
    ("resume ../..", "not a run name"),
    ("resume ''", "not a run name"),
    ("resume 'a\nb'", "not a run name"),
    ("resume a b", "unexpected extra argument"),
    ("watch", "there are no runs"),
    ("watch /etc", "there is no run"),
    ("watch --port 8001", "--port has no effect without --serve"),
    ("watch --size 80x24", "--size has no effect without --screenshot"),
    ("watch --serve --screenshot a.svg", "exclude each other"),
    ("watch --screenshot a.svg --graphics kitty", "--graphics has no effect without a terminal"),
    ("watch --serve --graphics kitty", "--graphics has no effect without a terminal"),
    ("watch --screenshot a.svg --animate", "--animate has no effect without a terminal"),
    ("eval last --fps 60", "--fps has no effect without --video or --gif"),
    ("bench env --pairs 3", "--pairs has no effect without the part dashboard"),
    ("bench env --profile a.json", "--profile is of three updates"),
    ("bench --seconds 3 --profile a.json", "--profile is of three updates"),
    ("settings rate --markdown", "leave out WORD and --json"),
    ("envs --all", "--all has no effect without a suite"),
    ("bench learner --profile nowhere/x.json", "--profile needs a file in an existing directory"),
    ("watch ' '", "not a run name"),
    ("stop", "there are no runs"),
    ("stop x --timeout -1", "timeout"),
    ("stop x --timeout soon", "timeout"),
    ("eval", "there are no runs"),
    ("eval last --episodes 0", "episodes"),
    ("eval last --episodes many", "episodes"),
    ("eval last --seed -3", "seed"),
    ("eval last --devise cpu", "--device"),
    ("runs show", "there are no runs"),
    ("runs show '-rf'", "no such option"),
    ("runs show -- -rf", "not a run name"),
    ("runs rm", "missing argument"),
    ("runs rm nothing", "there is no run 'nothing'"),
    ("runs rm ..", "not a run name"),
    ("runs sho", "did you mean"),
    ("runs --runs-dir /dev/null", "is not a directory"),
    ("runs --runs-dir /dev/null list", "is not a directory"),
    ("runs --json rm x --yes", "--json is for runs list and runs show"),
    ("doctor --jsn", "possible options: --json"),
    ("trainer", "missing argument"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_creates_nothing(
    invoke: Run, here: Path, line: str, message: str
) -> None:
    code, out, err = invoke(*_split(line))
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert message.lower() in err.lower()
    assert list(here.iterdir()) == []


def _split(line: str) -> list[str]:
    """Split like a shell, but leave control characters alone."""
    return shlex.split(line)


VOCABULARY = """
train resume watch stop eval runs list show rm trainer version atari toy gym pong last .. /
--task --size --steps --envs --seed --device --set -s --json --plain --sync -- --help
-n --episodes --replay-dir --timeout size1m 3 -1 1e9 nan cpu train.seed=3 a=b =
"""
WORDS = st.sampled_from(VOCABULARY.split())


@given(st.lists(WORDS | st.text(max_size=8), max_size=7))
def test_any_words_get_an_answer_and_a_mistake_creates_nothing(arguments: list[str]) -> None:
    calls, out, err = [], io.StringIO(), io.StringIO()
    fake = mock.patch.object(pipeline, "main", lambda *a, **k: calls.append(a) or 0)
    place, home = tempfile.TemporaryDirectory(), contextlib.chdir
    with place as folder, home(folder), fake, redirect_stdout(out), redirect_stderr(err):
        code = cli.main(arguments)
        if code == 2:
            assert err.getvalue().count("\n") == 1
            assert calls == []
        if code in (2, 65):
            assert os.listdir(folder) == []
        assert code in (0, 2, 65, 73)


def test_a_runs_directory_that_cannot_be_made_is_exit_code_73(invoke: Run, here: Path) -> None:
    (here / "file").touch()
    code, _, err = invoke("train", "toy", "--plain", "--runs-dir", "file/runs")
    assert code == 73
    assert err.startswith("error: cannot create a run in file/runs: Not a directory")


@pytest.mark.parametrize("size", ["replay.capacity_gb=1e6", "replay.capacity=1e13"])
def test_a_replay_larger_than_the_disk_is_exit_code_74_and_creates_nothing(
    invoke: Run, here: Path, trained: list[tuple[RunDir, bool, bool]], size: str
) -> None:
    code, out, err = invoke("train", "toy", "--plain", "-s", size)
    assert (code, out) == (74, "")
    assert f"at {here} and" in err and err.count("\n") == 1
    assert list(here.iterdir()) == [] and trained == []
    assert invoke("train", "toy", "--plain", "-s", "replay.capacity=20_000")[0] == 0
    assert len(trained) == 1


# -- training --------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "expected"), [((), "size12m"), (("--size", "tiny"), "tiny")])
def test_published_sets_up_all_that_is_not_asked_for(
    invoke: Run, trained: list[tuple[RunDir, bool, bool]], size: tuple[str, ...], expected: str
) -> None:
    words = ("train", "dmc-proprio", "--published", "--plain", "--envs", "8", *size)
    code, out, _ = invoke(*words, "-s", "replay.capacity=20000")
    assert code == 0 and ("; --size takes another" in out) == (not size)
    config = load_config(trained[0][0])
    assert (config.size, config.env.repeat, config.env.num_envs) == (expected, 2, 8)
    assert (config.train.train_ratio, config.train.steps) == (512, 300_000)


@pytest.mark.parametrize(
    ("words", "suite", "task"),
    [
        ("Atari", "atari", "pong"),
        ("ATARI-100k", "atari100k", "pong"),
        ("atari/MsPacman", "atari", "ms_pacman"),
        ("toy", "toy", "seek"),  # also the name of a module, below
        ("toy:build", "gym", "toy:build"),
        ("toy --task catch", "toy", "catch"),
        ("CartPole-v1", "gym", "CartPole-v1"),
        ("gym/CartPole-v1", "gym", "CartPole-v1"),
    ],
)
def test_words_for_suites_and_tasks_are_understood(
    here: Path, monkeypatch: pytest.MonkeyPatch, words: str, suite: str, task: str
) -> None:
    monkeypatch.setenv("DREAMER_ENV_CODE", "")
    (here / "toy.py").touch()
    word, _, named = words.partition(" --task ")
    assert find_task(word, named or None) == (suite, task)


def test_an_environment_of_ones_own_needs_no_word_before_it(
    invoke: Run,
    here: Path,
    trained: list[tuple[RunDir, bool, bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DREAMER_ENV_CODE", "")
    (here / "mine.py").write_text(
        "import gymnasium\ndef build():\n    return gymnasium.make('CartPole-v1')\n"
    )
    assert invoke("train", "mine:build", "--size", "TINY", "--steps", "10k")[0] == 0
    run, _, _ = trained[0]
    config = load_config(run)
    assert (config.env.suite, config.env.task, config.size) == ("gym", "mine:build", "tiny")
    assert config.train.steps == 10_000
    assert run.name.endswith("-gym-mine-build")


@pytest.mark.parametrize("words", ["-h", "--help", "train -h", "runs rm -h", "env check --help"])
def test_help_has_a_short_name_everywhere(invoke: Run, words: str) -> None:
    code, out, err = invoke(*words.split())
    assert (code, err) == (0, "")
    assert out.startswith("Usage: dreamer-async") and "-h, --help" in out


def test_an_error_of_the_system_is_the_file_and_words(
    invoke: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "_command", lambda words: os.listdir(words[0]))
    assert invoke("gone") == (73, "", "error: 'gone': No such file or directory\n")


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_a_file_that_is_none_is_not_read(invoke: Run, kind: str) -> None:
    """Opening a pipe would wait for ever."""
    os.mkfifo("grid.toml") if kind == "pipe" else Path("grid.toml").mkdir()
    said = invoke("sweep", "grid.toml", "--dry-run")
    assert said == (2, "", "error: grid.toml is not a file\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "toy", "-s"], "'-s' requires an argument; see `dreamer-async train --help`"),
        (["train", "toy", "-s", ""], "expected key=value, such as train.batch_size=8, got ''"),
        (["runs", "rm", "--runs-dir"], "see `dreamer-async runs rm --help`"),
        (["train", "toy", "--name"], "'--name' requires an argument"),
        (["curves", "--output", "."], "--output needs a file, but '.' is a directory"),
        (["curves", "--output", ""], "--output needs a file, but '.' is a directory"),
    ],
)
def test_an_option_without_its_value_is_one_line(
    invoke: Run, words: list[str], message: str
) -> None:
    code, out, err = invoke(*words)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err


@pytest.mark.parametrize("name", ["ünï", "", ".", "-x", "a b", "../x", "x" * 101])
def test_a_name_that_would_have_to_be_changed_is_refused(invoke: Run, name: str) -> None:
    code, out, err = invoke("train", "toy", "--size", "tiny", f"--name={name}")
    assert (code, out) == (2, "")
    assert err.startswith("error: --name ") and err.count("\n") == 1 and "letters" in err
    assert not Path("runs").exists()


def test_a_picture_is_a_png(invoke: Run) -> None:
    run = make_run(Path("runs"))
    code, _, err = invoke("dream", str(run.path), "--out", "dream.jpg")
    assert code == 2 and "--out needs a file that ends in .png, got 'dream.jpg'" in err


@pytest.mark.parametrize("word", ["version", "--version", "-V"])
def test_the_version_is_asked_for_in_any_way(invoke: Run, word: str) -> None:
    assert invoke(word) == (0, f"dreamer-async {__version__}\n", "")


def test_train_writes_the_config_and_starts_the_trainer(
    invoke: Run, trained: list[tuple[RunDir, bool, bool]]
) -> None:
    code, out, err = invoke(
        *[
            "train",
            "toy",
            "--task",
            "catch",
            "--size",
            "size1m",
            "--steps",
            "1e4",
            "--envs",
            "2",
            "--seed",
            "7",
            "--ratio",
            "8",
        ],
        *[
            "--device",
            "cpu",
            "--precision",
            "float32",
            "--threads",
            "1",
            "--sync",
            "--no-compile",
            "--plain",
        ],
        *["-s", "train.batch_size=4", "-s", "optim.warmup=10", "--name", "first"],
    )
    assert (code, err) == (0, "")
    assert out.splitlines() == ["model size1m on the CPU", SOONER]
    run, plain, resume = trained[0]
    assert (plain, resume) == (True, False)
    assert run.name.endswith("-first")
    config = load_config(run)
    train = config.train
    assert (config.env.suite, config.env.task, config.size) == ("toy", "catch", "size1m")
    assert (train.steps, config.env.num_envs, train.seed, train.train_ratio) == (10_000, 2, 7, 8)
    assert (train.device, train.precision, train.threads) == ("cpu", "float32", 1)
    assert (train.sync, train.compile, train.batch_size) == (True, False, 4)
    assert config.optim.warmup == 10


@pytest.mark.parametrize(
    ("suite", "task"),
    [("atari", "pong"), ("atari100k", "pong"), ("toy", "seek"), ("gym --task CartPole-v1", "")],
)
def test_every_suite_has_a_task(
    invoke: Run, trained: list[tuple[RunDir, bool, bool]], suite: str, task: str
) -> None:
    code, _, err = invoke("train", *suite.split(), "--device", "cpu")
    assert (code, err) == (0, "")
    assert task in load_config(trained[0][0]).env.task


def test_without_a_compiler_updates_run_eagerly_unless_compiling_was_asked_for(
    invoke: Run, trained: list[tuple[RunDir, bool, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    said = "no C++ compiler (apt install g++): updates run without"
    assert said not in invoke("train", "toy")[1], "the run says it, of native functions"
    assert "--compile has no effect on a CPU" in invoke("train", "toy", "--compile")[1]
    monkeypatch.setattr(inputs, "device_kind", lambda device: "cuda")
    assert said in invoke("train", "toy")[1]
    assert "compil" not in invoke("train", "toy", "--compile")[1]
    assert "compil" not in invoke("train", "toy", "--no-compile")[1]
    compiled = [load_config(run).train.compile for run, _, _ in trained]
    assert compiled == [True, True, False, True, False]
    findings = json.loads(invoke("doctor", "--json")[1])
    assert {"missing"} == {f["status"] for f in findings if f["name"] in ("compiler", "native")}


def test_without_python_headers_updates_run_eagerly(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "true")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(here / "include"))
    assert "no Python headers" in compiler.missing()
    (here / "include").mkdir()
    (here / "include" / "Python.h").touch()
    assert compiler.missing() == ""


def test_runs_dir_comes_from_the_environment_or_the_flag(
    invoke: Run,
    here: Path,
    trained: list[tuple[RunDir, bool, bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DREAMER_RUNS_DIR", str(here / "by-environment"))
    invoke("train", "toy")
    invoke("train", "toy", "--runs-dir", "by-flag")
    assert [run.path.parent.name for run, _, _ in trained] == ["by-environment", "by-flag"]


def test_replay_dir_is_kept_as_an_absolute_path(
    invoke: Run, here: Path, trained: list[tuple[RunDir, bool, bool]]
) -> None:
    (here / "fast").mkdir()
    invoke("train", "toy", "--replay-dir", "fast")
    assert load_config(trained[0][0]).replay.directory == str(here / "fast")


def test_resume_changes_what_may_change(
    invoke: Run, here: Path, trained: list[tuple[RunDir, bool, bool]]
) -> None:
    run = make_run(here)
    code, _, err = invoke("resume", "last", "--steps", "99", "-s", "train.train_ratio=5")
    assert (code, err) == (0, "")
    assert trained == [(run, True, True)]
    train = load_config(run).train
    assert (train.steps, train.train_ratio) == (99, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--envs 2", "env.num_envs cannot change in"),
        ("-s model.units=8", "model.units cannot change in"),
        ("-s replay.capacity=9000", "--drop-replay"),
        ("--steps x", "train.steps: expected a whole number"),
        ("--device nope", "train.device must be"),
    ],
)
def test_resume_refuses_what_may_not(
    invoke: Run,
    here: Path,
    trained: list[tuple[RunDir, bool, bool]],
    arguments: str,
    message: str,
) -> None:
    run = make_run(here)
    before = run.config_path.read_bytes()
    code, _, err = invoke("resume", "last", *arguments.split())
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert run.config_path.read_bytes() == before
    assert trained == []


@pytest.mark.parametrize(
    ("reason", "more", "refused"),
    [
        ("completed", "", True),
        ("completed", "--steps 70", True),
        ("completed", "--steps 71", False),
        ("stopped", "--steps 70", True),
        ("stopped", "", False),
    ],
)
def test_resume_refuses_to_end_at_once(
    invoke: Run,
    here: Path,
    trained: list[tuple[RunDir, bool, bool]],
    reason: str,
    more: str,
    refused: bool,
) -> None:
    run = make_run(here, "train.steps=70")
    with EventWriter(run.events_path, 0) as writer:
        writer.emit(RunFinished(reason, 70, 3, 0, ""))
    code, _, err = invoke("resume", "last", *more.split())
    assert (code, len(trained)) == ((2, 0) if refused else (0, 1))
    assert ("has seen 70 steps" in err) == refused


def test_resume_of_a_running_run_names_who_uses_it(
    invoke: Run, here: Path, trained: list[tuple[RunDir, bool, bool]]
) -> None:
    run = make_run(here)
    with run.lock():
        code, _, err = invoke("resume", run.name)
    assert code == 73
    assert "in use by this process" in err
    assert trained == []


def test_resume_with_other_environments_drops_the_replay(
    invoke: Run, here: Path, trained: list[tuple[RunDir, bool, bool]]
) -> None:
    run = make_run(here)
    run.replay_path.write_bytes(b"x" * 4096)
    code, out, _ = invoke("resume", "last", "--envs", "2", "--drop-replay")
    assert code == 0
    assert "deleted a replay of 4.1 kB" in out
    assert not run.replay_path.exists()
    assert load_config(run).env.num_envs == 2
    assert trained == [(run, True, True)]


def test_a_replay_is_not_dropped_for_a_resume_that_cannot_be(
    invoke: Run, here: Path, trained: list[tuple[RunDir, bool, bool]]
) -> None:
    run = make_run(here)
    run.replay_path.write_bytes(b"x" * 4096)
    (run.checkpoints / "step-000000000001").mkdir()
    before = run.config_path.read_bytes()
    code, out, err = invoke("resume", "last", "--envs", "2", "--drop-replay")
    assert (code, out) == (65, "")
    assert "no valid checkpoint: step-000000000001" in err and err.count("\n") == 1
    assert run.replay_path.exists() and run.config_path.read_bytes() == before
    assert trained == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"size": 3}', "[" * 100_000, "\x00"])
def test_a_damaged_config_is_one_line(invoke: Run, here: Path, text: str) -> None:
    run = make_run(here)
    run.config_path.write_text(text)
    for command in ("resume", "runs show"):
        code, out, err = invoke(*command.split(), run.name)
        assert (code, out) == (2, "")
        assert run.name in err
        assert err.count("\n") == 1
    code, _, err = invoke("runs", "list")
    assert code == 0
    assert err.count("\n") == 1


# -- reading ---------------------------------------------------------------------------------


def test_runs_lists_shows_and_removes(invoke: Run, here: Path) -> None:
    assert "no runs yet" in invoke("runs")[1]
    run = make_run(here, "train.seed=3")
    with EventWriter(run.events_path, 0) as writer:
        writer.emit(STARTED)
        writer.emit(Gauges(50, 4))
        writer.emit(Episode(60, 0, 1.5, 10))
        writer.emit(Episode(70, 1, None, 10))
        writer.emit(RunFinished("stopped", 80, 5, 0))
    code, out, _ = invoke("runs", "--json")
    assert code == 0
    [listed] = json.loads(out)
    assert listed["name"] == run.name
    assert (listed["state"], listed["env_steps"], listed["updates"]) == ("stopped", 80, 5)
    assert listed["recent_return"] == 1.5 and listed["frames"] == 320
    assert json.loads(invoke("runs", "list", "--json")[1]) == [listed]
    assert run.name in invoke("runs")[1]
    shown = json.loads(invoke("runs", "show", "last", "--json")[1])
    assert shown["chosen"] == {"train.seed": 3}
    assert from_dict(shown["config"]) == load_config(run)
    assert "train.seed=3" in invoke("runs", "show")[1]
    assert invoke("runs", "rm", run.name, "--yes")[0] == 0
    assert list_runs(here / "runs") == []
    assert os.listdir(here / "runs") == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_options_before_the_command_of_a_group_are_those_of_the_command(
    invoke: Run, here: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """Above all, `runs --runs-dir a rm` deletes nothing anywhere else."""
    runs = {name: make_run(here / name) for name in "abc"}
    if elsewhere:
        monkeypatch.setenv("DREAMER_RUNS_DIR", "b/runs")
    [listed] = json.loads(invoke("runs", "--json", "--runs-dir", "a/runs", "list")[1])
    assert listed["path"] == str(runs["a"].path)
    shown = json.loads(invoke("runs", "--runs-dir", "a/runs", "--json", "show")[1])
    assert shown["path"] == str(runs["a"].path)
    words = ("--runs-dir", "a/runs", "rm", "last", "--yes")
    assert invoke("runs", *words, "--runs-dir", "c/runs")[0] == 0
    assert [name for name, run in runs.items() if run.exists()] == ["a", "b"], "the last one wins"
    assert invoke("runs", *words)[0] == 0
    assert [name for name, run in runs.items() if run.exists()] == ["b"]


def test_state_follows_the_stream_and_the_lock(invoke: Run, here: Path) -> None:
    def state() -> str:
        return json.loads(invoke("runs", "--json")[1])[0]["state"]

    run = make_run(here)
    assert state() == "new"
    with run.lock():
        assert state() == "starting"
    with EventWriter(run.events_path, 0) as writer:
        writer.emit(Checkpointed("checkpoints/step-1", 1, 1, 1, 0.1))
        writer.emit(PhaseChanged("training", 1, 1))
        with run.lock():
            assert state() == "training"
        assert state() == "killed"
        writer.emit(RunFinished("completed", 80, 5, 0))
        assert state() == "completed"


def test_a_stream_whose_phase_is_far_back_still_has_a_state(invoke: Run, here: Path) -> None:
    run = make_run(here)
    with EventWriter(run.events_path, 0) as writer:
        writer.emit(Gauges(50, 4))
    with run.lock():
        assert json.loads(invoke("runs", "--json")[1])[0]["state"] == "training"
    assert json.loads(invoke("runs", "--json")[1])[0]["state"] == "killed"


def test_rm_refuses_a_running_run_and_frees_only_the_replay_when_asked(
    invoke: Run, here: Path
) -> None:
    run = make_run(here)
    run.replay_path.write_bytes(b"x" * 4096)
    with run.lock():
        code, _, err = invoke("runs", "rm", run.name, "--yes")
        assert code == 73
        assert "in use" in err
    assert run.replay_path.exists()
    assert invoke("runs", "rm", run.name, "--replay", "--yes")[0] == 0
    assert not run.replay_path.exists()
    assert run.exists()


def test_rm_takes_the_replay_elsewhere_along(invoke: Run, here: Path) -> None:
    (here / "fast").mkdir()
    run = make_run(here, f"replay.directory={here / 'fast'}")
    run.replay_paths(str(here / "fast"))[0].write_bytes(b"x")
    invoke("runs", "rm", run.name, "--yes")
    assert os.listdir(here / "fast") == []


def test_rm_removes_a_run_with_a_damaged_config(invoke: Run, here: Path) -> None:
    run = make_run(here)
    run.config_path.write_text("{")
    assert invoke("runs", "rm", run.name, "--yes")[0] == 0
    assert not run.path.exists()


def test_eval_without_a_checkpoint_is_exit_code_65(invoke: Run, here: Path) -> None:
    make_run(here)
    code, out, err = invoke("eval", "last", "--device", "cpu")
    assert (code, out) == (65, "")
    assert "no valid checkpoint" in err


def test_stop_of_a_run_that_does_not_run_says_so(invoke: Run, here: Path) -> None:
    run = make_run(here)
    code, out, _ = invoke("stop")
    assert code == 0
    assert out == f"{run.name} is not running\n"
    assert run.take_requests() == []


def test_stop_gives_up_after_its_timeout(invoke: Run, here: Path) -> None:
    run = make_run(here)
    with run.lock():
        code, _, err = invoke("stop", "last", "--timeout", "0.2")
        assert code == 75
        assert "still stopping" in err
        assert [request.command for request in run.take_requests()] == ["stop"]


@pytest.mark.parametrize("command", ["dream last --out", "watch last --screenshot"])
def test_pictures_need_an_existing_directory(invoke: Run, here: Path, command: str) -> None:
    make_run(here)
    code, out, err = invoke(*command.split(), "nowhere/x.png")
    assert (code, out) == (2, "")
    assert "needs a file in an existing directory, got 'nowhere/x.png'" in err


def test_watch_needs_a_terminal(invoke: Run, here: Path) -> None:
    make_run(here)
    code, _, err = invoke("watch")
    assert code == 2
    assert "needs a terminal" in err


@pytest.mark.parametrize("names", [[], ["last"], ["last", "20260101-120000-toy-catch"]])
def test_watch_without_options_takes_the_same_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    """Names alone go past the parser."""
    lines: list[list[str]] = []

    def show(line: list[str]) -> int:
        lines.append(line)
        return 0

    make_run(here).path.rename(here / "runs" / "20260101-120000-toy-catch")
    make_run(here)
    monkeypatch.setattr(launch, "on_terminal", lambda: True)
    monkeypatch.setattr(launch, "_watch_over", show)
    for options in ([], ["--runs-dir", "runs"]):
        with pytest.raises(SystemExit):
            cli.main(["watch", *names, *options])
    monkeypatch.chdir("/")
    monkeypatch.setenv("DREAMER_RUNS_DIR", str(here / "runs"))
    with pytest.raises(SystemExit):
        cli.main(["watch", *names])
    short, parsed, from_elsewhere = lines
    assert (
        short == parsed
        and short[1:4] == ["-P", "-m", "dreamer_async.tui"]
        and len(short) == 4 + len(names or [""])
    )
    assert [Path(here, word) for word in short[4:]] == [Path(word) for word in from_elsewhere[4:]]


def test_watch_of_an_unknown_run_says_so_in_one_line(invoke: Run, here: Path) -> None:
    make_run(here)
    wrong = [invoke("watch", "catsh"), invoke("watch", "catsh", "--runs-dir", "runs")]
    assert wrong[0] == wrong[1] and wrong[0][0] == 2 and wrong[0][2].count("\n") == 1


def test_no_words_get_the_help(invoke: Run) -> None:
    code, out, err = invoke()
    assert (code, err) == (0, "")
    assert out.startswith("Usage: dreamer-async")
    assert "resume" in out


def test_doctor_looks_at_the_disk_of_the_runs_of_a_home(
    invoke: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home" / "runs").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    findings = json.loads(invoke("doctor", "--json", "--runs-dir", "~/runs")[1])
    (disk,) = (each["detail"] for each in findings if each["name"] == "runs")
    assert disk.endswith(str(tmp_path / "home" / "runs"))


def test_doctor_and_version(invoke: Run, here: Path) -> None:
    code, out, _ = invoke("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(out)}
    assert code == 0
    assert findings["torch"]["status"] == "ok"
    assert findings["packages"]["detail"].startswith(f"dreamer-async {__version__}")
    assert list(here.iterdir()) == []
    assert invoke("version") == (0, f"dreamer-async {__version__}\n", "")


def test_json_of_a_config_stays_readable_by_people(here: Path) -> None:
    run = make_run(here, "train.batch_size=8")
    assert run.config_path.read_text().startswith('{\n  "size": "tiny",\n')
    assert read_json(run.config_path)["train"]["batch_size"] == 8
