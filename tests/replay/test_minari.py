"""Minari datasets: what one episode becomes, and a dataset that Minari itself has written."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from dreamer_async import envs
from dreamer_async.config import ConfigError, resolve
from dreamer_async.replay.dataset import dataset_of
from dreamer_async.replay.episodes import Episodes
from dreamer_async.replay.minari_dataset import ROOT, as_arrays, located

NEEDS_MINARI = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("minari", "h5py", "PIL")),
    reason="needs the extra minari",
)
SEEN = spaces.Dict(
    {
        "arm": spaces.Dict({"joints": spaces.Box(-3, 3, (2,), np.float64)}),
        "tool": spaces.Discrete(3, start=1),
        "goal": spaces.Text(4, charset="ab", min_length=1),
        "camera": spaces.Box(0, 255, (32, 32, 3), np.uint8),
    }
)
DONE = spaces.Box(-2, 2, (3,), np.float32)


@dataclass
class Lived:
    """An episode, by the names that Minari has for its parts."""

    observations: Any
    actions: Any
    rewards: Any
    terminations: Any
    truncations: Any


def lived(steps: int, *, terminated: bool = True, seed: int = 0) -> Lived:
    """An episode of so many actions whose numbers count its steps."""
    rng, count = np.random.default_rng(seed), np.arange(steps + 1)
    ends = np.arange(steps) == steps - 1
    return Lived(
        observations={
            "arm": {"joints": np.stack([count / 10, -count / 10], 1)},
            "tool": 1 + count % 3,
            "goal": ["ab"[: 1 + step % 2] for step in count.tolist()],
            "camera": np.full((steps + 1, 32, 32, 3), 7, np.uint8),
        },
        actions=rng.uniform(-2, 2, (steps, 3)).astype(np.float32),
        rewards=np.arange(1.0, steps + 1),
        terminations=ends & terminated,
        truncations=ends & (not terminated),
    )


def test_an_action_stands_with_what_was_seen_when_it_was_chosen() -> None:
    episode = lived(4)
    arrays = as_arrays(episode, SEEN)
    assert {"arm/joints", "tool", "goal", "camera"} < set(arrays)
    assert {len(array) for array in arrays.values()} == {5}
    np.testing.assert_array_equal(arrays["action"][:4], episode.actions)
    assert arrays["reward"].tolist() == [0, 1, 2, 3, 4]
    assert arrays["is_first"].tolist() == [True, False, False, False, False]
    assert arrays["is_last"].tolist() == arrays["is_terminal"].tolist() == [False] * 4 + [True]
    assert not as_arrays(lived(4, terminated=False), SEEN)["is_terminal"].any()


def test_an_observation_that_is_no_dictionary_has_a_name() -> None:
    episode = replace(lived(2), observations=np.zeros((3, 5)))
    assert as_arrays(episode, spaces.Box(-1, 1, (5,)))["observation"].shape == (3, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.zeros((3, 3))}, "4 rewards, but 3 actions"),
        ({"terminations": np.array([False, True, False, True])}, "goes on after step 2"),
        ({"observations": lived(3).observations}, "4 observations arm/joints, not 5"),
    ],
)
def test_an_episode_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_arrays(replace(lived(4), **changes), SEEN)


def dataset(root: Path, monkeypatch: pytest.MonkeyPatch, *episodes: Lived) -> Path:
    """Let Minari write a dataset, with images as they are."""
    minari = importlib.import_module("minari")
    episode_buffer = importlib.import_module("minari.data_collector").EpisodeBuffer
    monkeypatch.setenv(ROOT, str(root))
    minari.create_dataset_from_buffers(
        "own/arm-v0",
        [episode_buffer(**vars(episode)) for episode in episodes],
        observation_space=SEEN,
        action_space=DONE,
        algorithm_name="none",
        author="nobody",
        author_email="nobody@example.org",
        code_permalink="https://example.org",
        jpeg_encoding=False,
    )
    return located("own/arm-v0")


def stored(path: Path, **kinds: str) -> dict[str, np.ndarray[Any, Any]]:
    """What a run of one environment stores of a dataset, without the environment of it."""
    config = resolve("session", "arm", size="tiny", overrides=[f"replay.source={path}"])
    args, left = dataset_of(path).spaces(kinds)
    config = replace(config, env=replace(config.env, args=args, kinds=left, num_envs=1))
    source = Episodes(path, config, envs.spec_of(config.env))
    source.check()
    pieces = list(source.pieces(0))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


@NEEDS_MINARI
def test_what_minari_has_written_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dataset(tmp_path, monkeypatch, lived(4), lived(2, terminated=False, seed=1))
    data = dataset_of(path)
    assert (data.label, data.steps, data.actions(None)) == ("own/arm-v0", 5 + 3, "after")
    with pytest.raises(ConfigError, match="--actions before"):
        data.actions("before")
    rows = stored(path)
    assert rows["arm/joints"][:, 0].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0, 0.1, 0.2])
    assert rows["tool"].tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
    assert rows["goal"].tolist()[:2] == [[1, 0, 0, 0], [1, 2, 0, 0]]
    assert rows["camera"].shape == (8, 32, 32, 3) and (rows["camera"] == 7).all()
    np.testing.assert_allclose(rows["action"][:4], lived(4).actions / 2, atol=1e-6)
    assert rows["reward"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert rows["is_first"].tolist() == [step in (0, 5) for step in range(8)]
    assert rows["is_last"].tolist() == [step in (4, 7) for step in range(8)]
    assert rows["is_terminal"].tolist() == [step == 4 for step in range(8)]
    hidden = stored(path, goal="hidden", camera="hidden")
    assert "goal" not in hidden and "camera" not in hidden and "arm/joints" in hidden


@NEEDS_MINARI
def test_an_action_outside_its_space_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = replace(lived(4), actions=np.full((4, 3), 5, np.float32))
    path = dataset(tmp_path, monkeypatch, lived(4), wild)
    with pytest.raises(ConfigError, match=r"arm-v0, episode 1: actions go from 5\.0 to 5\.0, not"):
        stored(path)


def pretended(root: Path, name: str, **said: str) -> Path:
    """A folder that says that it is a dataset."""
    folder = root / name / "data"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text(json.dumps(said))
    return folder.parent


def test_a_dataset_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"`minari download D4RL/door/human-v2` fetches one"):
        located("D4RL/door/human-v2")
    assert not (tmp_path / "none").exists(), "nothing is created"
    monkeypatch.setenv(ROOT, str(tmp_path))
    path = pretended(tmp_path, "D4RL/door/human-v2")
    assert located("D4RL/door/human-v2") == path
    with pytest.raises(ConfigError, match="did you mean D4RL/door/human-v2"):
        located("D4RL/door/human-v1")
    with pytest.raises(ConfigError, match="unknown Minari dataset"):
        located(f"../{tmp_path.name}/D4RL/door/human-v2")


def test_without_minari_a_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pretended(tmp_path, "a-v0", observation_space="{}", action_space="{}")
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ConfigError, match=r"pip install 'dreamer-async\[minari\]'"):
        dataset_of(path)


def test_code_that_a_dataset_names_is_not_run(tmp_path: Path) -> None:
    """Minari would make the environment of a dataset that has no spaces."""
    path = pretended(tmp_path, "a-v0", env_spec='{"id": "a-v0", "entry_point": "os:abort"}')
    with pytest.raises(ConfigError, match="does not say which spaces it is of"):
        dataset_of(path)
