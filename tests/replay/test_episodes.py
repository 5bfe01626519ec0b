"""Folders of recorded episodes: forms that say the same are stored the same, others are refused."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experience import as_port, recorded_episodes, write_episodes
from gymnasium import spaces
from tiny_run import TINY

from dreamer_async import envs
from dreamer_async.config import Config, ConfigError, resolve
from dreamer_async.envs.native.actions import write_actions
from dreamer_async.envs.native.recorded import Column, stored_actions
from dreamer_async.envs.spaces import read_space
from dreamer_async.replay.dataset import dataset_of
from dreamer_async.replay.episodes import Episodes, recordings, rows_of

EPISODES = recorded_episodes()
CLASSES = 3


def config_of(folder: Path, *overrides: str) -> Config:
    return resolve(
        "toy", "catch", size="tiny", overrides=(*TINY, f"replay.source={folder}", *overrides)
    )


def stored(folder: Path, *overrides: str) -> list[dict[str, np.ndarray[Any, Any]]]:
    """What every row gets, all files in one piece."""
    config = config_of(folder, *overrides)
    source = Episodes(folder, config, envs.spec_of(config.env))
    rows = [list(source.pieces(row)) for row in range(config.env.num_envs)]
    return [{n: np.concatenate([p[n] for p in pieces]) for n in pieces[0]} for pieces in rows]


def test_the_official_form_is_stored_as_it_is(tmp_path: Path) -> None:
    rows = stored(write_episodes(tmp_path / "data", EPISODES), "env.num_envs=1")
    for name, column in rows[0].items():
        want = np.concatenate([episode[name] for episode in EPISODES])
        if name == "action":  # after the end of an episode nothing is chosen
            last = rows[0]["is_last"]
            want, column = want[~last], column[~last]
        np.testing.assert_array_equal(column, want)
        assert column.dtype == want.dtype


def test_the_form_of_ports_says_the_same(tmp_path: Path) -> None:
    official = stored(write_episodes(tmp_path / "official", EPISODES))
    ports = write_episodes(tmp_path / "ports", [as_port(e, CLASSES) for e in EPISODES])
    for mine, other in zip(official, stored(ports, "replay.source_actions=before"), strict=True):
        idle = mine["is_last"]
        for name in mine:
            keep = ~idle if name == "action" else slice(None)
            np.testing.assert_array_equal(mine[name][keep], other[name][keep], name)
    shifted = stored(write_episodes(tmp_path / "again", EPISODES), "replay.source_actions=before")
    assert not np.array_equal(shifted[0]["action"][:5], official[0]["action"][:5]), "it matters"


def test_images_are_kept_bit_for_bit(tmp_path: Path) -> None:
    pictures = recorded_episodes(4, task="catch_pixels")
    folder = write_episodes(tmp_path / "data", pictures)
    overrides = (*TINY, f"replay.source={folder}", "env.num_envs=1")
    config = resolve("toy", "catch_pixels", size="tiny", overrides=overrides)
    source = Episodes(folder, config, envs.spec_of(config.env))
    got = np.concatenate([piece["image"] for piece in source.pieces(0)])
    np.testing.assert_array_equal(got, np.concatenate([each["image"] for each in pictures]))
    assert got.dtype == np.uint8 and got.max() > 0


def test_values_of_a_gymnasium_environment_become_the_agents(tmp_path: Path) -> None:
    """CliffWalking's observation is one of 48 places, and an action one of 4."""
    rng = np.random.default_rng(0)
    episode = {
        "observation": rng.integers(48, size=30),
        "action": rng.integers(4, size=30),
        "reward": np.full(30, -1),
        "is_terminal": np.arange(30) == 29,
    }
    folder = write_episodes(tmp_path / "data", [episode])
    overrides = (*TINY, f"replay.source={folder}", "env.num_envs=1")
    config = resolve("gym", "CliffWalking-v1", size="tiny", overrides=overrides)
    spec = envs.spec_of(config.env)
    [piece] = Episodes(folder, config, spec).pieces(0)
    [name] = spec.obs
    np.testing.assert_array_equal(piece[name], episode["observation"])
    assert piece[name].dtype == np.int32 and piece["action"].dtype == np.int32
    write_episodes(folder, [episode | {"observation": episode["observation"] + 20}])
    with pytest.raises(ConfigError, match="outside its space"):
        list(Episodes(folder, config, spec).pieces(0))


@pytest.mark.parametrize("name", ["observation", "obs", "state", "vector"])
def test_an_only_observation_may_have_another_usual_name(tmp_path: Path, name: str) -> None:
    renamed = [{(name if n == "vector" else n): v for n, v in e.items()} for e in EPISODES]
    rows = stored(write_episodes(tmp_path / "data", renamed), "env.num_envs=1")
    want = np.concatenate([episode["vector"] for episode in EPISODES])
    np.testing.assert_array_equal(rows[0]["vector"], want)


def test_files_are_dealt_out_evenly_and_none_is_lost() -> None:
    rows = rows_of([5, 1, 1, 1, 1, 1], 2)
    assert rows == [[0], [1, 2, 3, 4, 5]]
    assert sorted(i for row in rows_of(list(range(1, 20)), 4) for i in row) == list(range(19))


