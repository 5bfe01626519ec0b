"""Pictures that environments draw of themselves."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from dreamer_async import envs
from dreamer_async.envs.suites.gym import ALLOWED
from dreamer_async.envs.worker import build


class Square(gymnasium.Env[Any, Any]):
    """Draws its step as a level of red; `render_mode` is what its factory was told."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = "rgb_array", fail: bool = False) -> None:
        self.render_mode, self._fail, self._steps = render_mode, fail, 0

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        self._steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        return np.zeros(2, np.float32), 0.0, False, False, {}

    def render(self) -> Any:
        if self._fail:
            raise RuntimeError("no colours left")
        picture = np.zeros((5, 7, 3), np.uint8)
        picture[..., 0] = self._steps
        return picture


class Painter(Square):
    """Draws itself only if it is asked to, as gymnasium's own do."""

    metadata = {"render_modes": ["human", "rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)


class Screen(Painter):
    """Knows no picture, only a window."""

    metadata = {"render_modes": ["human"]}  # noqa: RUF012


class Headless(Painter):
    """Cannot be built where there is no display."""

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode is not None:
            raise RuntimeError("no display")
        super().__init__(render_mode)


class Deaf(Painter):
    """Takes no mode."""

    def __init__(self) -> None:
        super().__init__()


def paint(**settings: Any) -> Painter:
    return Painter(**settings)


def opened(monkeypatch: pytest.MonkeyPatch, drawn: bool = True, **args: Any) -> envs.VectorEnv:
    name = f"{__name__}:Square"
    monkeypatch.setenv(ALLOWED, name)
    return envs.make("gym", name, num_envs=2, seed=0, view=envs.View(args=args), drawn=drawn)


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize(
    ("factory", "given", "mode"),
    [
        (Painter, {}, "rgb_array"),
        (paint, {}, "rgb_array"),
        (Painter, {"render_mode": "human"}, "human"),
        (Screen, {}, None),
        (Headless, {}, None),
        (Deaf, {}, None),
    ],
)
def test_what_can_draw_itself_is_told_to(
    factory: Any,
    given: dict[str, Any],
    mode: str | None,
    by_id: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = f"{__name__}:{factory.__name__}"
    if by_id:
        monkeypatch.setitem(gymnasium.registry, "Drawn-v0", EnvSpec("Drawn-v0", entry_point=target))
        target, given = "gymnasium:make", {"id": "Drawn-v0", "disable_env_checker": True} | given
    assert build(target, given, drawn=True).render_mode == mode
    assert build(target, given).render_mode == given.get("render_mode")


def test_a_film_shows_what_a_class_of_the_users_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{__name__}:Painter"
    monkeypatch.setenv(ALLOWED, name)
    with envs.make("gym", name, num_envs=1, seed=0, drawn=True) as pool:
        pool.start()
        pool.recv()
        picture = pool.render(0)
        assert picture is not None and picture.shape == (5, 7, 3)


def test_an_environment_of_a_worker_draws_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(monkeypatch) as pool:
        pool.start()
        for step in range(3):
            rows = pool.recv()
            picture = pool.render(1)
            assert picture is not None and picture.shape == (5, 7, 3)
            assert (picture[..., 0] == step).all() and not picture[..., 1:].any()
            pool.send(np.zeros(2, np.int32), rows.env_id)
            assert pool.render(1) is None, "a row of it is in flight"


def test_what_was_not_asked_to_draw_or_draws_nothing_gives_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for drawn, mode in ((False, "rgb_array"), (True, None), (True, "human")):
        with opened(monkeypatch, drawn, render_mode=mode) as pool:
            pool.start()
            pool.recv()
            assert pool.render(0) is None


def test_an_error_while_it_draws_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(monkeypatch, fail=True) as pool:
        pool.start()
        pool.recv()
        with pytest.raises(envs.EnvError, match="no colours left"):
            pool.render(0)


def test_envpool_draws_what_it_can() -> None:
    for task, shape in (("CartPole-v1", (400, 600, 3)), ("Taxi-v3", None)):
        with envs.make("gym", task, num_envs=2, seed=0, drawn=True) as pool:
            pool.start()
            pool.recv()
            first, second = pool.render(0), pool.render(1)
            assert (None if first is None else first.shape) == shape
            assert shape is None or (first != second).any(), "each draws itself"
    with envs.make("gym", "CartPole-v1", num_envs=1, seed=0) as pool:
        pool.start()
        pool.recv()
        assert pool.render(0) is None


def test_drawing_changes_no_row() -> None:
    def rows(drawn: bool) -> list[float]:
        seen = []
        with envs.make("gym", "CartPole-v1", num_envs=2, seed=0, drawn=drawn) as pool:
            pool.start()
            for step in range(30):
                batch = pool.recv()
                seen += next(iter(batch.obs.values())).ravel().tolist()
                _ = pool.render(step % 2)
                pool.send(np.full(2, step % 2, np.int32), batch.env_id)
        return seen

    assert rows(True) == rows(False)
