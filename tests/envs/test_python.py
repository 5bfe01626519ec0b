"""Suites in worker processes: what they log and score, and adapters against faked packages."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

from dreamer_async import envs
from dreamer_async.cli import main
from dreamer_async.config import resolve, to_dict
from dreamer_async.envs.processes import ProcessEnv, Source
from dreamer_async.envs.suite import Options
from dreamer_async.envs.suites import bsuite, dmlab, minecraft
from dreamer_async.run.telemetry import EpisodeTracker
from dreamer_async.scores.suites import SuiteScores
from dreamer_async.store.events import Episode, EventWriter, read_events
from dreamer_async.store.run_dir import RunDir
from tests.rollouts import streams


def make(suite: str, task: str, **options: Any) -> Any:
    if lacking := envs.missing(suite):
        pytest.skip(lacking[0])
    defaults: dict[str, Any] = {"num_envs": 2, "seed": 0}
    return envs.make(suite, task, **(defaults | options))


@pytest.mark.parametrize(
    ("suite", "task", "steps"),
    [
        ("crafter", "reward", 300),
        ("crafter", "noreward", 50),
        ("bsuite", "catch", 50),
        ("bsuite", "deep_sea/3", 50),
        ("bsuite", "deep_sea_stochastic/0", 50),
    ],
)
def test_a_task_steps_as_promised(suite: str, task: str, steps: int) -> None:
    """Whatever the processes' memory looks like: Crafter's creatures stood in sets by address."""
    with make(suite, task) as env:
        expected = streams(env, steps)
    with make(suite, task, batch_size=1) as env:
        assert streams(env, steps) == expected


MNIST = [task for task in bsuite.DOWNLOADED if task.endswith(("/0", "/19"))]


@pytest.mark.parametrize("task", MNIST)
def test_the_experiments_on_mnist_step_once_it_is_there(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("bsuite.utils.datasets")
    images, labels = np.zeros((20, 28, 28), np.int8), np.arange(20) % 10
    monkeypatch.setattr(datasets, "load_mnist", lambda: ((images, labels), (images, labels)))
    env = bsuite.BSuite(task)
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs) and env.action_space.n == 10
    obs, reward, terminated, truncated, _ = env.step(3)
    assert env.observation_space.contains(obs) and np.isfinite(reward)
    assert terminated and not truncated


def test_without_a_network_it_is_said_where_mnist_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("bsuite.utils.datasets")

    def offline() -> None:
        raise URLError("no network")

    monkeypatch.setattr(datasets, "load_mnist", offline)
    with pytest.raises(OSError, match=r"no network.*train-images-idx3-ubyte.gz.* into /tmp/mnist"):
        bsuite.BSuite("mnist_noise/3")


@pytest.mark.slow
@pytest.mark.parametrize("task", [t for t in bsuite.TASKS if t not in bsuite.DOWNLOADED])
def test_every_setting_of_bsuite_steps_as_promised(task: str) -> None:
    with make("bsuite", task, num_envs=1) as env:
        expected = streams(env, 50)
    if task.endswith("/0"):  # the others differ in numbers only
        with make("bsuite", task, num_envs=1) as env:
            assert streams(env, 50) == expected


@pytest.mark.slow
@pytest.mark.parametrize("task", envs.tasks("memory-maze"))
def test_every_maze_steps_as_promised(task: str) -> None:
    with make("memory-maze", task) as env:
        expected = streams(env, 50)
    with make("memory-maze", task, batch_size=1) as env:
        assert streams(env, 50) == expected


# -- values to log -----------------------------------------------------------------------------


def logged(**options: Any) -> ProcessEnv:
    return ProcessEnv(Source("test", "log", "tests.faulty_envs:Logging"), Options(2, 2, 0))


def test_logged_values_arrive_with_their_rows_and_end_in_the_episode() -> None:
    tracker, ended = EpisodeTracker(2), list[Episode]()
    with logged() as env:
        assert env.spec.log == ("height", "falls") and env.spec.frames_per_step == 4
        env.start()
        for step in range(17):
            rows = env.recv()
            assert rows.log["height"].tolist() == [step % 8] * 2
            ended += tracker.update(rows, step)
            env.send(np.zeros(2, np.int32), rows.env_id)
    assert [episode.log for episode in ended] == 2 * [{"height": 7, "falls": 1}] + 2 * [
        {"height": 7, "falls": 2}
    ]


def test_environments_that_log_nothing_have_empty_logs() -> None:
    with envs.make("toy", "seek", num_envs=1, seed=0) as env:
        env.start()
        assert env.recv().log == {} and env.spec.log == ()


def episode(**unlocked: int) -> Episode:
    log = {f"achievement/{name}": float(count) for name, count in unlocked.items()}
    return Episode(100, 0, 1.0, 50, {"reward": 1.0, **log})


def test_the_score_of_crafter_is_the_geometric_mean_of_success_rates() -> None:
    logs = [episode(wood=3, coal=0).log, episode(wood=1, coal=1).log]
    scores = envs.summarize("crafter", [dict(log) for log in logs])  # type: ignore[arg-type]
    assert scores["success/wood"] == 100 and scores["success/coal"] == 50
    assert scores["score"] == pytest.approx(math.sqrt(101 * 51) - 1)
    assert envs.summarize("crafter", []) == {} and envs.summarize("atari", []) == {}


def test_scores_become_metrics_now_and_then() -> None:
    times = iter([0.0, 0.0, 0.0, 29.0, 31.0, 31.0])
    scores = SuiteScores("crafter", clock=lambda: next(times))
    assert scores.add(Episode(1, 0, 0.0, 1), 5) is None
    first = scores.add(episode(wood=1), 5)
    assert first is not None and first.values["suite/score"] == pytest.approx(100)
    assert scores.add(episode(wood=0), 6) is None
    third = scores.add(episode(wood=0), 7)
    assert third is not None and third.values["suite/success/wood"] == pytest.approx(100 / 3)


def test_scores_go_on_with_the_episodes_of_earlier_processes(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path, 0) as writer:
        for _ in range(3):
            writer.emit(episode(wood=1))
        writer.emit(replace(episode(wood=0), env_steps=999))  # beyond where the run goes on
    scores = SuiteScores("crafter", clock=lambda: 0.0)
    scores.recall(path, 100)
    said = scores.add(episode(wood=0), 5)
    assert said is not None and said.values["suite/success/wood"] == 75


def recorded(root: Path, suite: str, task: str, episodes: list[Episode]) -> str:
    run = RunDir.create(root, f"{suite}-x", config=to_dict(resolve(suite, task, size="tiny")))
    with EventWriter(run.events_path, 0) as writer:
        for each in episodes:
            writer.emit(each)
    assert len(read_events(run.events_path)[0]) == len(episodes)
    return run.name


def test_the_command_scores_all_episodes_of_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = recorded(tmp_path, "crafter", "reward", [episode(wood=1), episode(wood=0)])
    two = recorded(tmp_path, "crafter", "reward", [episode(wood=0), episode(wood=0)])
    other = recorded(tmp_path, "toy", "seek", [Episode(1, 0, 0.0, 1)])
    where = ["--runs-dir", str(tmp_path)]
    assert main(["env", "score", one, two, *where]) == 0
    lines = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert lines["episodes"] == "4" and lines["success/wood"] == "25"
    assert main(["env", "score", one, other, *where]) == 2
    assert "of one suite" in capsys.readouterr().err
    assert main(["env", "score", other, *where]) == 2
    assert "no finished episode" in capsys.readouterr().err


def test_bsuite_is_scored_by_its_own_analysis() -> None:
    """Perfect play of catch has the score 1, random play about 0."""
    if lacking := envs.missing("bsuite"):
        pytest.skip(lacking[0])
    names = (*bsuite.LOGGED, "total_regret")
    regrets = {"perfect": 0.0, "random": 1.6}
    found = {}
    for play, regret in regrets.items():
        rows: list[Mapping[str, float]] = [
            dict(zip(names, (9.0 * n, float(n), 0.0, 9.0, 1.0, regret * n), strict=True))
            for n in (1, 10, 100, 1000, 10_000)
        ]
        (found[play],) = bsuite.score([("catch/0", rows)])
    assert found["perfect"]["score"] == pytest.approx(1) and found["perfect"]["finished"]
    assert found["random"]["score"] == pytest.approx(0)
    assert (found["random"]["settings"], found["random"]["of"]) == (1, 20)


def test_the_settings_of_bsuite_are_bsuites() -> None:
    if lacking := envs.missing("bsuite"):
        pytest.skip(lacking[0])
    from bsuite import sweep  # pyright: ignore[reportMissingImports]

    assert tuple(sweep.SWEEP) == bsuite.TASKS and len(bsuite.TASKS) == 468


def test_names_without_a_setting_mean_the_first() -> None:
    assert envs.resolve_task("bsuite", "catch") == "catch/0"
    assert envs.resolve_task("bsuite", "deep_sea/12") == "deep_sea/12"
    with pytest.raises(envs.UnknownTask, match="did you mean catch"):
        envs.resolve_task("bsuite", "catch/99")


@pytest.mark.parametrize(
    ("suite", "hint"),
    [
        ("crafter", r"pip install 'dreamer-async\[crafter\]'"),
        ("bsuite", r"pip install 'dreamer-async\[bsuite\]'"),
        ("memory-maze", r"pip install 'dreamer-async\[memory-maze\]'"),
        ("dmlab", "build it from github.com/google-deepmind/lab"),
        ("minecraft", "build minerl 0.4.4 by hand"),
    ],
)
def test_a_missing_package_says_how_to_install_it(
    suite: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = suite.replace("-", "_").replace("dmlab", "deepmind_lab").replace("minecraft", "minerl")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(envs.MissingNeed, match=f"{suite} needs the package {module}.*{hint}"):
        envs.make(suite, envs.default_task(suite), num_envs=1, seed=0)


# -- packages that only a fake stands for ------------------------------------------------------


class Lab:
    """deepmind_lab.Lab as its documentation describes it: a level of three steps."""

    def __init__(self, level: str, observations: list[str], config: dict[str, str]) -> None:
        self.level, self.keys, self.config = level, observations, config
        self.calls: list[tuple[Any, ...]] = []
        self.left = 0

    def reset(self, seed: int) -> None:
        self.calls.append(("reset", seed))
        self.left = 3

    def is_running(self) -> bool:
        return self.left > 0

    def observations(self) -> dict[str, Any]:
        assert self.left, "a level that is over shows nothing"
        seen = {"RGB_INTERLEAVED": np.full((64, 64, 3), self.left, np.uint8)}
        return seen | ({"INSTR": "Pick up the Hat, hat"} if "INSTR" in self.keys else {})

    def step(self, action: Any, num_steps: int) -> float:
        assert action.dtype == np.intc and action.shape == (7,)
        self.calls.append((action.tolist(), num_steps))
        self.left -= 1
        return 2.5

    def close(self) -> None:
        self.calls.append(("close",))


def lab(task: str, monkeypatch: pytest.MonkeyPatch) -> dmlab.DMLab:
    module = ModuleType("deepmind_lab")
    vars(module)["Lab"] = Lab
    monkeypatch.setitem(sys.modules, "deepmind_lab", module)
    return dmlab.DMLab(task)


def test_dmlab_follows_the_official_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    env = lab("rooms_collect_good_objects_test", monkeypatch)
    fake: Lab = env._env
    assert fake.level == "contributed/dmlab30/rooms_collect_good_objects_train"
    assert (fake.keys, fake.config["width"]) == (["RGB_INTERLEAVED"], "64")
    assert env.action_space.n == 15 and env.frames_per_step == 4
    obs, _ = env.reset(seed=7)
    assert fake.calls == [("reset", 7)] and env.observation_space.contains(obs)
    results = [env.step(action) for action in (0, 14, 6)]
    assert fake.calls[1:] == [
        ([0, 0, 0, 1, 0, 0, 0], 4),
        ([0, 0, 0, 0, 1, 0, 0], 4),
        ([-60, *6 * [0]], 4),
    ]
    assert [result[1:4] for result in results] == 2 * [(2.5, False, False)] + [(2.5, True, False)]
    assert (results[2][0]["image"] == results[1][0]["image"]).all()
    env.reset()
    assert fake.calls[-1][0] == "reset" and fake.calls[-1][1] != 7


POPART = """
0 0 0 1 0 0 0 | 0 0 0 -1 0 0 0 | 0 0 -1 0 0 0 0 | 0 0 1 0 0 0 0 | -10 0 0 0 0 0 0
10 0 0 0 0 0 0 | -60 0 0 0 0 0 0 | 60 0 0 0 0 0 0 | 0 10 0 0 0 0 0 | 0 -10 0 0 0 0 0
-10 0 0 1 0 0 0 | 10 0 0 1 0 0 0 | -60 0 0 1 0 0 0 | 60 0 0 1 0 0 0 | 0 0 0 0 1 0 0
"""
"""The actions of the official environment, in its order."""


def test_the_actions_of_dmlab_are_the_official_ones() -> None:
    lines = POPART.strip().replace("\n", "|").split("|")
    assert list(dmlab.ACTIONS.values()) == [tuple(map(int, line.split())) for line in lines]
    assert len(dmlab.LEVELS) == 30


@pytest.mark.parametrize("task", dmlab.LEVELS)
def test_levels_of_dmlab_show_what_the_protocol_says(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = lab(task, monkeypatch)
    spoken = task.startswith("language_")
    assert env._env.keys == ["RGB_INTERLEAVED", *["INSTR"] * spoken]
    assert env._env.config == {"width": "64", "height": "64", "logLevel": "WARN"}
    obs, _ = env.reset(seed=0)
    assert set(obs) == {"image", *["instr"] * spoken} and obs["image"].shape == (64, 64, 3)
    assert "_test" not in env._env.level


def test_instructions_of_dmlab_are_a_fixed_vector_per_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = lab("language_select_described_object", monkeypatch)
    obs, _ = env.reset(seed=0)
    tokens = obs["instr"].reshape(32, 32)
    assert env.observation_space.contains(obs)
    assert (tokens[3] == tokens[5]).all() and not (tokens[2] == tokens[3]).all()  # hat , hat
    assert (tokens[6:] == tokens[-1]).all()
    expected = np.random.default_rng(0).normal(0, 1, (65536, 32)).astype(np.float32)
    assert (tokens[-1] == expected[0]).all()


class Spaces:
    """What the adapter reads of gym's spaces."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def __getitem__(self, name: str) -> Any:
        return vars(self)["spaces"][name]


