"""`learn`, and going on from it: from the words to a run that trains."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experience import as_port, recorded_episodes, write_episodes
from gymnasium import spaces
from tiny_run import TINY, make_run, newest, read

from dreamer_async import Session, cli
from dreamer_async.run import pipeline
from dreamer_async.store import events
from dreamer_async.store.run_dir import RunDir, list_runs
from dreamer_async.store.summary import load_config

Invoke = Callable[..., tuple[int, str]]
SMALL = [
    word for text in TINY if "env." not in text and "capacity" not in text for word in ("-s", text)
]


@pytest.fixture
def invoke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Invoke:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def call(*words: str) -> tuple[int, str]:
        code = cli.main(words)
        out, err = capsys.readouterr()
        return code, err if code else out

    return call


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """An ordinary run that has ended."""
    run = make_run(tmp_path_factory.mktemp("ended"), "train.steps=120")
    assert pipeline.main(run, plain=False, resume=False) == 0
    return run


@pytest.fixture
def trained(ended: RunDir, tmp_path: Path) -> RunDir:
    """A copy of it."""
    return RunDir(Path(shutil.copytree(ended.path, tmp_path / "runs" / ended.name)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_episodes(tmp_path / "data", recorded_episodes())


def runs() -> list[str]:
    return [run.name for run in list_runs(Path("runs"))]


def end(run: RunDir) -> events.RunFinished:
    found = [event for event in read(run) if isinstance(event, events.RunFinished)]
    return found[-1]


def test_a_run_learns_from_another_and_then_from_environments(
    invoke: Invoke, trained: RunDir
) -> None:
    code, out = invoke("learn", trained.name, "--updates", "10", "--plain", "--seed", "3")
    assert code == 0 and f"learning from 120 steps of {trained.path}, tiny" in out
    [name] = set(runs()) - {trained.name}
    run = RunDir(Path("runs") / name)
    assert (end(run).reason, end(run).updates, end(run).env_steps) == ("completed", 10, 0)
    new, old = load_config(run), load_config(trained)
    assert (new.env, new.model, new.loss) == (old.env, old.model, old.loss)
    assert new.train.seed == 3 and new.replay.capacity == 1000
    code, said = invoke("resume", name, "--plain")
    assert code == 2 and "has done 10 updates" in said and "--online to continue with" in said
    assert invoke("resume", name, "--plain", "--updates", "15")[0] == 0
    assert end(run).updates == 15
    assert invoke("resume", name, "--plain", "--online", "--steps", "40")[0] == 0
    assert (end(run).reason, end(run).env_steps) == ("completed", 40) and end(run).updates > 15
    assert invoke("eval", name, "--episodes", "1")[0] == 0


def learned(invoke: Invoke) -> str:
    """The only run: it has learned from the folder, which says all that it knows."""
    words = ["learn", "data", "--size", "tiny", "--updates", "5", "--plain", *SMALL]
    assert invoke(*words, "--actions", "after")[0] == 0
    [name] = runs()
    return name


@pytest.mark.parametrize("sync", ["true", "false"])
def test_any_run_continues_without_its_environments(
    invoke: Invoke, tmp_path: Path, sync: str
) -> None:
    run = make_run(tmp_path, "train.steps=120", f"train.sync={sync}")
    assert pipeline.main(run, plain=False, resume=False) == 0
    done = end(run).updates
    words = ["resume", str(run.path), "--plain", "-s", f"train.updates={done + 4}"]
    assert invoke(*words)[0] == 0
    assert (end(run).updates, end(run).env_steps) == (done + 4, 120)


def test_recorded_data_is_not_deleted_where_it_is_the_only_copy(
    invoke: Invoke, folder: Path
) -> None:
    name = learned(invoke)
    ring = RunDir(Path("runs") / name).replay_path
    shutil.rmtree(folder)
    words = ["resume", name, "--plain", "--updates", "9", "--drop-replay"]
    code, said = invoke(*words)
    assert code == 2 and "is neither a run nor a folder of episodes" in said and ring.exists()


def test_the_size_may_be_another_one(invoke: Invoke, trained: RunDir) -> None:
    words = ["learn", "last", "--updates", "2", "--plain", "--size", "toy"]
    assert invoke(*words, "-s", "replay.capacity=60")[0] == 0
    [name] = set(runs()) - {trained.name}
    config = load_config(RunDir(Path("runs") / name))
    assert (config.size, config.model.deter) == ("toy", 256)
    assert config.replay.capacity == 60 and config.train.batch_length == 8


def test_a_run_learns_from_episodes_of_an_environment(invoke: Invoke, folder: Path) -> None:
    words = ["learn", "data", "--env", "toy", "--task", "catch", "--size", "tiny", "--plain"]
    words += ["--updates", "9", "-s", "updates=5"]
    code, out = invoke(*words, *SMALL)
    assert code == 0 and str(folder) in out
    [name] = runs()
    run = RunDir(Path("runs") / name)
    config = load_config(run)
    assert (config.env.suite, config.env.task) == ("toy", "catch")
    steps = sum(len(episode["reward"]) for episode in recorded_episodes())
    assert newest(run).manifest["replay_steps"] == steps
    assert not {"policy/lag", "ratio/actual"} & gauges(run).keys(), "nobody acts"
    assert invoke("resume", name, "--plain", "--online", "--steps", "40")[0] == 0
    assert end(run).env_steps >= 40
    assert {"policy/lag", "ratio/actual"} <= gauges(run).keys()


def gauges(run: RunDir) -> Mapping[str, float | None]:
    """The newest ones of a run."""
    return [each.values for each in read(run) if isinstance(each, events.Gauges)][-1]


def test_a_run_learns_from_episodes_alone_and_then_steps_an_environment(
    invoke: Invoke, tmp_path: Path
) -> None:
    write_episodes(tmp_path / "ports", [as_port(episode, 3) for episode in recorded_episodes()])
    words = ["learn", "ports", "--size", "tiny", "--updates", "5", "--plain", *SMALL]
    code, said = invoke(*words)
    assert code == 2 and "say --actions before if" in said and not runs()
    assert invoke(*words, "--actions", "before")[0] == 0
    [name] = runs()
    run = RunDir(Path("runs") / name)
    assert load_config(run).env.suite == "session"
    code, said = invoke("resume", name, "--plain", "--env", "toy/reach")
    assert code == 2 and "toy/reach has other observations" in said
    assert load_config(run).env.suite == "session", "nothing has changed"
    assert invoke("resume", name, "--plain", "--env", "toy/catch", "--steps", "40")[0] == 0
    assert load_config(run).env.task == "catch" and end(run).env_steps >= 40
    code, said = invoke("resume", name, "--plain", "--env", "toy/catch")
    assert code == 2 and "has its environment, toy/catch" in said


def test_a_run_keeps_its_settings_where_an_environment_cannot_be_taken_up(
    invoke: Invoke, folder: Path
) -> None:
    name = learned(invoke)
    run = RunDir(Path("runs") / name)
    state = newest(run).path / "state.safetensors"
    whole = state.read_bytes()
    state.write_bytes(bytes(len(whole)))
    resume = ["resume", name, "--plain", "--env", "toy/catch", "--steps", "40"]
    assert invoke(*resume)[0] == 65
    assert load_config(run).env.suite == "session", "a Session could still take it"
    state.write_bytes(whole)
    assert invoke(*resume)[0] == 0 and load_config(run).env.suite == "toy"


def test_a_run_of_episodes_goes_on_as_a_session(invoke: Invoke, tmp_path: Path) -> None:
    """Its spaces are those of the arrays."""
    arrays: dict[str, Any] = {
        "obs": np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32),
        "action": np.tile(np.arange(3), 20),
        "reward": np.ones(60),
        "is_terminal": np.arange(60) == 59,
    }
    write_episodes(tmp_path / "robot", [arrays])
    words = ["learn", "robot", "--size", "tiny", "--updates", "5", "--plain", *SMALL]
    assert invoke(*words)[0] == 0
    [name] = runs()
    seen, done = spaces.Box(-np.inf, np.inf, (2,)), spaces.Discrete(3)
    with Session(seen, done, run=name, runs_dir="runs", device="cpu", threads=1) as session:
        action = session.reset(np.zeros(2, np.float32))
        for _ in range(5):
            assert done.contains(action)
            action = session.step(np.zeros(2, np.float32), 0.0, False, False)
    run = RunDir(Path("runs") / name)
    assert newest(run).manifest["replay_steps"] == 60 + 6 and end(run).env_steps == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("learn last", "issing option '--updates'"),
        ("learn last --updates 0", "--updates 0 leaves nothing to do"),
        ("learn last --updates -1", "train.updates must be at least 0"),
        ("learn last --updates ten", "train.updates: expected a whole number"),
        ("learn nothing --updates 5", "there is no run 'nothing'"),
        ("learn empty --updates 5", "has no .npz files"),
        ("learn minari:no/thing-v0 --updates 5", "`minari download no/thing-v0` fetches one"),
        ("learn last --updates 5 --env toy", "--env is for folders of episodes"),
        ("learn last --updates 5 --actions after", "--actions is for folders of episodes"),
        ("learn last --updates 5 -s model.deter=30", "model.deter must be a multiple"),
        ("learn last --updates 5 -s env.num_envs=2", "env.num_envs cannot be 2"),
        ("learn last --updates 5 -s batch_length=100", "but a sequence takes 101"),
        ("learn last --updates 5 --init nothing", "there is no run 'nothing'"),
        ("learn last --updates 5 --init-parts all", "--init-parts all needs --init RUN"),
        ("learn last --updates 5 --init last --init-parts pol", "init_parts must be all or world_"),
        ("learn data --updates 5 --env toy/reach", "vector has the shape [3], not ["),
        ("learn data --updates 5 --env toyy", "did you mean"),
        ("learn data --updates 5 --actions now", "--actions must be after or before"),
        ("learn data --updates 5 --as zzz=image", "observation key"),
        ("learn data --updates 5 -s env.image=resize", "env.image=resize is for images"),
        ("train toy --plain -s updates=5", "train.updates is for recorded experience"),
        ("train toy --plain -s source=data", "replay.source is for recorded experience"),
        ("train toy --plain --init nothing", "there is no run 'nothing'"),
        ("resume last --plain --env toy/catch", "has its environment, toy/catch"),
        ("resume last --plain --env-arg a=1", "--env-arg needs --env SUITE"),
        ("resume last --plain --online --updates 5", "--updates is for learning without"),
        ("resume last --plain --updates 1", "--updates is for runs of `learn`"),
        ("resume last --plain -s updates=1", "and would end at 1"),
        ("resume last --plain -s updates=999 --steps 999", "--steps has no effect without env"),
        ("resume last --plain --online -s updates=999", "--updates is for learning without"),
        ("resume last --plain -s init=/nowhere", "train.init cannot change"),
        ("resume last --plain -s replay.source=/nowhere", "replay.source cannot change"),
        ("learn data --updates 5 --task catch", "--task needs --env SUITE"),
        ("learn data --updates 5 --env toy/catch --task seek", "names a task already"),
        ("learn data --updates 5 --env-arg a=1", "--env-arg needs --env SUITE"),
        ("learn data --updates 5 -s replay.source=x", "replay.source cannot be set"),
        ("learn last --updates 5 -s source_actions=before", "--actions says that"),
        ("learn last --updates 5 -s env.repeat=3", "env.repeat cannot be set"),
        ("learn data --updates 5 -s num_envs=900", "env.num_envs cannot be more than"),
        ("learn data --updates 5 -s env.batch_size=2", "it counts with environments only"),
        ("train toy --plain -s source_actions=before", "is for recorded experience"),
        ("train toy --plain -s init_parts=world_model", "train.init_parts needs train.init"),
    ],
)
def test_mistakes_cost_a_line_and_nothing_is_created(
    invoke: Invoke, trained: RunDir, folder: Path, words: str, message: str
) -> None:
    Path("empty").mkdir()
    before = sorted(Path().rglob("*"))
    code, said = invoke(*words.split())
    assert code == 2 and message in said and said.count("\n") == 1, said
    assert sorted(Path().rglob("*")) == before


def test_a_run_that_trains_is_not_learned_from(invoke: Invoke, trained: RunDir) -> None:
    with trained.lock():
        code, said = invoke("learn", "last", "--updates", "5")
    assert code == 2 and "is in training" in said and "dreamer-async stop" in said


def test_train_begins_with_weights_of_another_run(invoke: Invoke, trained: RunDir) -> None:
    words = ["train", "toy/catch", "--size", "tiny", "--steps", "40", "--plain", *SMALL]
    assert invoke(*words, "--init", trained.name, "--init-parts", "world_model")[0] == 0
    [name] = set(runs()) - {trained.name}
    said = [e.message for e in read(RunDir(Path("runs") / name)) if isinstance(e, events.Warned)]
    assert any(line.startswith("began with ") and "of the world model" in line for line in said)