def test_a_chunk_that_begins_inside_an_episode_is_cut_there(tmp_path: Path) -> None:
    whole = {n: np.concatenate([e[n] for e in EPISODES[:2]]) for n in EPISODES[0]}
    chunks = [{n: v[:5] for n, v in whole.items()}, {n: v[5:] for n, v in whole.items()}]
    [row] = stored(write_episodes(tmp_path / "data", chunks), "env.num_envs=1")
    want = whole["is_first"].copy()
    want[5] = True
    np.testing.assert_array_equal(row["is_first"], want)
    np.testing.assert_array_equal(row["is_last"], whole["is_last"])


@pytest.mark.parametrize("known", ["is_last", "is_terminal", "discount"])
def test_a_file_of_several_episodes_begins_one_after_each_end(tmp_path: Path, known: str) -> None:
    """Also where the file does not say so: nothing is learned across a reset."""
    joined = {n: np.concatenate([e[n] for e in EPISODES[:3]]) for n in EPISODES[0]}
    ends = joined["is_last"]
    said = {"is_last": ends, "is_terminal": ends, "discount": 1.0 - ends}[known]
    flags = ("is_first", "is_last", "is_terminal")
    file = {n: v for n, v in joined.items() if n not in flags} | {"is_terminal": ends}
    if known == "discount":
        del file["is_terminal"]
    file[known] = said
    [row] = stored(write_episodes(tmp_path / "data", [file]), "env.num_envs=1")
    np.testing.assert_array_equal(row["is_first"], joined["is_first"])
    np.testing.assert_array_equal(row["is_last"], ends)


@pytest.mark.parametrize(("most", "fits"), [(1.0, True), (255.0, False)])
def test_pictures_beyond_the_bounds_of_their_space_are_refused(most: float, fits: bool) -> None:
    """They would all be black or white."""
    space = spaces.Box(0.0, 1.0, (16, 16, 3), np.float32)
    (reader,) = read_space(space, envs.View())
    column = Column("camera", space, reader)
    value = np.linspace(0.0, most, 2 * 16 * 16 * 3, dtype=np.float32).reshape(2, 16, 16, 3)
    if fits:
        assert len(np.unique(column.read(value, "camera"))) > 200
        return
    with pytest.raises(ValueError, match="camera reaches 0 to 255, but its space says 0 to 1"):
        column.read(value, "camera")