class MineRL:
    """A MineRL environment by its interface: what one has is set by the test."""

    items = ("air", "log", "log2", *minecraft.ITEMS[1:])

    def __init__(self) -> None:
        types = Spaces(values=np.array(["air", "stone_pickaxe", "other"]))
        self.observation_space = Spaces(
            spaces={
                "inventory": Spaces(spaces=dict.fromkeys(self.items)),
                "equipped_items": {"mainhand": {"type": types}},
            }
        )
        self.owned = dict.fromkeys(self.items, 0)
        self.life, self.done, self.actions, self.seeds = 20.0, False, list[Any](), list[int]()
        self.error = ""

    def seed(self, seed: int) -> None:
        self.seeds.append(seed)

    def reset(self) -> dict[str, Any]:
        return self.see()

    def step(self, action: Any) -> tuple[Any, float, bool, dict[str, Any]]:
        self.actions.append(action)
        if self.error:
            return {}, 0.0, True, {"error": self.error}
        return self.see(), 0.0, self.done, {}

    def see(self) -> dict[str, Any]:
        return {
            "pov": np.zeros((64, 64, 3), np.uint8),
            "inventory": {name: np.array(count) for name, count in self.owned.items()},
            "equipped_items": {"mainhand": {"type": "stone_pickaxe"}},
            "life_stats": {"life": np.array(self.life), "food": np.array(10), "air": np.array(300)},
        }

    def close(self) -> None:
        pass


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> tuple[minecraft.Minecraft, MineRL]:
    fake, module = MineRL(), ModuleType("dreamer_async.envs.suites.minecraft_spec")
    vars(module)["build"] = lambda size, speed: fake if (size, speed) == ((64, 64), 100) else None
    monkeypatch.setitem(sys.modules, "dreamer_async.envs.suites.minecraft_spec", module)
    return minecraft.Minecraft("diamond"), fake


