"""`dreamer-async sweep`: what it says before it begins, what it refuses, and one real sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_run import TINY, read

from dreamer_async import cli
from dreamer_async.cli.sweep import _check_devices as check_devices
from dreamer_async.cli.sweep import _share as share
from dreamer_async.cli.words.sweep import Words, wanted
from dreamer_async.cli.words.view import as_view
from dreamer_async.config import ConfigError, from_dict
from dreamer_async.store.events import RunFinished
from dreamer_async.store.json_file import read_json
from dreamer_async.store.sweep_dir import VERSION, Job, Sweep, SweepDir
from dreamer_async.sweep import cost
from dreamer_async.sweep.cost import Todo, estimate
from dreamer_async.sweep.search import typical
from dreamer_async.sweep.work import config_of

Call = Callable[..., tuple[int, str, str]]
SWEEP = ("sweep", "toy", "--task", "catch", "--size", "tiny", "--no-speeds")


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Run a command in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_real_sweep_is_done_and_then_skipped_and_then_enlarged(call: Call) -> None:
    tiny = [f"-s{text}" for text in TINY if "threads" not in text]
    words = (*SWEEP, *tiny, "--steps", "300", "-s", "optim.lr=4e-5,1e-4", "--drop-replay")
    code, out, err = call(*words)
    assert (code, err) == (0, ""), out
    directory = SweepDir(Path("runs/sweep-toy"))
    assert [run.name for run in directory.runs()] == ["catch-lr4e-5-s0", "catch-lr1e-4-s0"]
    for run, lr in zip(directory.runs(), (4e-5, 1e-4), strict=True):
        config = from_dict(read_json(run.config_path))
        assert (config.optim.lr, config.train.seed, config.env.task) == (lr, 0, "catch")
        assert config.train.threads >= 1, "its share of the processor"
        assert [e.reason for e in read(run) if isinstance(e, RunFinished)] == ["completed"]
        assert not run.replay_path.exists() and any(run.checkpoints.glob("step-*"))
    code, out, _ = call("sweep", "sweep-toy")
    assert code == 0 and "2 completed" in out and "to do" not in out
    kept = directory.runs()[0].replay_path
    kept.write_bytes(bytes(4096))  # as without --drop-replay
    assert call("sweep", "sweep-toy", "--drop-replay", "--dry-run")[0] == 0 and kept.exists()
    code, out, _ = call("sweep", "sweep-toy", "--drop-replay")
    assert code == 0 and "of replays of complete runs" in out and not kept.exists()
    code, out, _ = call(*words, "--seeds", "2", "--dry-run")
    assert code == 0 and "4 runs" in out and "2 completed, 2 waiting" in out
    assert "2 runs to do: 0.0 GB of disk" in out and "hours not measured" in out
    assert call("runs", "list", "sweep-toy")[1].count("completed") == 2
    assert "sweep-toy: a sweep, 2 of 2 runs made" in call("runs")[1]
    assert call("runs", "show", "sweep-toy/catch-lr4e-5-s0")[0] == 0
    code, out, err = call("eval", "sweep-toy", "-n", "1")
    assert code == 0 and out.count("mean ") == 2, err
    code, out, _ = call("runs", "rm", "sweep-toy", "--yes")
    assert code == 0 and not directory.path.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("atarii",), "'atarii' is neither a suite (did you mean atari"),
        (("CartPole-v1",), "did you mean `dreamer-async sweep gym --task CartPole-v1`?"),
        (("Toy/seek",), "did you mean `dreamer-async sweep toy --task seek`?"),
        (("toy/seek",), "did you mean `dreamer-async sweep toy --task seek`?"),
        (("nothing.toml",), "cannot read nothing.toml: No such file"),
        (("/dev/null/x.toml",), "cannot read /dev/null/x.toml: Not a directory"),
        (("toy", "--task", "catch,nope"), "nope"),
        (("toy", "--task", ","), "--task"),
        (("toy", "--size", "tiny,huge"), "unknown size 'huge'"),
        (("toy", "--seeds", "0"), "--seeds"),
        (("toy", "--seeds", ""), "--seeds '': expected how many"),
        (("toy", "--size", ""), "--size '': expected names"),
        (("toy", "--on", "moon"), "--on 'moon': expected local or slurm"),
        (("toy", "--name", "../x"), "--name"),
        (("toy", "--name", ""), "--name ''"),
        (("toy", "--partition", "gpu"), "--partition is for --on slurm"),
        (("toy", "--gpus", "0"), "--gpus is for --on slurm"),
        (("toy", "--time", "8:00:00"), "--time is for --on slurm"),
        (("toy", "--on", "slurm", "--drop-replay"), "--drop-replay is for --on local; when"),
        (("toy", "--name", "toy"), "not the name of a suite"),
        (("toy", "--jobs", "0"), "--jobs"),
        (("toy", "--devices", "0"), "--devices"),
        (("toy", "-s", "env.num_envs=4,6", "--devices", "4"), "cannot be divided among 4 devices"),
        (("toy", "-s", "optim.lr=1e-5..1e-3:log"), "--search N"),
        (("toy", "-s", "train.batch_size=4,0"), "batch_size"),
        (("toy", "--task", "catch_pixels", "-s", "model.depth=8,3"), "model.depth times the last"),
        (("toy", "-s", "train.seed=1"), "--seeds"),
        (("toy", "-s", "seed=3"), "--seeds"),
        (("toy", "-s", "lr=1e-5..1e-3:log"), "--search N"),
        (("toy", "-s", "batch_size=4"), "could be env.batch_size or train.batch_size"),
        (("toy", "-s", "env.task=pong,catch"), "env.task is set by --task"),
        (("toy", "-s", "lr"), "expected key=value"),
        (("toy", "-s", "lr=1e-4", "-s", "optim.lr=3e-4"), "optim.lr is given twice"),
        (("toy", "--steps", "9", "-s", "train.steps=8"), "train.steps is given twice"),
        (("toy", "--speeds", "--devices", "2"), "--speeds measures runs on one device"),
    ],
)
def test_a_mistake_is_one_line_and_creates_nothing(
    call: Call, words: tuple[str, ...], told: str
) -> None:
    code, _, err = call("sweep", *words)
    assert code == 2 and told in err and err.count("\n") == 1
    assert not list(Path().iterdir())


@pytest.mark.parametrize("name", ["atari100k", "Atari-100K"])
def test_a_suite_is_spelled_as_one_likes(call: Call, name: str) -> None:
    Path("a.toml").write_text(f'suite = "{name}"\ntask = "pong"\n')
    for what in (name, "a.toml"):
        code, out, err = call("sweep", what, "--task", "Pong", "--no-speeds", "--dry-run")
        assert code == 0 and out.startswith("sweep-atari100k: 1 run of atari100k"), err
    made = SweepDir(Path("runs/Atari-100K"))
    made.write(Sweep(VERSION, "toy", (), (Job("catch-s0", "catch", "tiny", 0),)))
    _, out, _ = call("sweep", name, "--no-speeds", "--dry-run")
    assert ("1 run of toy" in out) == (name == "Atari-100K"), "the name of a sweep comes first"


@pytest.mark.parametrize("key", ["optim.lr", "lr", " lr "])
def test_the_last_part_of_a_key_makes_the_same_sweep(call: Call, key: str) -> None:
    def made(value: str, search: int | None) -> Sweep:
        words = Words("catch", "tiny", None, (f"{key}={value}", "multipliers=2,3,4,4"))
        return wanted(Path("runs"), "toy", words, None, search, remote="")[1]

    assert {"model.multipliers=2,3,4,4", "optim.lr=1e-4"} <= {*made("1e-4", None).settings}
    grid = made("1e-4,3e-4", None)
    assert [job.name for job in grid.jobs] == ["catch-lr1e-4-s0", "catch-lr3e-4-s0"]
    assert [config_of(grid, job).optim.lr for job in grid.jobs] == [1e-4, 3e-4]
    for value in ("1e-5..1e-3:log", "1e-5,1e-4"):
        assert made(value, 2).search["optim.lr"] == value
    assert call(*SWEEP, "-s", f"{key}=1e-4", "--dry-run")[0] == 0


def test_what_builds_and_reads_an_environment_is_that_of_every_run(call: Call) -> None:
    """Whatever commas, dots and semicolons there are in it: it is no grid."""
    view = as_view(["sutton_barto_reward=true", "file=../a;b,c"], ["observation=vector"])
    for search, sizes, lr in ((None, "tiny,toy", "1e-4"), (3, "tiny", "1e-5..1e-3:log")):
        words = Words("CartPole-v1", sizes, None, (*view, f"optim.lr={lr}"))
        _, sweep = wanted(Path("runs"), "gym", words, None, search, remote="")
        jobs = sweep.jobs or [typical(sweep)]
        assert len(jobs) == (1 if search else 2)
        for env in (config_of(sweep, job).env for job in jobs):
            assert env.args == {"sutton_barto_reward": True, "file": "../a;b,c"}
            assert env.kinds == {"observation": "vector"}
    words = ["sweep", "gym", "--task", "CartPole-v1", "--size", "tiny", "--dry-run"]
    code, out, err = call(*words, "--env-arg", "sutton_barto_reward=true")
    assert code == 0 and "1 waiting" in out and "1 runs to do" in out, (out, err)
    code, _, err = call(*words, "--as", "a=vector")
    assert code == 2 and "unknown observation key" in err and err.count("\n") == 1, err
    code, _, err = call(*words, "--env-arg", "sutton_barto_reward")
    assert code == 2 and "--env-arg expects key=value" in err


def test_another_grid_needs_another_name(call: Call) -> None:
    made = SweepDir(Path("runs/sweep-toy"))
    jobs = tuple(Job(f"catch-s{seed}", "catch", "tiny", seed) for seed in range(2))
    made.write(Sweep(VERSION, "toy", (), jobs))
    code, out, _ = call(*SWEEP, "--seeds", "3", "--dry-run")
    assert code == 0 and "3 waiting" in out, "more of the same is welcome"
    code, _, err = call(*SWEEP, "--seeds", "1", "--dry-run")
    assert code == 2 and "catch-s1 is not in it" in err
    code, _, err = call(*SWEEP, "--seeds", "2", "--steps", "50", "--dry-run")
    assert code == 2 and "begun with other settings" in err
    code, _, err = call("sweep", "sweep-toy", "--seeds", "3")
    assert code == 2 and "give the suite again" in err
    assert made.read().jobs == jobs, "nothing was changed"


def test_how_many_devices_a_run_takes_is_kept(call: Call) -> None:
    made = SweepDir(Path("runs/sweep-toy"))
    jobs = (Job("catch-s0", "catch", "tiny", 0),)
    made.write(Sweep(VERSION, "toy", (), jobs, devices=2))
    for words in (SWEEP, ("sweep", "sweep-toy")):
        code, out, err = call(*words, "--dry-run")
        assert code == 0 and "devices of each run  2" in out, (out, err)
    assert "devices of each run  4" in call(*SWEEP, "--dry-run", "--devices", "4")[1]
    assert "devices of each run" not in call(*SWEEP, "--dry-run", "--devices", "1")[1]


@pytest.mark.parametrize(
    ("devices", "given", "found"),
    [
        (1, (None, None), (1, 4)),
        (1, (0, 2), (0, 2)),
        (4, (None, None), (4, 16)),
        (4, (0, 8), (0, 8)),
    ],
)
def test_ranks_divide_what_a_job_of_slurm_takes(
    devices: int, given: tuple[int | None, int | None], found: tuple[int, int]
) -> None:
    assert share(Sweep(VERSION, "toy", (), (), devices=devices), *given) == found


@pytest.mark.parametrize(
    ("setting", "told"),
    [("8..32", "name the values instead"), ("8,10", "cannot be divided among 4 devices")],
)
def test_a_search_chooses_nothing_that_its_devices_cannot_divide(setting: str, told: str) -> None:
    fixed = {"size": "tiny", "task": "catch", "seed": "0", "train.batch_size": setting}
    plan = Sweep(VERSION, "toy", (), (), search=fixed, trials=3, devices=4)
    with pytest.raises(ConfigError, match=told):
        check_devices(plan, "")
    check_devices(replace(plan, devices=1), "")


def test_a_dry_run_says_what_the_disk_takes_on_any_number_of_devices(call: Call) -> None:
    words = (*SWEEP[:-1], "-s", "replay.capacity_gb=3", "--seeds", "2", "--dry-run")
    told = [call(*words, "--devices", n)[1].splitlines()[-1] for n in ("1", "2")]
    assert told[0] == told[1] and told[0].startswith("2 runs to do: 6."), told
    assert not Path("runs").exists()


def test_a_job_of_slurm_that_cannot_be_divided_is_refused() -> None:
    plan = Sweep(VERSION, "toy", (), (), devices=4)
    with pytest.raises(ConfigError, match="takes 4, or 0"):
        share(plan, 3, None)
    with pytest.raises(ConfigError, match="need one each"):
        share(plan, None, 3)


@pytest.mark.parametrize(
    "words",
    [
        ("resume", "sweep-toy"),
        ("dream", "sweep-toy"),
        ("play", "sweep-toy"),
        ("export", "sweep-toy"),
        ("push", "sweep-toy", "hf://a/b"),
        ("train", "toy", "--init", "sweep-toy"),
        ("watch", "sweep-toy", "sweep-toy"),
        ("eval", "sweep-toy"),
        ("runs", "list", "sweep-toy"),
        ("scores", "sweep-toy"),
    ],
)
def test_a_command_that_takes_no_sweep_or_finds_no_run_says_so(
    call: Call, words: tuple[str, ...]
) -> None:
    made = SweepDir(Path("runs/sweep-toy"))
    made.write(Sweep(VERSION, "toy", (), (Job("catch-s0", "catch", "tiny", 0),)))
    code, _, err = call(*words)
    assert code != 0 and "sweep" in err and err.count("\n") == 1, err
    assert {path.name for path in made.path.iterdir()} == {"sweep.json"}


def test_code_of_a_sweep_has_to_be_named_again(call: Call) -> None:
    """What would be imported stands in a file, which may come from anyone."""
    job = Job("a", "my_game:build", "tiny", 0)
    SweepDir(Path("runs/sweep-gym")).write(Sweep(VERSION, "gym", (), (job,)))
    code, _, err = call("sweep", "sweep-gym", "--dry-run")
    assert code == 2 and "my_game:build" in err
    code, _, err = call("sweep", "sweep-gym", "--task", "other:build", "--dry-run")
    assert code == 2 and "my_game:build" in err


def test_what_takes_much_is_asked_for(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MUCH_GB", 1e-6)
    code, out, err = call(*SWEEP)
    assert code == 2 and "GB of disk" in out and "add --yes" in err
    assert not Path("runs").exists()


def test_costs_are_those_of_every_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = {"replay_gb": 2.0, "checkpoint_gb": 0.5, "checkpoints": 3, "updates": 7200, "steps": 10}
    asked: list[bool] = []

    def plan(config: object, directory: Path, *, speeds: bool = False) -> dict[str, float]:
        asked.append(speeds)
        return said | {"update_s": 1.0, "step_s": 0.1}

    monkeypatch.setattr(cost, "plan_of", plan)
    sweep = Sweep(VERSION, "toy", (), ())
    config = config_of(sweep, Job("a", "catch", "tiny", 0))
    other = config_of(sweep, Job("b", "catch", "tiny", 1))
    todo = [Todo(config, 1.0, made=False), Todo(other, 0.25, made=True)]
    found = estimate(todo, tmp_path, speeds=True)
    assert (found.gigabytes, found.hours) == (3.5, 2.5), "two hours, and a quarter of them"
    assert asked == [False, True], "runs that differ in their seed are asked for once"
    assert "2 runs to do: 3.5 GB" in found.line(2) and "2.5 hours" in found.line(2)
    assert estimate(todo, tmp_path, speeds=False).hours is None
