"""Learning curves: what `curves` exports of a run, and the pictures that are drawn of it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamer_async.cli import main
from dreamer_async.config import Config, ConfigError, parse_overrides, resolve, to_dict
from dreamer_async.scores.learning import (
    COLUMNS,
    MOST_POINTS,
    RECONSTRUCTION,
    Curve,
    command,
    read_curve,
    read_curves,
    thinned,
    write_curves,
)
from dreamer_async.store.events import (
    Episode,
    Event,
    EventWriter,
    Gauges,
    Metrics,
    Resumed,
    RunStarted,
)
from dreamer_async.store.run_dir import RunDir

STARTED = RunStarted(
    run="r", suite="dmc-proprio", task="walker_walk", size="tiny", parameters=1, device="cpu",
    precision="float32", num_envs=1, steps=1000, frames_per_step=2, train_ratio=512.0,
    seed=3, sync=False, compiled=False, replay_capacity=1, replay_bytes=1, pid=1, version="0",
)  # fmt: skip
LEARNING = Path(__file__).resolve().parents[2] / "docs" / "learning"
LOSSES = {
    "loss/height": 1.0,
    "loss/velocity": 2.0,
    "loss/dyn": 5.0,
    "loss/rep": 5.0,
    "return/S": 2.0,
}


def config(*overrides: str) -> Config:
    return resolve("dmc-proprio", "walker_walk", size="tiny", overrides=overrides)


def record(root: Path, *events: Event, made: Config | None = None) -> RunDir:
    """A run in which an event comes every six minutes, and a new process with each `Resumed`."""
    run = RunDir.create(root, "walk", config=to_dict(made or config()))
    generation, clock = 0, count(0, 360)
    for event in events:
        if isinstance(event, Resumed):
            generation, clock = generation + 1, count(90_000, 360)
        with EventWriter(run.events_path, generation, monotonic=partial(next, clock)) as writer:
            writer.emit(event)
    return run


def curve(tmp_path: Path, *events: Event) -> Curve:
    return read_curve(record(tmp_path, *events), config("env.repeat=2", "train.seed=3"))


def test_a_point_has_its_step_frames_update_and_hours(tmp_path: Path) -> None:
    found = curve(
        tmp_path,
        STARTED,
        Episode(500, 0, 7.5, 500),
        Gauges(env_steps=510, updates=4, values={}),
        Episode(520, 1, None, 20),
        Episode(530, 1, 9.0, 10),
        Metrics(8, 540, LOSSES),
        Metrics(9, 550, {"suite/score": 3.0}),
    )
    assert (found.task, found.group, found.seed) == ("dmc-proprio/walker_walk", "overlapped", 3)
    assert found.points[:2] == [
        {"step": 500, "frames": 1000, "update": 0, "hours": 0.1, "return": 7.5},
        {"step": 530, "frames": 1060, "update": 4, "hours": 0.4, "return": 9.0},
    ]
    kept = {"loss/dyn": 5.0, "return/S": 2.0, RECONSTRUCTION: 3.0}
    assert found.points[2:] == [{"step": 540, "frames": 1080, "update": 8, "hours": 0.5, **kept}]
    assert found.column("return", "frames") == ([1000, 1060], [7.5, 9.0])


def test_what_was_lost_before_a_resume_is_not_counted_twice(tmp_path: Path) -> None:
    lost = [Episode(900, 0, -1.0, 1), Metrics(90, 900, LOSSES)]
    again = [Episode(880, 0, 2.0, 1), Metrics(88, 880, LOSSES)]
    resumed = Resumed("checkpoints/step-800", 800, 80, 0.0)
    found = curve(tmp_path, STARTED, Episode(800, 0, 1.0, 1), *lost, resumed, STARTED, *again)
    assert [p["step"] for p in found.points] == [800, 880, 880]
    assert [p["hours"] for p in found.points] == pytest.approx([0.1, 0.5, 0.6])


def test_updates_that_a_kill_has_lost_are_left_out_where_the_steps_are_kept(
    tmp_path: Path,
) -> None:
    """The replay survives a kill, the weights go back to their checkpoint."""
    before = [Metrics(n, n, LOSSES) for n in (100, 200, 300)]
    episode, resumed = Episode(290, 300, 1.0, 1), Resumed("checkpoints/step-100", 300, 100, 0.0)
    after = [Metrics(n, 300 + n, LOSSES) for n in (200, 300)]
    found = curve(tmp_path, STARTED, *before, episode, resumed, STARTED, *after)
    assert found.column("loss/dyn", "update")[0] == [100, 200, 300]
    assert found.column("loss/dyn", "step")[0] == [100, 500, 600]
    assert found.column("return", "update")[0] == [100]


def test_a_run_that_never_began_has_no_curve(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has not begun"):
        curve(tmp_path)


def test_many_points_become_means_of_neighbours() -> None:
    points = [{"step": float(i), "return": float(i % 7)} for i in range(1001)]
    few = thinned(points)
    assert len(few) == MOST_POINTS and [p["step"] for p in few] == sorted(p["step"] for p in few)
    assert np.mean([p["return"] for p in few]) == pytest.approx(3.0, abs=0.1)
    assert few[0] == {"step": 2.5, "return": pytest.approx(15 / 6)}
    assert thinned(points[:5]) == points[:5] and thinned([]) == []


def test_the_command_makes_the_same_config() -> None:
    made = resolve(
        "dmc-proprio", "walker_walk", size="tiny", published=True,
        overrides=["train.sync=true", "model.multipliers=1,2", 'env.args={"a b": 1}'],
    )  # fmt: skip
    words = shlex.split(command(made))
    assert words[:6] == ["dreamer-async", "train", "dmc-proprio", "--task", "walker_walk", "--size"]
    settings = [word for mark, word in pairwise(words) if mark == "-s"]
    assert parse_overrides(settings)["env.repeat"] == 2
    assert resolve("dmc-proprio", "walker_walk", size=words[6], overrides=settings) == made


def test_the_command_of_learned_experience_names_its_source() -> None:
    settings = ["replay.source=runs/old", "train.updates=70", "env.num_envs=3", "optim.lr=1e-4"]
    learned = resolve("classic", "cartpole", size="tiny", overrides=settings)
    words = "learn runs/old --updates 70 --size tiny -s optim.lr=0.0001"
    assert command(learned) == f"dreamer-async {words}"


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "dreamer_async.scores.pictures", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and f"{tmp_path} has no CSV" in done.stderr


def test_csv_comes_back_as_it_was_written(tmp_path: Path) -> None:
    found = curve(tmp_path, STARTED, Episode(500, 0, 7.5, 500), Metrics(8, 540, LOSSES))
    path = tmp_path / "c.csv"
    with path.open("w") as file:
        write_curves(file, [found, replace(found, seed=4)], ["a note, with a comma"])
    assert path.read_text().splitlines()[:2] == ["# a note, with a comma", ",".join(COLUMNS)]
    assert read_curves(path) == [found, replace(found, seed=4)]


@pytest.mark.parametrize(
    ("line", "message"),
    [("a,b,c", "3 columns"), ("r,t,g,0" + ",x" * (len(COLUMNS) - 4), "could not convert")],
)
def test_a_spoiled_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"# note\n{','.join(COLUMNS)}\n{line}\n")
    with pytest.raises(ValueError, match=rf"c\.csv, line 3: {message}"):
        read_curves(path)


def test_the_command_line_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = record(tmp_path, STARTED, Episode(500, 0, 7.5, 500))
    where = ["--runs-dir", str(tmp_path)]
    assert main(["curves", *where, "--group", "mine"]) == 0
    note, header, row = capsys.readouterr().out.splitlines()
    assert note.startswith(f"# {run.name}: dreamer-async train dmc-proprio --task walker_walk")
    assert header == ",".join(COLUMNS)
    assert row.startswith(f"{run.name},dmc-proprio/walker_walk,mine,0,500,1000,0,0.1,7.5,")
    target = tmp_path / "out.csv"
    assert main(["curves", run.name, "-o", str(target), *where]) == 0
    assert [each.run for each in read_curves(target)] == [run.name]
    assert main(["curves", "-o", str(tmp_path / "no" / "out.csv"), *where]) == 2
    assert "existing directory" in capsys.readouterr().err and not (tmp_path / "no").exists()


# -- pictures ------------------------------------------------------------------------------------


def drawn(directory: Path) -> dict[str, bytes]:
    pytest.importorskip("matplotlib")
    from dreamer_async.scores.pictures import draw

    return {path.name: path.read_bytes() for path in draw(directory)}


def test_every_curve_in_the_repository_is_drawn_small_and_shown(tmp_path: Path) -> None:
    for path in LEARNING.glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    pictures = drawn(tmp_path)
    text = (LEARNING.parent / "learning.md").read_text(encoding="utf-8")
    assert pictures and pictures.keys() == {path.name for path in LEARNING.glob("*.svg")}
    for name, picture in pictures.items():
        assert len(picture) < 150_000 and (LEARNING / name).stat().st_size < 150_000
        assert f"learning/{name}" in text
    assert drawn(tmp_path) == pictures, "the same data give the same picture"


def test_every_run_in_the_repository_has_returns_and_losses_where_they_are_drawn() -> None:
    paths = list(LEARNING.glob("*.csv"))
    assert paths
    for path in paths:
        for found in read_curves(path):
            where = (path.name, found.run)
            assert found.column("return", "frames")[0], where
            assert found.column("loss/dyn", "update")[0], where


def test_a_picture_shows_groups_and_what_was_published(tmp_path: Path) -> None:
    def walk(seed: int, level: float) -> Curve:
        points: list[Any] = [{"frames": 1e4 * i, "update": i, "return": level} for i in range(1, 9)]
        points += [{"update": i, "loss/reward": level} for i in range(1, 9)]
        return Curve(f"r{seed}", "dmc-proprio/walker_walk", "mine", seed, points)

    with (tmp_path / "c.csv").open("w") as file:
        write_curves(file, [walk(1, 10.0), walk(2, 30.0)], [])
    (picture,) = drawn(tmp_path).values()
    assert (
        b"mine, 2 seeds" in picture and b"published (size12m, action repeat 2), 5 seeds" in picture
    )
    with (tmp_path / "c.csv").open("w") as file:
        write_curves(file, [replace(walk(1, 10.0), task="toy/seek")], [])
    (other,) = drawn(tmp_path).values()
    assert b"mine, 1 seed" in other and b"published" not in other


def test_the_official_code_comes_first_and_in_black(tmp_path: Path) -> None:
    points: list[Any] = [{"frames": 10.0 * i, "return": 5.0} for i in range(1, 9)]
    curves = [Curve(name, "toy/seek", name, 1, points) for name in ("here", "official, 8x32")]

    def picture(curves: list[Curve]) -> bytes:
        with (tmp_path / "c.csv").open("w") as file:
            write_curves(file, curves, [])
        return drawn(tmp_path)["toy_seek.svg"]

    both = picture(curves)
    assert both.index(b"official, 8x32, 1 seed") < both.index(b"here, 1 seed")
    black = b"stroke: #000000; stroke-width: 1.4"
    assert black in both and black not in picture(curves[:1]), "only theirs"


def test_one_picture_has_the_returns_of_all_tasks_that_were_published(tmp_path: Path) -> None:
    def curve(task: str, group: str) -> Curve:
        points: list[Any] = [{"frames": 1e4 * i, "return": 5.0} for i in range(1, 9)]
        return Curve(f"{task} {group}", task, group, 1, points)

    def overview(*tasks: str, group: str = "everywhere") -> bytes:
        curves = [curve(tasks[0], "here alone")]
        curves += [curve(task, group.format(task)) for task in tasks]
        with (tmp_path / "c.csv").open("w") as file:
            write_curves(file, curves, [])
        return drawn(tmp_path).get("published.svg", b"")

    picture = overview("dmc-proprio/walker_walk", "dmc-proprio/finger_spin", "toy/seek")
    assert all(name in picture for name in (b"walker_walk", b"finger_spin", b"everywhere"))
    assert b"here alone" not in picture and b"toy/seek" not in picture
    assert not overview("dmc-proprio/walker_walk", "toy/seek"), "one panel has a picture already"
    two = "dmc-proprio/walker_walk", "dmc-proprio/finger_spin"
    assert not overview(*two, group="only {}"), "nothing to compare"


def test_a_single_point_is_drawn(tmp_path: Path) -> None:
    def picture(points: int) -> bytes:
        found = [{"frames": 10.0 * i, "return": 1.0} for i in range(1, points + 1)]
        with (tmp_path / "c.csv").open("w") as file:
            write_curves(file, [Curve("r", "toy/seek", "mine", 1, found)], [])
        return next(iter(drawn(tmp_path).values()))

    assert b"fill: #1f77b4" in picture(1), "a dot"
    assert b"fill: #1f77b4" not in picture(3), "control: a line"


def test_bins_average_and_stay_empty_where_there_is_nothing() -> None:
    pytest.importorskip("matplotlib")
    from dreamer_async.scores.pictures import binned

    means = binned(np.array([1.0, 2.0, 9.0]), np.array([4.0, 6.0, 1.0]), np.linspace(0, 9, 4))
    assert means[[0, 2]].tolist() == [5.0, 1.0] and np.isnan(means[1])