def act(name: str) -> int:
    return list(minecraft.ACTIONS).index(name)


def test_minecraft_rewards_each_item_once_and_changes_of_health(
    mine: tuple[minecraft.Minecraft, MineRL],
) -> None:
    env, fake = mine
    assert env.action_space.n == 25
    obs, info = env.reset(seed=3)
    assert fake.seeds == [3] and env.observation_space.contains(obs)
    assert list(obs["equipped"]) == [0, 1, 0] and obs["hunger"] == 0.5 and obs["breath"] == 1
    fake.owned["log2"] = 2
    obs, reward, *_ = env.step(act("attack"))
    assert reward == 1 and obs["inventory"].sum() == 2
    fake.owned["log2"], fake.owned["planks"], fake.life = 0, 4, 10.0
    obs, reward, _, _, info = env.step(act("craft_planks"))
    assert reward == pytest.approx(1 - 0.01 * 0.5)
    assert obs["inventory"].sum() == 4 and obs["inventory_max"].sum() == 6
    assert info["log"]["collected/log"] == info["log"]["collected/planks"] == 1
    assert fake.actions[1]["craft"] == "planks" and fake.actions[1]["attack"] == 0
    fake.owned["log"] = 1
    assert env.step(act("noop"))[1] == 0, "the second log"
    _, info = env.reset()
    assert info["log"]["collected/log"] == 1, "what one starts with is no find"
    assert env.step(act("noop"))[1] == 0


