"""Run directories: names, the lock across processes, requests, atomic files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamer_async.store import json_file, run_dir
from dreamer_async.store.json_file import read_json, write_json_atomic
from dreamer_async.store.run_dir import RUN_NAME, RunDir, RunNotFound, list_runs
from dreamer_async.store.run_lock import RunInUse


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "runs", "toy-catch", config={"a": 1})


# -- making and finding ----------------------------------------------------------------------


def test_create_names_a_run_by_time_and_task(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "new" / "runs", "gym-ALE/Pong-v5", config={"a": 1})
    assert run.name[8] == "-"
    assert run.name.endswith("-gym-ALE-Pong-v5")
    assert read_json(run.config_path) == {"a": 1}
    assert run.checkpoints.is_dir()
    assert run.control.stat().st_mode & 0o777 == 0o700
    assert os.listdir(tmp_path / "new" / "runs") == [run.name]


def test_runs_of_the_same_second_have_names_of_their_own_in_order(tmp_path: Path) -> None:
    made = [RunDir.create(tmp_path, task, config={}, now=lambda: 1e9) for task in "zayb"]
    assert list_runs(tmp_path) == made[::-1]
    assert RunDir.find(tmp_path, "last") == made[-1]


@given(st.text(max_size=150))
def test_any_task_makes_a_valid_name_inside_the_root(
    tmp_path_factory: pytest.TempPathFactory, task: str
) -> None:
    root = tmp_path_factory.mktemp("runs")
    run = RunDir.create(root, task, config={}, now=lambda: 1e9)
    assert RUN_NAME.fullmatch(run.name)
    assert run.path.parent == root


def test_a_failed_create_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_dir, "write_json_atomic", fail)
    with pytest.raises(OSError, match="No space"):
        RunDir.create(tmp_path, "toy", config={})
    assert os.listdir(tmp_path) == []


def test_find_by_last_name_and_path(run: RunDir) -> None:
    root = run.path.parent
    assert RunDir.find(root, "last") == run
    assert RunDir.find(root, run.name) == run
    assert RunDir.find(Path("/nowhere"), str(run.path)) == run


HOSTILE = [
    "",
    ".",
    "..",
    "../..",
    "../runs",
    "/etc",
    "/",
    "-rf",
    "a\nb",
    "a\0b",
    "\x1b[2J",
    "a b",
    "ünï",
    "a" * 129,
    "*",
    "~",
    "$(touch x)",
    "runs/../../etc",
    ".hidden",
    "con\u202etrol",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_not_found_and_touch_nothing(run: RunDir, name: str) -> None:
    root = run.path.parent
    before = sorted(root.parent.rglob("*"))
    with pytest.raises(RunNotFound) as error:
        RunDir.find(root, name)
    assert str(error.value).isprintable()
    assert sorted(root.parent.rglob("*")) == before


def test_a_typo_gets_the_nearest_name(run: RunDir) -> None:
    with pytest.raises(RunNotFound, match=f"did you mean {run.name}"):
        RunDir.find(run.path.parent, run.name[:-1] + "x")


@pytest.mark.parametrize("ref", ["swift", "swiff"])
def test_the_name_that_was_asked_for_means_the_newest_run_of_that_name(
    tmp_path: Path, ref: str
) -> None:
    for day in (0.0, 86400.0):
        RunDir.create(tmp_path, "swift", config={}, now=lambda day=day: day)
    newest = list_runs(tmp_path)[0]
    with pytest.raises(RunNotFound) as error:
        RunDir.find(tmp_path, ref)
    assert str(error.value).endswith(f"(did you mean {newest.name}?)")  # and not the older one


def test_no_runs_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match="dreamer-async train"):
        RunDir.find(tmp_path / "runs", "last")


def test_links_are_refused(run: RunDir, tmp_path: Path) -> None:
    root = run.path.parent
    (root / "link").symlink_to(run.path)
    with pytest.raises(RunNotFound):
        RunDir.find(root, "link")
    assert list_runs(root) == [run]
    run.log_path.symlink_to(tmp_path / "precious")
    with pytest.raises(RunNotFound, match="symbolic link"):
        RunDir.find(root, run.name)


def test_directories_that_are_no_runs_are_not_listed(run: RunDir) -> None:
    root = run.path.parent
    (root / "empty").mkdir()
    (root / "file").touch()
    (root / ".new-123").mkdir()
    assert list_runs(root) == [run]
    assert list_runs(root / "file") == []


# -- the lock --------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from dreamer_async.store.run_dir import RunDir
with RunDir(Path(sys.argv[1])).lock():
    print("locked", flush=True)
    sys.stdin.readline()
"""
ASK = """
import sys
from pathlib import Path
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.run_lock import RunInUse
run = RunDir(Path(sys.argv[1]))
owner = run.owner()
try:
    with run.lock():
        print("free", owner)
except RunInUse as error:
    print("busy", owner["pid"], error)
"""


