"""Films of the world model: what is in them, and that training does not notice them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import make_run, newest, read

from dreamer_async.run import pipeline
from dreamer_async.run.films import elements, film, film_gif
from dreamer_async.run.films.film import Filmer
from dreamer_async.run.learner import Learner
from dreamer_async.store import events
from dreamer_async.store.run_dir import RunDir


def load(run: RunDir) -> dict[str, np.ndarray]:
    with np.load(run.film_path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Film all the time, however long it takes."""
    monkeypatch.setattr(film, "PERIOD_SECONDS", 0.01)
    monkeypatch.setattr(film, "MOST_TIME", 1e3)


def test_images_are_filmed_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often(monkeypatch)
    run = make_run(tmp_path, "train.steps=80", task="catch_pixels")
    assert pipeline.main(run, plain=False, resume=False) == 0
    content = load(run)
    meta = json.loads(str(content["meta"]))
    assert meta["version"] == 1 and meta["context"] == 5 and meta["update"] > 0
    images = content["image/image"]
    assert images.shape[:3] == (3, 4, 8) and images.dtype == np.uint8
    assert images.max() == 255 and not np.array_equal(images[0], images[1])
    seen, expected = images[1], images[2]
    assert np.array_equal(seen[:, :5], expected[:, :5]), "the context is observed"
    assert not np.array_equal(seen[:, 5:], expected[:, 5:]), "the rest is not"
    assert content["is_first"].shape == (4, 8)
    assert [path.name for path in run.pictures.iterdir()] == ["film.npz"], "no scratch file stays"


def test_vectors_are_filmed_as_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often(monkeypatch)
    run = make_run(tmp_path, "train.steps=80")
    assert pipeline.main(run, plain=False, resume=False) == 0
    content = load(run)
    vector, meta = content["vector/vector"], json.loads(str(content["meta"]))
    assert vector.shape[:3] == (3, 4, 8) and vector.dtype == np.float32
    assert len(meta["names"]["vector"]) == vector.shape[3] and meta["classes"] == {}
    assert meta["pause"] > 0


def test_numbers_are_called_as_the_environment_does() -> None:
    from gymnasium import spaces

    from dreamer_async.envs.native import space_json
    from dreamer_async.envs.spaces import read_space
    from dreamer_async.envs.spec import ActionSpec, EnvSpec

    nested = spaces.Dict(
        arm=spaces.Dict({"joints.all": spaces.Box(-1, 1, (2, 3)), "grip": spaces.Discrete(4)}),
        pair=spaces.Tuple((spaces.MultiBinary(2), spaces.Text(3, charset="ab"))),
        speed=spaces.Box(-1, 1, (1,)),
    )
    expected = {
        "arm/joints_all": [f"arm/joints.all[{i},{j}]" for i in range(2) for j in range(3)],
        "arm/grip": ["arm/grip"],
        "pair/0": ["pair/0[0]", "pair/0[1]"],
        "pair/1": ["pair/1[0]", "pair/1[1]", "pair/1[2]"],
        "speed": ["speed"],
    }
    alone = {"vector": ["observation[0]", "observation[1]"]}
    for space, wanted in ((nested, expected), (spaces.Box(-1, 1, (2,)), alone)):
        readers = read_space(space)
        obs = {reader.name: reader.spec for reader in readers}
        taken = {reader.name: reader.taken() for reader in readers}
        native = space_json.native(space, spaces.Discrete(2))
        spec = EnvSpec("s", "t", obs, ActionSpec("discrete", 2), native=native, taken=taken)
        for most in (32, 1):
            first = {key: names[:most] for key, names in wanted.items()}
            assert {key: elements.names(spec, key, most) for key in obs} == first
    plain = EnvSpec("s", "t", {"arm": obs["vector"]}, ActionSpec("discrete", 2))
    assert elements.names(plain, "arm", 32) == ["arm[0]", "arm[1]"], "no space is known"