CHANGES = """
noop | attack attack=1 | turn_up camera=-15,0 | turn_down camera=15,0 | turn_left camera=0,-15
turn_right camera=0,15 | forward forward=1 | back back=1 | left left=1 | right right=1
jump jump=1 forward=1 | place_dirt place=dirt | craft_planks craft=planks | craft_stick craft=stick
craft_crafting_table craft=crafting_table | place_crafting_table place=crafting_table
craft_wooden_pickaxe nearbyCraft=wooden_pickaxe | craft_stone_pickaxe nearbyCraft=stone_pickaxe
craft_iron_pickaxe nearbyCraft=iron_pickaxe | equip_stone_pickaxe equip=stone_pickaxe
equip_wooden_pickaxe equip=wooden_pickaxe | equip_iron_pickaxe equip=iron_pickaxe
craft_furnace nearbyCraft=furnace | place_furnace place=furnace
smelt_iron_ingot nearbySmelt=iron_ingot
"""
"""The actions of the official environment, in its order, as changes of doing nothing."""


def test_the_actions_of_minecraft_are_the_official_ones(
    mine: tuple[minecraft.Minecraft, MineRL],
) -> None:
    env, fake = mine
    lines = CHANGES.strip().replace("\n", "|").split("|")
    for number, line in enumerate(lines):
        name, *changes = line.split()
        assert act(name) == number
        env.reset()
        env.step(number)
        sent = dict(fake.actions[-1])
        assert set(sent) == set(minecraft.NOOP)
        changed = {key: value for key, value in sent.items() if value != minecraft.NOOP[key]}
        spelled = {
            f"{key}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
            for key, value in changed.items()
        }
        assert spelled == set(changes), name
    assert env.action_space.n == len(lines) == 25