@contextmanager
def held_elsewhere(run: RunDir) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, run.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "locked\n"
    try:
        yield child
    finally:
        child.communicate("\n", timeout=120)


def ask(run: RunDir) -> str:
    line = [sys.executable, "-c", ASK, str(run.path)]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def test_a_held_run_names_its_owner_and_is_refused(run: RunDir) -> None:
    with held_elsewhere(run) as holder:
        owner = run.owner()
        assert owner is not None
        assert owner["pid"] == holder.pid
        with (
            pytest.raises(RunInUse, match=f"in use by pid {holder.pid} on .* since 20"),
            run.lock(),
        ):
            pass
        assert run.owner() == owner  # asking and being refused took nothing away
    assert run.owner() is None
    with run.lock():
        pass


@pytest.mark.faults
def test_a_killed_holder_frees_the_run_at_once(run: RunDir) -> None:
    for _ in range(3):
        with held_elsewhere(run) as holder:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            assert run.owner() is None
            with run.lock():
                pass
    assert run.lock_path.exists()


def test_looking_at_ones_own_lock_does_not_drop_it(run: RunDir) -> None:
    """Closing any descriptor of the file would: the negative control does just that."""
    with run.lock():
        for _ in range(3):
            assert run.owner() == {"pid": os.getpid()} | (run.owner() or {})
            assert RunDir(run.path).owner() is not None
        with pytest.raises(RunInUse, match="by this process"), RunDir(run.path).lock():
            pass
        assert ask(run).startswith(f"busy {os.getpid()} ")
        open(run.lock_path).close()
        assert ask(run).startswith("free")


def test_owner_from_another_thread(run: RunDir) -> None:
    seen = []
    with run.lock():
        thread = threading.Thread(target=lambda: seen.append(run.owner()))
        thread.start()
        thread.join()
        assert ask(run).startswith("busy")
    assert seen[0]["pid"] == os.getpid()


def test_a_forked_child_does_not_think_that_it_holds_the_lock(run: RunDir) -> None:
    with run.lock():
        child = os.fork()
        if child == 0:
            owner = run.owner()
            os._exit(0 if owner is not None and owner["pid"] == os.getppid() else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert ask(run).startswith("busy")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"pid": "x"}', b"\xff" * 100, b"[" * 4096]
)
def test_nonsense_in_the_lock_file_is_survived(run: RunDir, content: bytes) -> None:
    with held_elsewhere(run) as holder:
        run.lock_path.write_bytes(content)
        owner = run.owner()
        assert owner is not None
        assert owner["pid"] == holder.pid


def test_an_unlocked_run_has_no_owner_whatever_the_file_says(run: RunDir) -> None:
    assert run.owner() is None
    run.lock_path.write_text(json.dumps({"pid": 1, "host": "x", "since": 0}))
    assert run.owner() is None


# -- requests --------------------------------------------------------------------------------


def test_requests_come_once_and_in_order(run: RunDir) -> None:
    run.request("checkpoint")
    run.request("evaluate", episodes=3)
    run.request("stop")
    taken = run.take_requests()
    assert [r.command for r in taken] == ["checkpoint", "evaluate", "stop"]
    assert taken[1].args == {"episodes": 3}
    assert run.take_requests() == []
    assert os.listdir(run.control) == []


def test_a_trainer_ignores_requests_from_before_its_time(run: RunDir) -> None:
    run.request("stop")
    with run.lock():
        assert run.take_requests() == []
        run.request("stop")
        assert len(run.take_requests()) == 1


def test_what_is_no_request_is_thrown_away(run: RunDir, tmp_path: Path) -> None:
    for number, text in enumerate(
        [
            "",
            "[]",
            '{"command": "rm"}',
            '{"command": ["stop"]}',
            '{"command": "stop", "args": 3}',
            '{"command": "stop", "time": "now"}',
            '{"command": "stop", "time": 1' + "0" * 400 + "}",
            "[" * 100_000,
            "x" * (json_file.JSON_LIMIT + 1),
        ]
    ):
        (run.control / f"{number}.json").write_text(text)
    precious = tmp_path / "precious.json"
    precious.write_text('{"command": "stop", "args": {}, "time": 0}')
    (run.control / "a-link.json").symlink_to(precious)
    os.mkfifo(run.control / "a-pipe.json")
    run.request("stop")
    assert [r.command for r in run.take_requests()] == ["stop"]
    assert os.listdir(run.control) == []
    assert precious.exists()


