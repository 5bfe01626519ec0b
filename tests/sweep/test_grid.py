"""Which runs a sweep has: from words, and from TOML."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamer_async.config import ConfigError
from dreamer_async.store.run_dir import RUN_NAME
from dreamer_async.sweep import grid
from dreamer_async.sweep.grid import Grid
from dreamer_async.sweep.ranges import parse_range


def made(settings: dict[str, tuple[str, ...]], **changes: object) -> Grid:
    given = {"tasks": ("pong", "boxing"), "sizes": ("size1m",), "seeds": (0, 1)} | changes
    return Grid("atari100k", settings=settings, **given)  # type: ignore[arg-type]


def test_every_task_meets_every_value_and_every_seed_seed_by_seed() -> None:
    jobs = made({"optim.lr": ("4e-5", "1e-4"), "train.steps": ("1000",)}).jobs()
    assert [job.name for job in jobs] == [
        *("pong-lr4e-5-s0", "pong-lr1e-4-s0", "boxing-lr4e-5-s0", "boxing-lr1e-4-s0"),
        *("pong-lr4e-5-s1", "pong-lr1e-4-s1", "boxing-lr4e-5-s1", "boxing-lr1e-4-s1"),
    ]
    assert jobs[1].settings == {"optim.lr": "1e-4"}, "what all runs have is not said of each"
    assert jobs[1].variant == "optim.lr=1e-4"


def test_sizes_are_varied_as_settings_are() -> None:
    jobs = made({}, sizes=("size1m", "size12m"), tasks=("pong",), seeds=(3,)).jobs()
    assert [(job.name, job.size) for job in jobs] == [
        ("pong-size1m-s3", "size1m"),
        ("pong-size12m-s3", "size12m"),
    ]


def test_names_are_directories_and_differ() -> None:
    jobs = made(
        {"env.args": ("a=1", "a-1", "x" * 200)}, tasks=("module:make", "module/make")
    ).jobs()
    assert all(RUN_NAME.fullmatch(job.name) and len(job.name) <= 64 for job in jobs)
    assert len({job.name for job in jobs}) == len(jobs) == 12


def test_a_list_is_a_value_and_no_grid() -> None:
    assert grid.parse_settings(["model.multipliers=2,3,4,4"]) == {"model.multipliers": ("2,3,4,4",)}
    assert grid.parse_settings(["model.multipliers=2,3,4,4; 2,4,4,4"]) == {
        "model.multipliers": ("2,3,4,4", "2,4,4,4")
    }
    assert grid.parse_settings(["optim.lr=4e-5, 1e-4"]) == {"optim.lr": ("4e-5", "1e-4")}


def test_the_last_part_of_a_key_is_enough_wherever_it_is_read(tmp_path: Path) -> None:
    assert grid.parse_settings(["lr=4e-5,1e-4", "multipliers=2,3,4,4"]) == {
        "optim.lr": ("4e-5", "1e-4"),
        "model.multipliers": ("2,3,4,4",),
    }
    assert parse_range("lr", "1e-5..1e-3:log") == parse_range("optim.lr", "1e-5..1e-3:log")
    path = tmp_path / "sweep.toml"
    path.write_text('suite = "toy"\n[settings]\nlr = [4e-5, 1e-4]\nargs = {lr = 1}\n')
    assert grid.from_file(path)["settings"] == {
        "optim.lr": ("4e-05", "0.0001"),
        "env.args": ('{"lr": 1}',),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("optim.lr=4e-5,fast", "optim.lr: expected a number"),
        ("optim.lr=4e-5,", "optim.lr: expected a number"),
        ("optim.rl=1", "unknown setting 'optim.rl' (did you mean optim.lr"),
        ("optim.lr", "expected key=value"),
        ("train.seed=1,2", "--seeds"),
        ("seed=3", "seeds of a sweep are given by --seeds"),
        ("lr=4e-5,fast", "optim.lr: expected a number"),
        ("batch_size=4", "'batch_size' could be env.batch_size or train.batch_size"),
        ("env.task=pong", "--task"),
    ],
)
def test_wrong_words_are_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        grid.parse_settings([text])
    assert told in str(error.value)


def test_seeds_are_how_many_or_which() -> None:
    assert grid.parse_seeds("3") == (0, 1, 2)
    assert grid.parse_seeds("3,5") == (3, 5)
    assert grid.parse_seeds("7,") == (7,)
    for wrong in ("", "0", "-1", "a", "1.5", "1,b", "99999999999999", ","):
        with pytest.raises(ConfigError, match="--seeds"):
            grid.parse_seeds(wrong)


def test_too_many_runs_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 2,000 runs, this one asks for 4,000"):
        made({}, seeds=tuple(range(2000))).jobs()


def test_a_file_says_the_same_as_words(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(
        'suite = "atari100k"\ntask = ["pong", "boxing"]\nseeds = 5\nsize = "size1m"\n'
        '[settings]\n"optim.lr" = [4e-5, 1e-4]\nmodel.multipliers = [[2, 3, 4, 4], [2, 4, 4, 4]]\n'
        "train.compile = false\n[settings.train]\n".replace("[settings.train]\n", "")
    )
    assert grid.from_file(path) == {
        "suite": "atari100k",
        "task": "pong,boxing",
        "seeds": "5",
        "size": "size1m",
        "settings": {
            "optim.lr": ("4e-05", "0.0001"),
            "model.multipliers": ("2,3,4,4", "2,4,4,4"),
            "train.compile": ("false",),
        },
    }


def test_a_flat_list_is_one_value_of_a_setting_that_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text('suite = "toy"\nseeds = [3]\n[settings]\nmodel.multipliers = [2, 3, 4, 4]\n')
    words = grid.from_file(path)
    assert words["settings"] == {"model.multipliers": ("2,3,4,4",)}
    assert grid.parse_seeds(words["seeds"]) == (3,)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("suite = ", "not valid TOML"),
        ('task = "pong"', "needs its suite"),
        ('suite = "toy"\nsteps = 3', "unknown key 'steps'"),
        ('suite = "toy"\ntask = 3', "task is a name"),
        ('suite = "toy"\nseeds = [true]', "seeds is a number"),
        ('suite = "toy"\n[settings]\noptim.rl = 3', "unknown setting 'optim.rl'"),
        ('suite = "toy"\n[settings]\noptim.lr = "fast"', "optim.lr: expected a number"),
        ('suite = "toy"\n[settings]\noptim.lr = []', "optim.lr has no value"),
        ('suite = "toy"\nsettings = 3', "settings is a table"),
        ('suite = "toy"\n[settings]\nbatch_size = 3', "sweep.toml: 'batch_size' could be"),
        ('suite = "toy"\n[settings]\nsize = "tiny"', "sweep.toml: size is set by --size"),
        (
            'suite = "toy"\n[settings]\nlr = 1e-4\n"optim.lr" = 3e-4',
            "sweep.toml: optim.lr is given twice",
        ),
        ('suite = "toy"\n[settings]\nseed = [3]', "sweep.toml: seeds of a sweep are given"),
        ('suite = "toy"\n[settings.optim]\nrl = 3', "unknown setting 'optim.rl'"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        grid.from_file(path)
    assert told in str(error.value)
