"""Worker processes: rows, actions, and what happens when a worker goes wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dreamer_async.envs import EnvError, processes
from dreamer_async.envs.processes import ProcessEnv, Source
from dreamer_async.envs.spec import ActionSpec, ObsSpec
from dreamer_async.envs.suite import Options
from tests.rollouts import streams


def make(
    name: str = "Walk",
    num_envs: int = 2,
    batch_size: int = 0,
    seed: int = 0,
    **kwargs: object,
) -> ProcessEnv:
    source = Source("tests", name.lower(), f"tests.faulty_envs:{name}", kwargs)
    options = Options(num_envs, batch_size or num_envs, seed)
    return ProcessEnv(source, options, hang_seconds=60)


def step(env: ProcessEnv, count: int) -> None:
    """Receive and send again."""
    for _ in range(count):
        rows = env.recv()
        env.send(np.ones(len(rows.env_id), np.int32), rows.env_id)


def test_specs_come_from_the_spaces() -> None:
    with make(num_envs=1) as env:
        assert env.spec.obs == {
            "image": ObsSpec((16, 32, 1), "uint8"),
            "robot_pose": ObsSpec((4,), "float32"),
            "room": ObsSpec((), "int32", 5),
        }
        assert env.spec.action == ActionSpec("discrete", 3)


def test_streams_depend_on_the_seed_and_not_on_the_batches() -> None:
    with make() as env:
        expected = streams(env, 50)
    with make(num_envs=3, batch_size=2) as env:
        got = streams(env, 50)
    assert got[0] == expected[0] and got[1] == expected[1]
    with make(num_envs=1, seed=1) as env:
        assert streams(env, 50)[0] != expected[0]


def test_a_time_limit_is_not_terminal() -> None:
    ends = []
    with make(num_envs=1) as env:
        env.start()
        for _ in range(3 * 8):
            rows = env.recv()
            if rows.is_last[0]:
                ends.append(bool(rows.is_terminal[0]))
            env.send(np.zeros(1, np.int32), rows.env_id)
    assert ends == [True, True, False]


@pytest.mark.parametrize(
    ("action", "reward"), [((-1, -1), -2), ((1, 1), 7), ((0, 0), 2.5), ((-9, 9), 6)]
)
def test_actions_are_clipped_and_scaled_to_the_bounds(
    action: tuple[float, float], reward: float
) -> None:
    with make("Steer", num_envs=1) as env:
        env.start()
        env.send(np.array([action], np.float32), env.recv().env_id)
        assert env.recv().reward[0] == reward


def test_workers_are_not_in_lockstep() -> None:
    with make(num_envs=2, batch_size=1, pause=0.05) as env:
        env.start()
        env.recv()
        env.recv()
        env.send(np.zeros(1, np.int32), np.zeros(1, np.int32))
        assert env.recv().env_id == [0]
        assert env.in_flight == 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise", ["faulty_envs.py", "ArithmeticError: the wheel came off"]),
        ("nan", ["the reward is nan, which is not finite (in step 3 of episode 1)"]),
        ("nan observation", ["robot.pose[0, 0] is nan, which is not finite (in step 3"]),
        ("class", ["observation room is 8, which is no class of 3 to 7 (in step 3 of episode 1)"]),
        ("half a class", ["room is 3.5, which is no class of 3 to 7"]),
        ("shape", ["image has shape [16, 16], but its space says [16, 32]"]),
        ("turned", ["image has shape [32, 16], but its space says [16, 32]"]),
        ("type", ["image is float64, but its space says uint8"]),
        ("large", ["robot.pose[0, 1] is 1e+300, which does not fit float32 (in step 3"]),
        ("old step", ["step must return (observation, reward, terminated"]),
        ("sys.exit", ["faulty_envs.py", "SystemExit: no licence"]),
        ("end of file", ["faulty_envs.py", "EOFError: the recording is over"]),
        ("interrupt", ["faulty_envs.py", "KeyboardInterrupt"]),
        ("no observation", ["failed: the observation is None"]),
        ("no key", ["has no 'robot.pose'", "a dictionary with ['image']"]),
        ("plain", ["has no 'image'", "an array of uint8 [16, 32]"]),
        ("reward none", ["failed: the reward must be a number, not None"]),
        ("reward text", ["the reward must be a number, not '1' (str)"]),
        ("reward array", ["the reward must be a number, not an array of float64 [2]"]),
        ("reward large", ["the reward is 1e+39, which does not fit float32 (in step 3"]),
        ("terminated", ["failed: terminated must be True or False, not None"]),
        ("truncated", ["truncated must be True or False, not an array of bool [2]"]),
    ],
)
def test_a_fault_is_reported_with_the_environment_and_its_traceback(
    fault: str, words: list[str]
) -> None:
    with make("Faulty", num_envs=1, fault=fault) as env:
        env.start()
        with pytest.raises(EnvError, match="environment 0 of tests faulty") as error:
            step(env, 9)
    assert all(word in str(error.value) for word in words), error.value
    ours = fault not in ("raise", "sys.exit", "end of file", "interrupt")
    assert ("Traceback" not in str(error.value)) == ours, "one line where it says everything"


def test_a_fault_of_a_later_episode_names_it() -> None:
    with make("Faulty", num_envs=1, fault="nan observation", episode=2) as env:
        env.start()
        with pytest.raises(EnvError, match=r"\(in step 3 of episode 2\)"):
            step(env, 20)


def test_the_processes_of_environments_are_known_also_after_one_was_replaced() -> None:
    with make("Walk", num_envs=2) as env:
        env.start()
        env.recv()
        before = env.workers()
        assert len(set(before)) == 2 and all(map(_runs, before))
        os.kill(before[0], signal.SIGKILL)
        env.send(np.ones(2, np.int32), np.arange(2, dtype=np.int32))
        env.recv()
        after = env.workers()
        assert after[0] != before[0] and after[1] == before[1] and all(map(_runs, after))


def test_what_is_clear_is_taken_as_what_it_is() -> None:
    """Values in other types and with other axes of length 1 make the very same rows."""
    with make("Walk", num_envs=1) as plain, make("Loose", num_envs=1) as loose:
        assert streams(plain, 30) == streams(loose, 30)


def test_an_old_reset_is_reported() -> None:
    with make("OldReset", num_envs=1) as env:
        env.start()
        with pytest.raises(EnvError, match="reset must return"):
            env.recv()


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("constructor", EnvError, "could not be built:(.|\n)*no such simulator"),
        ("sequence", ValueError, "observation space Sequence.* has no fixed length: wrap"),
        ("one of", ValueError, "action space OneOf.* is another one in every step: wrap"),
    ],
)
def test_an_environment_that_cannot_be_used_is_refused(
    fault: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make("Faulty", num_envs=1, fault=fault)


def test_a_missing_environment_is_named() -> None:
    with pytest.raises(ValueError, match="no attribute 'Nowhere'"):
        make("Nowhere", num_envs=1)
    with pytest.raises(ValueError, match="no attribute 'Stear'; did you mean Steer"):
        make("Stear", num_envs=1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoSpaces", "NoSpaces. has no observation_space and no action_space"),
        ("Number", r"is 3 \(int\); name a class or a function"),
    ],
)
def test_what_is_no_environment_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, num_envs=1)


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["exit", "kill", "hang"])
def test_a_worker_that_dies_once_is_replaced_and_its_episode_cut(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    if fault == "hang":  # all have much time, until a worker hangs: then an hour has gone by
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * marker.exists())
        monkeypatch.setattr(processes, "time", clock)
        monkeypatch.setattr(ProcessEnv, "_patience", lambda env: 0.05)
    with make("Faulty", fault=fault, marker=str(marker)) as env:
        env.start()
        firsts = []
        for _ in range(20):
            rows = env.recv()
            firsts.append(rows.is_first.tolist())
            assert not rows.reward[rows.is_first].any()
            env.send(np.ones(2, np.int32), rows.env_id)
        counted = np.array(firsts).T.tolist()
        notices = env.notices()
        assert not env.notices()
    regular = [step % 8 == 0 for step in range(20)]
    cut = [step == 0 or (step >= 3 and (step - 3) % 8 == 0) for step in range(20)]
    assert sorted(counted) in ([regular, cut], [cut, regular], [cut, cut])
    assert len(notices) == counted.count(cut)
    how = {"exit": "exit code 3", "kill": "signal 9", "hang": "not answering for 60 seconds"}[fault]
    for notice in notices:
        assert f"1 of at most 3 times) and its episode cut, because it died: {how}" in notice
        assert ("faulty_envs.py" in notice) == (fault == "hang"), "where it hung is said"


@pytest.mark.faults
def test_a_worker_that_keeps_dying_is_given_up() -> None:
    with make("Faulty", num_envs=1, fault="exit") as env:
        env.start()
        with pytest.raises(EnvError, match="died 4 times, the last time: exit code 3"):
            step(env, 99)


@pytest.mark.faults
def test_a_crash_in_native_code_says_where_in_the_environment() -> None:
    with make("Faulty", num_envs=1, fault="crash") as env:
        env.start()
        with pytest.raises(EnvError, match="the last time: signal 11") as error:
            step(env, 99)
    assert re.search(r"faulty_envs.py.* in fail", str(error.value))


@pytest.mark.faults
def test_a_replaced_worker_does_not_repeat_its_stream() -> None:
    with make(num_envs=1) as env:
        before = streams(env, 5)[0]
        env.recv()
        env._workers[0].process.kill()
        env._workers[0].process.wait()
        after = streams(env, 5)[0]
    assert [row[0] for row in before] != [row[0] for row in after]


def test_workers_leave_signals_of_the_terminal_to_the_trainer() -> None:
    with make(num_envs=1) as env:
        env.start()
        step(env, 2)
        before = env.workers()
        for terminal in (signal.SIGINT, signal.SIGHUP):
            os.kill(before[0], terminal)
        step(env, 2)
        assert not env.recv().is_first[0]
        assert env.workers() == before and env.notices() == []


@pytest.mark.faults
def test_an_idle_worker_that_was_killed_is_replaced_when_it_is_asked() -> None:
    with make(num_envs=2, batch_size=1) as env:
        env.start()
        ids = [int(env.recv().env_id[0]) for _ in range(2)]
        assert sorted(ids) == [0, 1]
        os.kill(env._workers[0].process.pid, signal.SIGKILL)
        env._workers[0].process.wait()
        env.send(np.zeros(1, np.int32), np.zeros(1, np.int32))
        rows = env.recv()
        assert rows.env_id == [0] and rows.is_first[0]
        env.send(np.zeros(1, np.int32), np.ones(1, np.int32))
        assert not env.recv().is_first[0]


@pytest.mark.faults
def test_close_ends_a_recv_that_waits_and_a_worker_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "CLOSE_SECONDS", 0.5)
    env = make("Faulty", num_envs=1, fault="hang")
    env.start()
    step(env, 3)
    errors: list[BaseException] = []

    def receive() -> None:
        try:
            env.recv()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    env.close()
    thread.join(60)
    assert not thread.is_alive() and "closed" in str(errors[0])
    assert env._workers[0].process.poll() is not None


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["hang", "hang in C", "deaf", "stop"])
@pytest.mark.parametrize("how", ["kill", "exit"])
def test_workers_do_not_outlive_the_trainer(how: str, fault: str) -> None:
    """Also one that hangs in a step, as nobody will ever read its answer."""
    code = textwrap.dedent(
        """
        import sys, time
        import numpy as np
        from dreamer_async.envs.processes import ProcessEnv, Source
        from dreamer_async.envs.suite import Options
        source = Source("tests", "faulty", "tests.faulty_envs:Faulty", {"fault": sys.argv[2]})
        env = ProcessEnv(source, Options(2, 1, 0))
        env.start()
        seen = {0: 0, 1: 0}
        while max(seen.values()) < 4:
            row = env.recv()
            env.send(np.zeros(1, np.int32), row.env_id)
            seen[int(row.env_id[0])] += 1
            if seen[int(row.env_id[0])] == 3:
                break
        print(*(worker.process.pid for worker in env._workers), flush=True)
        if sys.argv[1] == "kill":
            time.sleep(1000)
        """
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    trainer = subprocess.Popen(
        [sys.executable, "-c", code, how, fault],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert trainer.stdout is not None
    pids = [int(pid) for pid in trainer.stdout.readline().split()]
    assert len(pids) == 2
    if how == "kill":
        trainer.kill()
    trainer.wait()
    trainer.stdout.close()
    deadline = time.monotonic() + 120
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker is still there"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_shared_memory_has_no_name_that_could_stay_behind() -> None:
    with make(num_envs=1) as env:
        assert os.fstat(env._block.fd).st_nlink == 0


def test_a_worker_uses_one_thread_and_leaves_our_environment_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with make(num_envs=1) as env:
        theirs = Path(f"/proc/{env._workers[0].process.pid}/environ").read_bytes().split(b"\0")
    assert b"OMP_NUM_THREADS=1" in theirs
    assert os.environ["OMP_NUM_THREADS"] == "7"