def test_minecraft_shows_the_official_keys(mine: tuple[minecraft.Minecraft, MineRL]) -> None:
    env, _ = mine
    obs, _ = env.reset(seed=0)
    keys = {"image", "inventory", "inventory_max", "equipped", "health", "hunger", "breath"}
    assert set(obs) == set(env.observation_space.spaces) == keys
    assert obs["image"].shape == (64, 64, 3) and len(minecraft.ITEMS) == 12


def test_a_jump_in_minecraft_goes_on_for_ten_steps(
    mine: tuple[minecraft.Minecraft, MineRL],
) -> None:
    env, fake = mine
    env.reset()
    env.step(act("jump"))
    for _ in range(11):
        env.step(act("attack"))
    jumping = [(sent["jump"], sent["forward"]) for sent in fake.actions]
    assert jumping == 10 * [(1, 1)] + 2 * [(0, 0)]
    assert [sent["attack"] for sent in fake.actions] == [0] + 11 * [1]
    env.step(act("jump"))
    env.reset()
    env.step(act("noop"))
    assert fake.actions[-1]["jump"] == 0, "a new episode begins on the ground"


def test_a_failure_of_minecraft_cuts_the_episode(mine: tuple[minecraft.Minecraft, MineRL]) -> None:
    env, fake = mine
    env.reset()
    fake.owned["log"] = 1
    before, reward, *_ = env.step(act("attack"))
    assert reward == 1
    fake.error = "the server is gone"
    obs, reward, terminated, truncated, _ = env.step(act("attack"))
    assert (reward, terminated, truncated) == (0, False, True)
    assert all((obs[key] == before[key]).all() for key in before)
    fake.error = ""
    env.reset()
    assert env.step(act("noop"))[2:4] == (False, False)


def test_minecraft_ends_by_death_or_after_36000_steps(
    mine: tuple[minecraft.Minecraft, MineRL], monkeypatch: pytest.MonkeyPatch
) -> None:
    env, fake = mine
    assert minecraft.LENGTH == 36_000
    monkeypatch.setattr(minecraft, "LENGTH", 3)
    env.reset()
    ends = [env.step(act("noop"))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    env.reset()
    fake.done = True
    assert env.step(act("noop"))[2:4] == (True, False)


def test_minecraft_keeps_the_view_between_its_limits(
    mine: tuple[minecraft.Minecraft, MineRL],
) -> None:
    env, fake = mine
    env.reset()
    for _ in range(6):
        env.step(act("turn_up"))
    env.step(act("turn_left"))
    assert [action["camera"] for action in fake.actions] == 4 * [(-15, 0)] + 2 * [(0, 0)] + [
        (0, -15)
    ]