def test_lockstep_does_not_notice_films_and_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tensors, to the bit, as a run that was neither filmed nor evaluated."""
    settings = ("train.steps=100", "train.sync=true")
    quiet = make_run(tmp_path / "quiet", *settings)
    assert pipeline.main(quiet, plain=False, resume=False) == 0
    often(monkeypatch)
    watched = make_run(tmp_path / "watched", *settings)
    asked = RunDir.take_requests

    def ask_again(run: RunDir) -> list:
        run.request("evaluate", episodes=2)
        return asked(run)

    monkeypatch.setattr(RunDir, "take_requests", ask_again)
    monkeypatch.setattr("dreamer_async.run.monitor.asyncio.sleep", lambda _: asyncio_sleep(0.02))
    assert pipeline.main(watched, plain=False, resume=False) == 0
    assert any(isinstance(event, events.Evaluated) for event in read(watched))
    assert (watched.film_path).exists()
    before, after = newest(quiet).tensors, newest(watched).tensors
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


asyncio_sleep = asyncio.sleep


def test_long_vectors_and_large_images_are_thinned_out() -> None:
    from dreamer_async.agent.open_loop import OpenLoop

    large = torch.rand(2, 3, 200, 150, 4)
    name, pixels = film._pictures("camera", OpenLoop(large, large, large), True)
    assert name == "image/camera" and pixels.shape == (3, 2, 3, 67, 50, 3)
    for given, shown in ((1, 1), (2, 1), (3, 3)):
        small = torch.rand(2, 3, 8, 8, given)
        _, pixels = film._pictures("camera", OpenLoop(small, small, small), True)
        assert pixels.shape[-1] == shown, "two are no colours"
        assert film_gif.gif(pixels).startswith(b"GIF")
    long = torch.full((2, 3, 10, 9), torch.nan)
    name, numbers = film._pictures("state", OpenLoop(long, long, long), False)
    assert name == "vector/state" and numbers.shape == (3, 2, 3, film.DIMENSIONS)
    broken = torch.full((1, 1, 4, 4, 3), torch.nan)
    _, pixels = film._pictures("camera", OpenLoop(broken, broken, broken), True)
    assert pixels.max() == 0


def test_films_take_at_most_their_share_of_the_time(tmp_path: Path) -> None:
    """A film that took 3 s is not followed by another within 300 s."""
    run = make_run(tmp_path, "train.steps=120")
    made: list[Filmer] = []
    build = Filmer.__init__

    def keep(self: Filmer, *args: object, **options: object) -> None:
        build(self, *args, **options)  # type: ignore[arg-type]
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Filmer, "__init__", keep)
        assert pipeline.main(run, plain=False, resume=False) == 0
    filmer = made[0]
    times = iter((10.0, 13.0))
    filmer._clock = lambda: next(times)
    shot = filmer.shoot()
    assert shot is not None and filmer._pause == pytest.approx(300.0)


def test_a_film_that_cannot_be_written_is_refused_and_training_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.steps=200")
    run.pictures.rmdir()
    run.pictures.touch()
    run_film(run)
    assert [e.reason for e in read(run) if isinstance(e, events.RunFinished)] == ["completed"]
    answers = [e for e in read(run) if isinstance(e, events.Controlled)]
    assert [answer.answer for answer in answers] == ["refused"]
    assert "could not be written" in answers[0].reason


def run_film(run: RunDir) -> None:
    """Train, asking for a film after the first update."""
    step = Learner.step
    build = Filmer.__init__

    def keep(self: Filmer, *args: object, **options: object) -> None:
        build(self, *args, **options)  # type: ignore[arg-type]
        filmers.append(self)

    def ask(self: Learner) -> object:
        report = step(self)
        if self.updates == 3:
            loop.call_soon_threadsafe(filmers[0].ask)
        return report

    filmers: list[Filmer] = []
    start = pipeline.train

    async def remember(*args: object) -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        await start(*args)  # type: ignore[arg-type]

    loop: asyncio.AbstractEventLoop
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Filmer, "__init__", keep)
        patch.setattr(Learner, "step", ask)
        patch.setattr(pipeline, "train", remember)
        assert pipeline.main(run, plain=False, resume=False) == 0
