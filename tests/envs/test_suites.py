"""Every suite: its tasks step as promised, and look as their protocols say."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from dreamer_async import envs
from dreamer_async.config import SUITES, resolve
from dreamer_async.envs import needs
from dreamer_async.envs.spec import ActionSpec, ObsSpec
from dreamer_async.envs.suites import control, dmc, minigrid, procgen, vizdoom
from dreamer_async.envs.vector import VectorEnv
from tests.rollouts import streams

STEPS = 50
SAMPLE = [
    ("dmc-proprio", "cartpole_balance"),
    ("dmc-proprio", "finger_spin"),
    ("dmc-proprio", "quadruped_walk"),
    ("procgen", "coinrun"),
    ("minigrid", "empty-5x5"),
    ("minigrid", "babyai-gotolocal"),
    ("box2d", "lunar_lander"),
    ("mujoco", "hopper"),
    ("metaworld", "reach"),
    ("vizdoom", "basic"),
]
"""One or two tasks of each suite that envs/test_pool.py does not step."""
EVERY = [
    (suite, task)
    for suite in (
        *("atari", "atari100k", "dmc-proprio", "dmc-vision", "procgen", "minigrid", "vizdoom"),
        *("box2d", "mujoco", "metaworld"),
    )
    for task in envs.tasks(suite)
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # VizDoom leaves a file _vizdoom.ini where it is started


def make(suite: str, task: str, **options: Any) -> VectorEnv:
    if lacking := envs.missing(suite):
        pytest.skip(lacking[0])
    defaults: dict[str, Any] = {"num_envs": 2, "seed": 0}
    return envs.make(suite, task, **(defaults | options))


def check(suite: str, task: str, steps: int = STEPS) -> None:
    """Random steps keep every promise, and one seed gives the same bytes with any threads."""
    with make(suite, task) as env:
        expected = streams(env, steps)
        assert env.spec == envs.spec(suite, task)
    with make(suite, task, threads=1, batch_size=1) as env:
        assert streams(env, steps) == expected


@pytest.mark.parametrize(("suite", "task"), [s for s in SAMPLE if s != ("minigrid", "empty-5x5")])
def test_another_seed_gives_another_start(suite: str, task: str) -> None:
    with make(suite, task, num_envs=1) as one, make(suite, task, num_envs=1, seed=1) as other:
        assert streams(one, 5) != streams(other, 5)


@pytest.mark.parametrize(("suite", "task"), SAMPLE)
def test_a_task_of_each_suite_steps_as_promised(suite: str, task: str) -> None:
    check(suite, task)


def test_drawn_tasks_step_as_promised() -> None:
    check("dmc-vision", "cartpole_balance", steps=3)


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "task"), EVERY)
def test_every_task_steps_as_promised(suite: str, task: str) -> None:
    check(suite, task, steps=5 if suite == "dmc-vision" else STEPS)


def test_every_suite_has_a_preset_and_a_task() -> None:
    assert set(SUITES) == set(envs.suites())
    for suite in SUITES:
        assert resolve(suite, envs.default_task(suite)).env.suite == suite


def test_names_are_those_of_envpool() -> None:
    known = set(needs.import_envpool().list_all_envs())
    named = [dmc.env_id(task) for task in dmc.VISION + dmc.OTHERS]
    named += [procgen.env_id(task) for task in envs.tasks("procgen")]
    named += [vizdoom.env_id(task) for task in vizdoom.TASKS]
    for ids in (control.BOX2D, control.MUJOCO, control.METAWORLD, minigrid.ENV_IDS):
        named += ids.values()
    assert set(named) <= known and len(named) == len(set(named))
    absent = {name for name in known if name.startswith(("MiniGrid-", "BabyAI-"))} - set(named)
    of_newer_versions = {"MiniGrid-MultiRoom-N4-S5-v1"}  # 1.2.7
    assert absent - of_newer_versions == {"BabyAI-SynthS5R2-v0"}


def test_benchmarks_have_their_sizes() -> None:
    assert len(dmc.PROPRIO) == 18 and envs.tasks("dmc-proprio")[:18] == dmc.PROPRIO
    assert len(dmc.VISION) == 20 and envs.tasks("dmc-vision")[:20] == dmc.VISION
    assert len(procgen.BENCHMARK) == 16 and envs.tasks("procgen")[:16] == procgen.BENCHMARK


DM_CONTROL = {
    "cartpole_balance": {"position": 3, "velocity": 2},
    "finger_spin": {"position": 4, "velocity": 3, "touch": 2},
    "walker_walk": {"orientations": 14, "height": 1, "velocity": 9},
    "quadruped_walk": {
        "egocentric_state": 44,
        "torso_velocity": 3,
        "torso_upright": 1,
        "imu": 6,
        "force_torque": 24,
    },
    "humanoid_walk": {
        "joint_angles": 21,
        "head_height": 1,
        "extremities": 12,
        "torso_vertical": 3,
        "com_velocity": 3,
        "velocity": 27,
    },
    "humanoid_run_pure_state": {"position": 28, "velocity": 27},
}


@pytest.mark.parametrize("task", DM_CONTROL)
def test_dmc_shows_what_dm_control_shows(task: str) -> None:
    spec = envs.spec("dmc-proprio", task)
    assert {name: entry.shape[0] for name, entry in spec.obs.items()} == DM_CONTROL[task]
    assert spec.action.kind == "continuous" and spec.frames_per_step == 1


def test_a_key_to_hide_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dmc.HIDDEN, "walker_walk", frozenset({"target"}))
    with pytest.raises(ValueError, match=r"no .*target.* to hide"):
        envs.spec("dmc-proprio", "walker_walk")


def test_dmc_vision_shows_one_picture() -> None:
    spec = envs.spec("dmc-vision", "walker_walk")
    assert spec.obs == {"image": ObsSpec((64, 64, 3), "uint8")}
    assert (dmc.camera("quadruped_run"), dmc.camera("walker_run")) == (2, 0)


def test_episodes_of_dmc_have_1000_steps_and_only_the_time_limit_ends_them() -> None:
    with make("dmc-proprio", "cartpole_balance", num_envs=1) as env:
        env.start()
        for step in range(1002):
            rows = env.recv()
            assert rows.is_first[0] == (step in (0, 1001))
            assert rows.is_last[0] == (step == 1000) and not rows.is_terminal[0]
            assert 0 <= rows.reward[0] <= 1
            env.send(np.zeros((1, 1), np.float32), rows.env_id)


def test_tiles_and_missions_are_categories() -> None:
    spec = envs.spec("minigrid", "MiniGrid-GoToDoor-5x5-v0")
    assert spec.obs["object"] == ObsSpec((49,), "int32", 11)
    assert spec.action == ActionSpec("discrete", 7)
    words = minigrid.words_of(b"go to the red door, then stop\0\0", 8).tolist()
    known = [minigrid.WORDS[word] for word in ("go", "to", "the", "red", "door", "then")]
    assert words == [*known, 1, 0]
    assert minigrid.words_of(b"go to the red door", 3).tolist() == known[:3]


def test_missions_of_babyai_consist_of_known_words_and_differ() -> None:
    with make("minigrid", "babyai-bosslevel", num_envs=64) as env:
        env.start()
        missions = env.recv().obs["mission"]
    assert (missions != 1).all()
    assert (missions != 0).any(1).all() and len({row.tobytes() for row in missions}) > 30


def test_a_mission_that_never_changes_is_not_shown() -> None:
    assert "mission" not in envs.spec("minigrid", "empty-5x5").obs
    assert "mission" in envs.spec("minigrid", "fetch-5x5-n2").obs
    assert len(minigrid.ONE_MISSION) == 62


@pytest.mark.slow
@pytest.mark.parametrize("task", minigrid.ONE_MISSION)
def test_these_missions_never_change(task: str) -> None:
    pool = needs.import_envpool().make(minigrid.ENV_IDS[task], "gymnasium", num_envs=32, seed=0)
    missions = pool.reset()[0]["mission"]
    assert (missions == missions[0]).all()


def test_another_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = needs.library("libnowhere.so.5", "on Debian: apt install nowhere")
    assert "apt install nowhere" in nowhere.missing()
    assert needs.library("libc.so.6", "").missing() == ""
    with pytest.raises(envs.MissingNeed, match=r"procgen needs libnowhere.so.5: .* apt install"):
        needs.require("procgen", (needs.ENVPOOL, nowhere))


@pytest.mark.parametrize("brings", [("libOpenGL-4c5f.so.0", "libEGL-48f7.so.1"), ("libQt6Gui.so",)])
def test_what_envpool_brings_is_not_asked_of_the_system(
    brings: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its versions 1.2.5 and 1.2.7 do on a machine that has no such library."""
    for name in ("envpool/__init__.py", *(f"envpool.libs/{file}" for file in brings)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "envpool", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", Mock(side_effect=OSError("no such file")))
    graphics = "libOpenGL-4c5f.so.0" in brings
    assert (needs.ENVPOOL.missing() == "", needs.QT.missing() == "") == (graphics, not graphics)
    lacking = (needs.QT if graphics else needs.ENVPOOL).missing()
    assert "apt install libqt5core5a" in lacking if graphics else "libopengl0" in lacking
    assert graphics or lacking.count("no such file; on Debian: apt install") == 2
    with pytest.raises(envs.MissingNeed, match="procgen needs "):
        needs.require("procgen", (needs.ENVPOOL, needs.QT))


def test_a_library_that_envpool_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "libOpenGL.so.0: cannot open shared object file: No such file or directory"
    (tmp_path / "envpool.py").write_text(f"raise ImportError({said!r})")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "envpool", raising=False)
    monkeypatch.setattr(needs, "ENVPOOL", needs.library("libOpenGL.so.9", "apt install libopengl0"))
    with pytest.raises(envs.MissingNeed, match=r"needs envpool: libOpenGL.so.9.* libopengl0"):
        needs.import_envpool()
    monkeypatch.setattr(needs, "ENVPOOL", needs.library("libc.so.6", ""))
    with pytest.raises(envs.MissingNeed, match=f"needs envpool: {said}"):
        needs.import_envpool()


def test_a_driver_that_cannot_draw_is_said_before_it_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(needs, "_DRAW", "print('no driver', file=sys.stderr); sys.exit(134)")
    with pytest.raises(envs.MissingNeed, match=r"134, it said: no driver\); on Debian"):
        needs.require_drawing.__wrapped__()