def test_requests_of_other_users_do_not_count(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    run.request("stop")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert run.take_requests() == []


def test_a_missing_control_directory_has_no_requests_and_is_made_for_one(run: RunDir) -> None:
    run.control.rmdir()
    assert run.take_requests() == []
    run.request("stop")
    assert len(run.take_requests()) == 1


def test_the_lock_closes_the_control_directory_to_other_users(run: RunDir) -> None:
    run.control.chmod(0o777)
    with run.lock():
        assert run.control.stat().st_mode & 0o777 == 0o700
    run.control.rmdir()
    with run.lock():
        assert run.control.stat().st_mode & 0o777 == 0o700


def planted_link(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = run.path.parent / "elsewhere"
    run.control.rename(elsewhere)
    run.control.symlink_to(elsewhere)


def planted_file(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    run.control.rmdir()
    run.control.touch()


def of_another_user(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)


@pytest.mark.parametrize("plant", [planted_link, planted_file, of_another_user])
def test_a_planted_control_directory_is_refused_and_the_lock_is_free_again(
    run: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[RunDir, pytest.MonkeyPatch], None],
) -> None:
    plant(run, monkeypatch)
    with (
        pytest.raises(
            PermissionError, match=r"control is not a directory that belongs to this user"
        ),
        run.lock(),
    ):
        pytest.fail("nobody may train here")
    assert run.owner() is None


# -- files -----------------------------------------------------------------------------------


def test_replay_files_elsewhere_have_a_name_of_this_run_only(tmp_path: Path) -> None:
    first = RunDir.create(tmp_path / "a", "toy", config={}, now=lambda: 1e9)
    second = RunDir.create(tmp_path / "b", "toy", config={}, now=lambda: 1e9)
    assert first.name == second.name
    paths = {*first.replay_paths("/mnt"), *second.replay_paths("/mnt")}
    assert len(paths) == 4
    assert all(path.parent == Path("/mnt") for path in paths)
    assert first.replay_paths() == (first.replay_path, first.latents_path)


def test_free_replay_removes_the_files_wherever_they_are(run: RunDir, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "other.ring").touch()
    for path in (*run.replay_paths(), *run.replay_paths(str(elsewhere))):
        path.write_bytes(b"x" * 8192)
    assert run.free_replay(str(elsewhere)) >= 4 * 8192
    assert os.listdir(elsewhere) == ["other.ring"]
    assert run.free_replay(str(elsewhere)) == 0


def test_json_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json_atomic(path, {"x": [1, 2]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_atomic(path, float("nan"))

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_json_atomic(path, {"x": 3})
    assert read_json(path) == {"x": [1, 2]}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("data", [b"", b"\xff", b"{", b"[" * 100_000, b" " * (1 << 21)])
def test_bad_json_is_a_value_error_with_the_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.json"):
        read_json(path)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a pipe, not a regular file"):
        read_json(tmp_path / "pipe")
    with pytest.raises(OSError, match="link"):
        read_json(tmp_path / "link")


def test_a_directory_among_the_requests_is_none_and_keeps_nothing_open(tmp_path: Path) -> None:
    """It cannot be deleted like a file, so that it is there again a second later."""
    run = RunDir.create(tmp_path, "toy-catch")
    (run.control / "x.json").mkdir()
    run.request("stop")
    before = set(os.listdir("/proc/self/fd"))
    assert [request.command for request in run.take_requests()] == ["stop"]
    for _ in range(20):
        assert run.take_requests() == []
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_run_that_is_held_follows_its_directory(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "toy-catch")
    moved = tmp_path / "moved"
    with run.held() as held:
        assert held.name == run.name and not held.removed() and held.place() == run
        run.path.rename(moved)
        write_json_atomic(held.config_path, {"a": 1})
        assert read_json(moved / "config.json") == {"a": 1}
        assert not held.removed() and run.removed(), "the path is the control"
        assert held.place() == RunDir(moved) and run.place() == run
        run.path.mkdir()  # something else has its place
        assert held.place() == RunDir(moved)
        shutil.rmtree(moved)
        assert held.removed() and held.place() == RunDir(moved)
