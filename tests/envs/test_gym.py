"""Gymnasium ids: envpool where it has them, worker processes elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec

from dreamer_async import envs
from dreamer_async.cli import main
from dreamer_async.config import resolve, to_dict
from dreamer_async.envs.pool import PoolEnv
from dreamer_async.envs.processes import ProcessEnv
from dreamer_async.envs.suites import gym
from dreamer_async.envs.suites.gym import ALLOWED
from dreamer_async.envs.worker import NoEnvironment, build
from dreamer_async.store.run_dir import RunDir
from tests.rollouts import streams


def test_an_id_of_envpool_is_served_by_envpool() -> None:
    with envs.make("gym", "CartPole-v1", num_envs=2, seed=0) as env:
        assert isinstance(env, PoolEnv)
        streams(env, 50)


def test_another_id_runs_in_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "_envpool_ids", lambda: ())
    task = "MountainCarContinuous-v0"
    assert task in gymnasium.registry
    with envs.make("gym", task, num_envs=2, seed=0) as env:
        assert isinstance(env, ProcessEnv)
        streams(env, 50)
        assert env.spec == envs.spec("gym", task)


def test_both_ways_look_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    there = envs.spec("gym", "CartPole-v1")
    monkeypatch.setattr(gym, "_envpool_ids", lambda: ())
    assert envs.spec("gym", "CartPole-v1") == there


def test_images_that_do_not_fit_are_made_to() -> None:
    spec = envs.spec("gym", "Pong-v5")
    assert spec.obs["image"].shape == (96, 96, 4)
    assert "84x84x4 with the axes c h w, padded" in spec.taken["image"].words


def test_a_name_that_imports_code_must_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOWED, raising=False)
    name = "tests.faulty_envs:Walk"
    for look_up in (envs.resolve_task, envs.spec):
        with pytest.raises(envs.UnknownTask, match="named again on the command line: --task tests"):
            look_up("gym", name)
    monkeypatch.setenv(ALLOWED, "tests.faulty_envs:Steer")
    with pytest.raises(envs.UnknownTask, match="named again"):
        envs.make("gym", name, num_envs=1, seed=0)
    monkeypatch.setenv(ALLOWED, name)
    with envs.make("gym", name, num_envs=2, seed=0) as env:
        assert isinstance(env, ProcessEnv)
        streams(env, 20)


def test_code_is_found_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_game.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Mine-v0', entry_point='tests.faulty_envs:Walk')\n"
        "def build():\n    return gymnasium.make('Mine-v0')\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("my_game:build", "my_game:Mine-v0"):
        monkeypatch.setenv(ALLOWED, name)
        assert envs.spec("gym", name).action.size == 3
        assert "my_game" not in sys.modules, "our own process imports nothing of it"


def test_a_run_of_code_is_only_resumed_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ALLOWED, "")
    name = "tests.faulty_envs:Walk"
    config = resolve("gym", name, size="tiny")
    run = RunDir.create(tmp_path, "stranger", config=to_dict(config))
    for command in ("resume", "eval", "dream"):
        words = [command, run.name, "--runs-dir", str(tmp_path)]
        assert main(words) == 2
        assert "must be named again" in capsys.readouterr().err
        assert main([*words, "--task", "os:abort"]) == 2
        assert "is not this run's task" in capsys.readouterr().err
    assert main(["eval", run.name, "--runs-dir", str(tmp_path), "--task", name]) == 65
    assert "no valid checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("Unlimited", 2, "observation space Sequence"),
        ("Unbuilt", 69, "OSError: no such simulator"),
        ("Nothing", 2, "no attribute 'Nothing'"),
    ],
)
def test_nothing_is_created_for_what_cannot_be_built(
    name: str, code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    task = f"tests.faulty_envs:{name}"
    assert main(["train", "gym", "--task", task, "--plain", "--runs-dir", str(runs)]) == code
    assert words in capsys.readouterr().err and not runs.exists()


ROOMS = """
import gymnasium
class Heavy(gymnasium.Env):
    def __init__(self):
        raise gymnasium.error.DependencyNotInstalled("Box3D is not installed,\\nrun pip")
gymnasium.register("Room-v0", entry_point="tests.faulty_envs:Walk")
gymnasium.register("Heavy-v0", entry_point=Heavy)
"""


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of a user's in the current directory."""
    monkeypatch.setenv(ALLOWED, "")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    (tmp_path / "rooms.py").write_text(ROOMS)
    (tmp_path / "leaky.py").write_text("import rooms.attic\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("rooms")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rooms:Rom-v0", "Environment `Rom` doesn't exist. Did you mean: `Room`?"),
        ("rooms:Room-v7", "version `v7` for environment `Room` doesn't exist"),
        ("rooms.attic:Room", "there is no module 'rooms.attic'"),
        ("rooms.attic:Room-v0", "there is no module 'rooms.attic'"),
        ("rooms:Heavy-v0", "Box3D is not installed, run pip"),
        ("rooms:Heavy", "Box3D is not installed, run pip"),
        ("__main__:Room", "there is no module '__main__'"),
    ],
)
def test_a_name_that_is_not_there_is_one_line(
    name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["env", "check", name]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


@pytest.mark.usefixtures("rooms")
def test_a_module_that_another_one_lacks_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["env", "check", "leaky:Room"]) == 69
    said = capsys.readouterr().err
    assert "leaky.py" in said and "No module named 'rooms.attic'" in said


def test_an_id_whose_package_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = EnvSpec("Lost-v0", entry_point="no_such_simulator:Env")
    monkeypatch.setitem(gymnasium.registry, "Lost-v0", registered)
    with pytest.raises(NoEnvironment, match="needs no_such_simulator, which is not installed"):
        build("gymnasium:make", {"id": "Lost-v0"})