def change(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Replace arrays of an episode; None leaves one out."""

    def changed(episode: dict[str, Any]) -> dict[str, Any]:
        new = {**episode, **{n: f(episode) if callable(f) else f for n, f in changes.items()}}
        return {name: value for name, value in new.items() if value is not None}

    return changed


MISTAKES = [
    (change(action=None), "has no 'action'"),
    (change(reward=None), "has no 'reward'"),
    (change(is_terminal=None), "neither 'is_terminal' nor 'discount'"),
    (change(vector=None), "has no 'vector', which the agent sees"),
    (change(reward=lambda e: e["reward"][1:]), "needs as many steps in every array"),
    (change(reward=lambda e: e["reward"] * np.nan), "reward has numbers that are not finite"),
    (change(reward=lambda e: np.stack([e["reward"]] * 2, 1)), "not a number for each step"),
    (change(vector=lambda e: e["vector"][:, :2]), "vector has the shape [2], not [3]"),
    (change(vector=lambda e: e["vector"] + np.inf), "vector has numbers that are not finite"),
    (change(vector=lambda e: e["vector"].astype(str)), "not numbers"),
    (change(action=lambda e: e["action"] + 1), "actions go from 1 to 3, not 0 to 2"),
    (change(action=lambda e: e["action"] - 1), "not 0 to 2"),
    (change(action=lambda e: e["action"] * 0.5), "not whole numbers"),
    (change(action=lambda e: np.full((len(e["action"]), 3), 0.5)), "not one-hot"),
    (change(is_first=lambda e: e["is_first"] + 2), "is_first is neither 0 nor 1"),
    (change(is_terminal=lambda e: ~e["is_terminal"]), "is terminal, but not the last"),
    (change(extra=lambda e: np.array([None] * len(e["reward"]))), "Python objects"),
]


@pytest.mark.parametrize(("spoil", "message"), MISTAKES)
def test_what_cannot_be_meant_is_refused_with_the_file_and_the_reason(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], dict[str, Any]], message: str
) -> None:
    folder = write_episodes(tmp_path / "data", [spoil(dict(episode)) for episode in EPISODES])
    with pytest.raises(ConfigError) as error:
        stored(folder)
    assert message in str(error.value) and str(folder) in str(error.value)


def test_files_of_different_kinds_are_refused(tmp_path: Path) -> None:
    folder = write_episodes(tmp_path / "data", EPISODES)
    np.savez(folder / "zzzz.npz", **(EPISODES[0] | {"vector": EPISODES[0]["vector"][:, :2]}))
    with pytest.raises(ConfigError, match=r"zzzz.npz has float32 \[2\] for 'vector', but 0000"):
        recordings(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x04K\x01."])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    folder = write_episodes(tmp_path / "data", EPISODES)
    (folder / "0003.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"0003.npz cannot be read"):
        recordings(folder)


UNCLOSED = b"\x93NUMPY\x01\x00\x36\x00{'descr': '<f4', 'fortran_order': False, 'shape': (5, \n"
"""An array whose header ends in the middle: Python's tokenizer says so in its own way."""


def test_any_damage_to_a_file_is_said(tmp_path: Path) -> None:
    folder = write_episodes(tmp_path / "data", EPISODES[:1])
    (path,) = folder.glob("*.npz")
    good, refused = path.read_bytes(), 0
    for place in range(0, len(good), 11):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        try:
            recordings(folder)[0].read(list(EPISODES[0]))
        except ConfigError:
            refused += 1
    assert refused > 20
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("reward.npy", UNCLOSED)
    with pytest.raises(ConfigError, match="cannot be read"):
        recordings(folder)


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no \.npz files"):
        recordings(tmp_path)


# -- actions ---------------------------------------------------------------------------------

BOX = spaces.Box(np.array([-2, 0, 3], np.float32), np.array([2, 10, 3], np.float32))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4),
        spaces.Discrete(4, start=-2),
        spaces.Box(-1, 1, (3,)),
        BOX,
        spaces.Box(-5, 5, (2, 2), np.float64),
        spaces.Box(-100, 100, (2,), np.int32),
        spaces.MultiDiscrete([2, 5], start=[1, 0]),
        spaces.MultiBinary([2, 2]),
    ],
)
def test_recorded_actions_are_those_that_an_agent_decided(space: Any) -> None:
    writer = write_actions(space)
    decided = writer.spec.sample(50, np.random.default_rng(0))
    given = np.asarray(writer.write(decided)).reshape(50, *space.shape)
    assert all(space.contains(action) for action in given.astype(space.dtype))
    again = stored_actions(space, given)
    assert again.shape == decided.shape and again.dtype == decided.dtype
    whole = np.dtype(space.dtype).kind != "f" and isinstance(space, spaces.Box)
    np.testing.assert_allclose(again, decided, atol=0.01 if whole else 1e-5)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (BOX, np.array([[3, 5, 3]], np.float32)),
        (BOX, np.array([[np.nan, 5, 3]], np.float32)),
        (spaces.Discrete(4, start=-2), np.array([2])),
        (spaces.MultiDiscrete([2, 5]), np.array([[2, 0]])),
        (spaces.Dict(a=spaces.Discrete(2)), np.array([0])),
    ],
)
def test_what_no_agent_could_have_done_is_refused(space: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="action"):
        stored_actions(space, value)


# -- without an environment ------------------------------------------------------------------


def spec_of(folder: Path) -> envs.EnvSpec:
    env = resolve("session", "recorded", size="tiny").env
    return envs.spec_of(replace(env, args=dataset_of(folder).spaces({})[0]))


def test_spaces_follow_from_the_arrays(tmp_path: Path) -> None:
    many = 10
    arrays = {
        "frame": np.zeros((many, 16, 16, 3), np.uint8),
        "joints": np.zeros((many, 5)),
        "touch": np.zeros(many, bool),
        "stepid": np.zeros((many, 20), np.uint8),
        "log_reward": np.zeros(many, np.float32),
        "action": np.linspace(-1, 1, 2 * many).reshape(many, 2),
        "reward": np.zeros(many),
        "discount": np.ones(many),
    }
    spec = spec_of(write_episodes(tmp_path / "data", [arrays]))
    assert list(spec.obs) == ["frame", "joints", "touch"]
    assert spec.obs["frame"] == envs.ObsSpec((16, 16, 3), "uint8")
    assert spec.obs["joints"] == envs.ObsSpec((5,), "float32")
    assert spec.obs["touch"] == envs.ObsSpec((), "int32", 2)
    assert spec.action == envs.ActionSpec("continuous", 2)


def test_one_hot_vectors_and_whole_numbers_are_classes(tmp_path: Path) -> None:
    official = write_episodes(tmp_path / "official", EPISODES)
    ports = write_episodes(tmp_path / "ports", [as_port(e, CLASSES) for e in EPISODES])
    wanted = envs.ActionSpec("discrete", CLASSES)
    assert spec_of(official).action == spec_of(ports).action == wanted


def test_when_actions_were_chosen_is_asked_where_nobody_can_tell(tmp_path: Path) -> None:
    official = write_episodes(tmp_path / "official", EPISODES)
    ports = write_episodes(tmp_path / "ports", [as_port(e, CLASSES) for e in EPISODES])
    assert dataset_of(official).actions(None) == "after"
    with pytest.raises(ConfigError, match="say --actions before if"):
        dataset_of(ports).actions(None)
    assert dataset_of(ports).actions("before") == "before"
    with pytest.raises(ConfigError, match="must be after or before, got 'now'"):
        dataset_of(ports).actions("now")
