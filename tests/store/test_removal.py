"""Deleting runs: nothing else goes, nothing stays behind, and a full disk is no obstacle."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import STARTED, make_run

from dreamer_async import cli
from dreamer_async.envs.session import address
from dreamer_async.store import removal, run_lock
from dreamer_async.store.events import EventWriter
from dreamer_async.store.run_dir import RunDir, list_runs
from dreamer_async.store.sweep_dir import VERSION, Job, Sweep, SweepDir

pytestmark = pytest.mark.faults


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.chdir(tmp_path)
    return make_run(Path("runs").absolute())


def rm(*words: str | Path) -> int:
    return cli.main(["runs", "rm", *map(str, words)])


def only_a_config(path: Path) -> None:
    (path / "config.json").write_text('{"name": "my project"}')
    (path / "src").mkdir()
    (path / "src" / "main.c").touch()


def empty_with_a_config(path: Path) -> None:
    (path / "config.json").write_text("{}")


def a_run_with_notes(path: Path) -> None:
    path.rmdir()
    make_run(path.parent).path.rename(path)
    (path / "notes.md").touch()


def a_run_with_a_picture(path: Path) -> None:
    a_run_with_notes(path)
    (path / "notes.md").rename(path / "pictures" / "holiday.jpg")


def a_run_with_a_link(path: Path) -> None:
    a_run_with_notes(path)
    (path / "notes.md").unlink()
    (path / "pictures" / "film.npz").symlink_to("/etc/passwd")


FOREIGN = [
    only_a_config,
    empty_with_a_config,
    a_run_with_notes,
    a_run_with_a_picture,
    a_run_with_a_link,
]


@pytest.mark.parametrize("make", FOREIGN)
@pytest.mark.parametrize("inside", [True, False])
def test_what_is_not_only_a_run_stays(
    run: RunDir, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], inside: bool
) -> None:
    path = run.path.parent / "project" if inside else Path("project").absolute()
    path.mkdir()
    make(path)
    before = sorted(path.rglob("*"))
    for words in (path, "--yes"), ("project" if inside else "./project", "--yes"):
        assert rm(*words) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.rglob("*")) == before


def test_a_run_goes_by_name_and_elsewhere_by_its_absolute_path(run: RunDir) -> None:
    elsewhere = make_run(Path("elsewhere").absolute())
    assert rm(f"./elsewhere/{elsewhere.name}", "--yes") == 2 and elsewhere.exists()
    assert rm(elsewhere.path, "--yes") == 0 and not elsewhere.path.exists()
    assert rm(run.name, run.name, "--yes") == 0 and not run.path.exists()


def test_without_a_terminal_nobody_is_asked_and_nothing_goes(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    run.replay_path.touch()
    assert rm(run.name) == 2 and rm(run.name, "--replay") == 2
    assert "add --yes" in capsys.readouterr().err
    assert run.replay_path.exists()


def test_the_working_directory_stays(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (run.path, run.checkpoints):
        monkeypatch.chdir(place)
        assert rm(run.path, "--yes") == 2 and run.exists()


def test_one_wrong_name_deletes_nothing(run: RunDir) -> None:
    assert rm(run.name, "nothing", "--yes") == 2 and run.exists()


@pytest.mark.parametrize("damage", ["config", "events", "both"])
def test_a_damaged_run_can_be_removed(run: RunDir, damage: str) -> None:
    with EventWriter(run.events_path, 0) as writer:
        writer.emit(STARTED)
    if damage in ("config", "both"):
        run.config_path.write_text("{")
    if damage in ("events", "both"):
        run.events_path.write_text("junk")
    assert rm(run.name, "--yes") == 0 and not run.path.exists()


@pytest.mark.parametrize("directory", ["file", "file/below", "a" * 5000, "nowhere"])
def test_a_run_whose_replay_cannot_be_where_it_says_can_be_removed(
    run: RunDir, directory: str
) -> None:
    Path("file").touch()
    text = run.config_path.read_text()
    wanted = f'"directory": "{Path(directory).absolute()}"'
    run.config_path.write_text(text.replace('"directory": ""', wanted))
    assert wanted in run.config_path.read_text()
    assert cli.main(["runs"]) == 0
    assert rm(run.name, "--yes") == 0 and not run.path.exists()


@pytest.mark.parametrize("lock", ["missing", "empty"])
def test_a_full_disk_does_not_keep_a_run(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    if lock == "empty":
        run.lock_path.touch()
        monkeypatch.setattr(os, "pwrite", full)
    else:
        monkeypatch.setattr(run_lock, "open_regular", full)
    monkeypatch.setattr(os, "rename", full)
    monkeypatch.setattr(Path, "rename", full)
    assert rm(run.name, "--yes") == 0 and not run.path.exists()


HOLD = """
import sys, time
from pathlib import Path
from dreamer_async.store.run_lock import lock_file
from dreamer_async.store.regular_file import open_regular
fd = open_regular(Path(sys.argv[1]), 2)
print(lock_file(fd), flush=True)
sys.stdin.readline()
"""


def test_a_live_ring_without_its_lock_is_left_alone(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    run.replay_path.touch()
    words = [sys.executable, "-c", HOLD, str(run.replay_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, text=True, stdin=pipe, stdout=pipe) as trainer:
        assert trainer.stdout is not None and trainer.stdout.readline() == "True\n"
        assert rm(run.name, "--yes") == rm(run.name, "--replay", "--yes") == 73
        assert run.replay_path.exists() and "a trainer is running" in capsys.readouterr().err
        trainer.kill()
    assert rm(run.name, "--yes") == 0, "the lock went with its process"


def test_a_session_whose_trainer_was_killed_can_be_removed(run: RunDir) -> None:
    (run.control / address.NAME).touch()
    assert rm(run.name, "--yes") == 0 and not run.path.exists()


def test_a_sweep_whose_removal_was_interrupted_can_be_removed(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = SweepDir(run.path.parent / "sweep-toy")
    sweep.write(Sweep(VERSION, "toy", (), (Job("catch-s0", "catch", "tiny", 0),)))
    left = sweep.path / f".del-{'0' * 16}"
    left.mkdir()
    (sweep.path / f".tmp-{'1' * 16}").touch()
    assert cli.main(["runs"]) == 0
    assert f"{left.name} (" in capsys.readouterr().err
    (sweep.path / "notes.md").touch()
    assert rm(sweep.name, "--yes") == 2, "the control"
    (sweep.path / "notes.md").unlink()
    assert rm(sweep.name, "--yes") == 0 and not sweep.path.exists()


def test_what_killed_commands_left_is_listed_and_swept(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    root, replays = run.path.parent, Path("replays").absolute()
    replays.mkdir()
    other = make_run(root, f"replay.directory={replays}")
    left = [root / f".del-{'0' * 16}", replays / "dreamer-async-gone-00000000.ring.tmp"]
    left[0].mkdir()
    (left[0] / "x").write_bytes(b"x" * 5000)
    left[1].touch()
    stay = [root / ".del-mine", root / f".new-{'1' * 16}", replays / "other.ring.tmp"]
    for path in stay:
        path.mkdir()
    assert cli.main(["runs"]) == 0
    err = capsys.readouterr().err
    assert re.search(rf"{left[0].name} \([\d.]+ kB\) was left by a killed command", err)
    assert f"{left[1].name} (0 bytes) was left by a killed command" in err
    assert err.count("\n") == 2 and all(path.exists() for path in left)
    assert rm(other.name, "--yes") == 0
    assert not any(path.exists() for path in left) and all(path.exists() for path in stay)
    os.utime(stay[1], (1, 1))
    assert removal.leftovers(root) == [stay[1]], "one that became no run within an hour"


def test_last_is_the_run_that_began_last_whatever_its_name(tmp_path: Path) -> None:
    runs = {}
    for name, began in {"b": 100.0, "c": 300.0, "a": 200.0}.items():
        made = make_run(tmp_path)
        with EventWriter(made.events_path, 0, clock=lambda began=began: began) as writer:
            writer.emit(STARTED)
        runs[name] = RunDir(made.path.rename(tmp_path / name))
    assert [run.name for run in list_runs(tmp_path)] == ["c", "a", "b"]
    with EventWriter(runs["b"].events_path, 1, clock=lambda: 400.0) as writer:
        writer.emit(STARTED)  # a resume does not make it another run
    assert RunDir.find(tmp_path, "last") == runs["c"]
    with EventWriter(make_run(tmp_path).events_path, 0, clock=lambda: 1e300) as writer:
        writer.emit(STARTED)
    assert list_runs(tmp_path)[0].began() < 1e12, "nothing begins after its file was written"
    new = make_run(tmp_path)
    assert RunDir.find(tmp_path, "last") == new


def test_links_in_the_last_run_are_refused_as_in_any(run: RunDir) -> None:
    run.log_path.symlink_to("/etc/passwd")
    assert cli.main(["runs", "show", "last"]) == 2
