"""A trained agent in three lines, in the units of the environments it was trained in."""

from __future__ import annotations

import functools
import json
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from tiny_run import TINY

import dreamer_async
from dreamer_async import envs
from dreamer_async.agent.states import RSSMState
from dreamer_async.config import resolve, to_dict
from dreamer_async.envs.native import space_json
from dreamer_async.envs.suites.gym import ALLOWED
from dreamer_async.run import pipeline, saved_spec
from dreamer_async.run.saved_agent import SavedAgent
from dreamer_async.store import checkpoint
from dreamer_async.store.run_dir import RunDir, RunNotFound
from tests.envs import gym_spaces

OWN = "tests.envs.gym_spaces:"
VIEWS = {"Pictures": ('env.kinds={"tiles": "category"}',)}


def train(root: Path, suite: str, task: str, *overrides: str) -> RunDir:
    """A run of a few updates."""
    settings = (*TINY, "env.num_envs=2", "train.steps=80", *overrides)
    config = resolve(suite, task, size="tiny", overrides=settings)
    run = RunDir.create(root, f"{suite}-{task}", config=to_dict(config))
    assert pipeline.main(run, plain=False, resume=False) == 0
    return run


Trained = Callable[..., RunDir]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trains each task once."""
    root = tmp_path_factory.mktemp("runs")

    @functools.cache
    def once(suite: str, task: str) -> RunDir:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(ALLOWED, task)
            return train(root, suite, task, *VIEWS.get(task.removeprefix(OWN), ()))

    return once


@pytest.fixture
def agent(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], SavedAgent]:
    """Loads the agent of an environment of tests/envs/gym_spaces.py where nothing may be built."""

    def load(name: str) -> SavedAgent:
        run = trained("gym", OWN + name)
        monkeypatch.delenv(ALLOWED, raising=False)
        monkeypatch.setattr(envs, "spec_of", lambda env: pytest.fail(f"{env} is built"))
        return dreamer_async.load(run.path, "cpu")

    return load


def play(agent: SavedAgent, env: gymnasium.Env[Any, Any], steps: int = 20) -> list[Any]:
    """Take real steps of whole episodes; the actions."""
    taken: list[Any] = []
    obs, _ = env.reset(seed=1)
    for _ in range(steps):
        taken.append(agent.act(obs))
        assert env.action_space.contains(taken[-1]), taken[-1]
        obs, _, terminated, truncated, _ = env.step(taken[-1])
        if terminated or truncated:
            agent.reset()
            obs, _ = env.reset()
    return taken


# -- three lines -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["EveryKind", "Start", "Pictures"])
def test_an_agent_plays_its_environment(agent: Callable[[str], SavedAgent], name: str) -> None:
    env: gymnasium.Env[Any, Any] = getattr(gym_spaces, name)()
    ours = agent(name)
    assert ours.observation_space == env.observation_space
    assert ours.action_space == env.action_space
    taken = play(ours, env)
    assert len({repr(action) for action in taken}) > 1, "it always does the same"


def test_pendulum_gets_torque_up_to_its_bounds(trained: Trained) -> None:
    agent = dreamer_async.load(trained("gym", "Pendulum-v1").path, "cpu")
    taken = np.array(play(agent, gymnasium.make("Pendulum-v1"), 100))
    assert taken.shape == (100, 1) and taken.dtype == np.float32
    assert np.abs(taken).max() > 1, "what is decided, -1 to 1, is not scaled to -2 to 2"


def test_toys_take_the_keys_of_their_spec(trained: Trained) -> None:
    agent = dreamer_async.load(trained("toy", "reach").path, "cpu")
    assert isinstance(agent.observation_space, gymnasium.spaces.Dict)
    assert list(agent.observation_space) == list(agent.spec.obs) == ["vector"]
    action = agent.act({"vector": np.zeros(4, np.float32)})
    assert agent.action_space.contains(action)
    with pytest.raises(ValueError, match="no 'vector', which its space names"):
        agent.act(np.zeros(4, np.float32))


def test_it_serves_one_thread_at_a_time(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = dreamer_async.load(trained("toy", "reach").path, "cpu")
    obs = {"vector": np.zeros(4, np.float32)}
    act, inside, go = agent.policy.act, threading.Event(), threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        inside.set()
        go.wait()
        return act(*args, **kwargs)

    monkeypatch.setattr(agent.policy, "act", slow)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(agent.act, obs)
        inside.wait()
        for call in (lambda: agent.act(obs), lambda: agent.step(obs, None)):
            with pytest.raises(RuntimeError, match=r"one caller at a time: .*one for each"):
                call()
        go.set()
        assert agent.action_space.contains(first.result())
    assert agent.action_space.contains(agent.act(obs)), "whoever waits is served"


def test_episodes_are_remembered_until_reset(trained: Trained) -> None:
    """The same seed: one agent that saw something before, one that did not, one that forgot."""
    ours, fresh, forgetful = (
        dreamer_async.load(trained("toy", "reach").path, "cpu", seed=3) for _ in range(3)
    )
    for agent in (ours, fresh, forgetful):
        agent.act({"vector": np.full(4, 0.5, np.float32)})
    forgetful.reset()
    fresh = dreamer_async.load(trained("toy", "reach").path, "cpu", seed=3)
    fresh.generator.set_state(ours.generator.get_state())
    obs = {"vector": np.full(4, -0.5, np.float32)}
    one, two, three = (agent.act(obs) for agent in (ours, fresh, forgetful))
    assert np.array_equal(two, three) and not np.array_equal(one, two)


def test_greedy_actions_are_the_likeliest(trained: Trained) -> None:
    """The same latent state twice: one action is sampled, the other is the mean."""
    agent = dreamer_async.load(trained("toy", "reach").path, "cpu", seed=0)
    again = dreamer_async.load(trained("toy", "reach").path, "cpu", seed=0)
    obs = {"vector": np.zeros(4, np.float32)}
    sampled, carry = agent.step(obs, None)
    greedy, kept = again.step(obs, None, greedy=True)
    assert carry.stoch.equal(kept.stoch) and not np.array_equal(sampled, greedy)
    mean, _ = agent.policy.pol(RSSMState(carry.deter, carry.stoch).feat)
    np.testing.assert_array_equal(greedy, np.clip(mean[0].numpy(), -1, 1))
    np.testing.assert_array_equal(kept.action.numpy(), mean.numpy())


# -- batches -----------------------------------------------------------------------------------


def batch(agent: SavedAgent, rows: int) -> dict[str, np.ndarray]:
    return {n: np.zeros((rows, *s.shape), s.dtype) for n, s in agent.spec.obs.items()}


def test_rows_act_alone_and_can_start_anew(trained: Trained) -> None:
    """Rows do not mix, and is_first wipes the carry: row 1 restarted equals a fresh row."""
    path = trained("toy", "reach").path
    ours, fresh = (dreamer_async.load(path, "cpu", seed=3) for _ in range(2))
    _, carry = ours.step(batch(ours, 2), None, [True, True])
    _, restarted = ours.step(batch(ours, 2), carry, [False, True])
    assert not np.array_equal(restarted.deter[0].numpy(), restarted.deter[1].numpy())
    _, new = fresh.step(batch(fresh, 2), None, [True, True])
    np.testing.assert_allclose(restarted.deter[1].numpy(), new.deter[1].numpy(), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*Casting input x to numpy array")  # by itself, of Box ()
def test_a_vector_environment_of_gymnasium_is_played(
    agent: Callable[[str], SavedAgent],
) -> None:
    """Of every kind at once: each environment insists on its space."""
    ours = agent("EveryKind")
    env: Any = gymnasium.vector.SyncVectorEnv([gym_spaces.EveryKind] * 3)
    obs, _ = env.reset(seed=0)
    first = np.ones(3, bool)
    for _ in range(20):
        obs, _, terminated, truncated, _ = env.step(ours.act(obs, first))
        first = terminated | truncated


def test_numbers_of_rows_that_differ_are_named(trained: Trained) -> None:
    agent = dreamer_async.load(trained("toy", "reach").path, "cpu")
    with pytest.raises(ValueError, match="is_first is of 3 rows, but 2 observations came"):
        agent.act(batch(agent, 2), [True] * 3)
    with pytest.raises(ValueError, match="4 observations: is_first must be given"):
        agent.act(batch(agent, 4))
    with pytest.raises(ValueError, match="carry is of 1 rows, but 4 observations came"):
        agent.step(batch(agent, 4), agent.initial(), [False] * 4)
    for flags in (True, [[True, False]], ["yes", "no"], [0.5, 1]):
        with pytest.raises(ValueError, match="is_first must be a list of bools"):
            agent.act(batch(agent, 2), flags)
    agent.act(batch(agent, 2), [True, True])
    with pytest.raises(ValueError, match="one of 2 environments, this one is of 1: call reset"):
        agent.act({"vector": np.zeros(4)})
    with pytest.raises(ValueError, match="of 2 environments, this one is of 3"):
        agent.act(batch(agent, 3), [True, True, False])
    agent.act(batch(agent, 3), [True] * 3)
    agent.reset()
    agent.act({"vector": np.zeros(4)})


# -- what does not fit -------------------------------------------------------------------------


def sample(agent: SavedAgent) -> Any:
    agent.observation_space.seed(1)
    return agent.observation_space.sample()


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("Pictures", "frame", np.full((3, 20, 24), 0.5), "frame is float64, .* Box(0, 255, (3, 20"),
        ("Pictures", "frame", np.zeros((20, 24), np.uint8), "frame has shape [20, 24], .* [3, 20,"),
        ("Pictures", "bright", np.full((20, 24, 1), 200.0), "bright reaches 200 to 200, .* 0 to 1"),
        (
            "Pictures",
            "tiles",
            np.full((16, 16), 11, np.uint8),
            "tiles[0, 0] is 11, .* no class of 0.0 to 10.0",
        ),
        ("EveryKind", "Discrete", 99, "Discrete is 99, .* -1 to 1; Discrete must be of Discrete(3"),
        ("EveryKind", "Discrete", -2, "Discrete is -2, which is no class of -1 to 1"),
        ("EveryKind", "Box", np.array([0, np.nan], np.float32), "Box[1] is nan, .* not finite"),
        (
            "EveryKind",
            "Box",
            np.zeros((3, 2, 2)),
            "Box has shape [3, 2, 2], but its space says [2]",
        ),
        ("EveryKind", "Box", "0, 0", "Box must be numbers, not '0, 0'"),
        ("EveryKind", "Text", "abx", "Text[2] is 'x', which is no character"),
        ("EveryKind", "Tuple", (np.zeros(2),), "no 'Tuple/1', which its space names"),
    ],
)
def test_what_does_not_fit_is_named(
    agent: Callable[[str], SavedAgent], name: str, key: str, value: Any, words: str
) -> None:
    ours = agent(name)
    pattern = ".*".join(map(re.escape, words.split(".*")))
    with pytest.raises(ValueError, match=pattern) as error:
        ours.act({**sample(ours), key: value})
    assert "\n" not in str(error.value)
    ours.act(sample(ours))  # nothing was remembered of it


# -- finding and loading -----------------------------------------------------------------------


def test_runs_are_found_by_name_path_and_checkpoint(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained("toy", "reach")
    path = next(checkpoint.candidates(run.checkpoints))
    root = run.path.parent
    found = [dreamer_async.load(where) for where in (path, str(path), run.path, str(run.path))]
    found.append(dreamer_async.load(run.name, runs_dir=root))
    monkeypatch.chdir(root)
    found.append(dreamer_async.load(run.name))
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("DREAMER_RUNS_DIR", str(root))
    found.append(dreamer_async.load(run.name))
    assert {agent.path for agent in found} == {path}
    (tmp_path / "runs").mkdir()
    with pytest.raises(RunNotFound, match="there are no runs in"):
        dreamer_async.load(runs_dir=tmp_path / "runs")
    with pytest.raises(RunNotFound, match="did you mean"):
        dreamer_async.load(run.name[:-1], runs_dir=root)
    with pytest.raises(checkpoint.CheckpointError, match=": it is no run"):
        dreamer_async.load(tmp_path)
    begun = RunDir.create(tmp_path, "begun", config={})
    with pytest.raises(checkpoint.CheckpointError, match="nothing was saved yet"):
        dreamer_async.load(begun.path)


def older(run: RunDir, target: Path, **changed: Any) -> Path:
    """A copy of a run whose manifest has something else in it."""
    copy = target / run.name
    shutil.copytree(run.path, copy)
    for path in checkpoint.candidates(copy / "checkpoints"):
        manifest = json.loads((path / checkpoint.MANIFEST).read_text()) | changed
        manifest[checkpoint.OWN_HASH] = checkpoint._manifest_hash(manifest)
        (path / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    return copy


def test_code_of_an_earlier_run_must_be_named_again(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = OWN + "Start"
    copy = older(trained("gym", name), tmp_path, spec=None)
    monkeypatch.setenv(ALLOWED, "")
    with pytest.raises(checkpoint.CheckpointError, match=re.escape(f"(in Python: task='{name}')")):
        dreamer_async.load(copy)
    with pytest.raises(checkpoint.CheckpointError, match="'os:abort' is not this run's task"):
        dreamer_async.load(copy, task="os:abort")
    agent = dreamer_async.load(copy, "cpu", task=name)
    assert agent.act(-1) in (-1, 0, 1)


def test_code_must_be_named_to_be_played(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    name = OWN + "Start"
    run = trained("gym", name)
    monkeypatch.setenv(ALLOWED, "")
    with pytest.raises(ValueError, match="must be named again"):
        dreamer_async.evaluate(run.path, 1, device="cpu")
    played = dreamer_async.evaluate(run.path, 2, device="cpu", task=name)
    assert played.scores == (15.0, 15.0) and played.lengths == (5, 5)


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: [],
        lambda spec: {**spec, "obs": {"vector": [[10**12], "float32", 0]}},
        lambda spec: {**spec, "action": ["continuous", -2, []]},
        lambda spec: {**spec, "native": {"observation": {"kind": "Box"}, "action": {}}},
        lambda spec: {**spec, "native": {"observation": {"kind": "Discrete", "n": 2}}},
        lambda spec: {**spec, "native": {"observation": {"shape": [10**12], "dtype": "int8"}}},
        lambda spec: {**spec, "native": {"observation": {"shape": [1], "dtype": "S99999999"}}},
    ],
)
def test_a_spec_that_is_none_is_refused(trained: Trained, tmp_path: Path, change: Any) -> None:
    run = trained("toy", "reach")
    spec = json.loads((newest_path(run) / checkpoint.MANIFEST).read_text())[saved_spec.KEY]
    with pytest.raises(checkpoint.CheckpointError, match="step-"):
        dreamer_async.load(older(run, tmp_path, spec=change(spec)), "cpu")


def newest_path(run: RunDir) -> Path:
    return next(checkpoint.candidates(run.checkpoints))


def test_the_spec_of_a_checkpoint_is_that_of_its_suite(trained: Trained) -> None:
    for suite, task in (("toy", "reach"), ("gym", "Pendulum-v1")):
        agent = dreamer_async.load(trained(suite, task).path, "cpu")
        assert agent.spec == envs.spec_of(agent.config.env)
        assert agent.spec.native == envs.spec_of(agent.config.env).native


def test_what_a_manifest_cannot_hold_is_left_out() -> None:
    many = gymnasium.spaces.Box(
        np.arange(200_000, dtype=np.float64), np.full(200_000, 1e9), dtype=np.float64
    )
    spec = envs.spec("toy", "reach")
    large = replace(spec, native=space_json.native(many, many))
    assert saved_spec.encode(large) is None
    parts: Any = {"kind": "Discrete", "n": 2}
    for _ in range(40):
        parts = {"kind": "Tuple", "spaces": [parts]}
    assert saved_spec.encode(replace(spec, native=parts)) is None
    assert saved_spec.encode(replace(spec, native={"kind": "Box", "low": float("nan")})) is None
    assert saved_spec.encode(spec) is not None
