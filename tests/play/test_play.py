"""Playing inside a world model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_run import make_run, newest

from dreamer_async.cli import main
from dreamer_async.config import ConfigError
from dreamer_async.envs.spec import ActionSpec, EnvSpec, ObsSpec
from dreamer_async.play.app import Play, graphics
from dreamer_async.play.keys import RESERVED, bindings, legend
from dreamer_async.play.world import Reality, World, reality
from dreamer_async.run import pipeline
from dreamer_async.share.dream import NothingToSee
from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.draw.kitty import QUESTION
from dreamer_async.tui.draw.sgr import lean
from tests.tui.test_app import driven, text
from tests.tui.test_kitty import COMMAND, KITTY, YES, Reader, wait_for_pictures
from tests.tui.test_process import Terminal
from tests.tui.test_slow_line import MOST_BYTES, frames_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A toy run with images that was trained for a moment."""
    run = make_run(tmp_path_factory.mktemp("runs"), "train.steps=60", task="catch_pixels")
    assert pipeline.main(run, plain=False, resume=False) == 0
    return run


def test_a_game_begins_at_real_moments_and_follows_the_actions(run: RunDir) -> None:
    before = run.replay_path.read_bytes()
    one, same = (World(run, newest(run), seed=3) for _ in range(2))
    first = one.restart()
    assert first.picture.shape == (32, 32, 3) and 0 <= first.cont <= 1
    np.testing.assert_array_equal(first.picture, same.restart().picture)
    actions = [np.array(k % 3, np.int32) for k in range(4)]
    ours, theirs = [one.step(a) for a in actions], [same.step(a) for a in actions]
    assert one.actions == 4
    assert [m.reward for m in ours] == [m.reward for m in theirs], "the same seed, the same dream"
    assert (one.restart().picture != first.picture).any() and one.actions == 0
    for _ in range(9):  # more than the sequences of a batch
        one.restart()
    assert run.replay_path.read_bytes() == before
    assert one.choose().shape == () and one.choose().dtype == np.int32


def test_other_actions_are_another_dream(run: RunDir) -> None:
    left, right = (World(run, newest(run), seed=3) for _ in range(2))
    for world in (left, right):
        world.restart()
    pairs = [(left.step(np.array(0)), right.step(np.array(2))) for _ in range(5)]
    assert any((a.picture != b.picture).any() or a.value != b.value for a, b in pairs)


def test_reality_gets_the_same_actions(run: RunDir) -> None:
    world = World(run, newest(run))
    with reality(world.config, 0) as real:
        rows = real.restart()
        world.restart_from(rows)
        pictures = [real.step(np.array(2, np.int32)) for _ in range(7)]
        assert real.ended and real.score in (-1.0, 1.0)
        assert {picture.shape for picture in pictures} == {(32, 32, 3)}
        assert bool(real.restart().is_first[0]) and real.score == 0.0


def test_without_images_there_is_nothing_to_play_in(tmp_path: Path) -> None:
    vectors = make_run(tmp_path, "train.steps=60")
    assert pipeline.main(vectors, plain=False, resume=False) == 0
    with pytest.raises(NothingToSee, match="observes no images"):
        World(vectors, newest(vectors))


def game(run: RunDir, there: Reality | None = None) -> Play:
    return Play(World(run, newest(run)), there)


@pytest.mark.parametrize("real", [False, True])
@driven
async def test_keys_are_actions_and_space_lets_the_agent_play(run: RunDir, real: bool) -> None:
    with reality(World(run, newest(run)).config, 0) as there:
        app = game(run, there if real else None)
        world = app.world
        async with app.run_test(size=(100, 40)) as pilot:
            await pilot.press("3", "left", "x")
            assert world.actions == 2, "x is no action"
            await pilot.press("r")
            assert world.actions == 0 and app.total == 0.0
            assert "you play" in text(pilot)
            await pilot.press("space")
            assert app.playing
            for _ in range(400):
                await pilot.pause(0.05)
                if world.actions:
                    break
            assert world.actions > 0
            assert "agent plays" in text(pilot)
            await pilot.press("1")
            assert not app.playing, "whoever acts takes over"
            await pilot.pause()
            screen = text(pilot)
            assert ("score" in screen) == real and "continue" in screen
            assert "▀" in screen and "1-3: actions 0 to 2" in screen
            await pilot.press("q")
        assert not app.is_running


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
@driven
async def test_every_step_is_a_small_frame(run: RunDir, size: tuple[int, int]) -> None:
    with reality(World(run, newest(run)).config, 0) as there:
        app = game(run, there)
        async with app.run_test(size=size) as pilot:
            await pilot.pause(0.3)
            for key in ("1", "3", "r"):
                sizes = [len(lean(f)) for f in await frames_of(app, pilot.press(key))]
                assert 0 < sum(sizes) < MOST_BYTES, key


@driven
async def test_without_colours_pictures_are_letters(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with game(run).run_test(size=(100, 40)) as pilot:
        await pilot.pause()
        assert "▀" not in text(pilot) and "::" in text(pilot)


PLAY = ("-m", "dreamer_async", "play")


def test_a_game_in_pixels_that_is_left_at_once(run: RunDir) -> None:
    """The real command, on a terminal that shows pictures and reads slowly."""
    screen = Terminal(run, "--real", words=PLAY, COLORTERM="truecolor")
    try:
        screen.wait_for(QUESTION.encode(), 60)
        screen.press(KITTY + YES)
        sent = wait_for_pictures(screen, 2).pictures
        screen.press(b"1")
        before = len(screen.output)
        screen.wait_for(b"\x1b_G", 20)
        while COMMAND.search(screen.output[before:].decode("utf-8", "replace")) is None:
            screen.read(0.1)
        for key in b"123" * 20:
            screen.press(bytes([key]))
        screen.press(b"q")
        assert screen.exit_code() == 0 and screen.is_clean()
        reader = Reader()
        reader.read(screen.output.decode("utf-8", "replace"))
        assert len(sent) == 2 and reader.pictures == {}, "what was sent is deleted"
    finally:
        screen.close()


def test_a_lost_terminal_ends_the_game(run: RunDir) -> None:
    screen = Terminal(run, words=PLAY)
    try:
        screen.wait_for(b"continue", 60)
        screen.hang_up()
        assert screen.exit_code() == 0
    finally:
        screen.close()


@pytest.mark.parametrize(
    ("how", "environment", "why"),
    [("sixel", {}, "there are auto, kitty, blocks"), ("kitty", {"STY": "1.x"}, "screen does not")],
)
def test_graphics_that_cannot_be_are_one_line(
    how: str, environment: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=why):
        graphics(how)


def test_play_needs_a_terminal(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", str(run.path)]) == 2
    assert "needs a terminal" in capsys.readouterr().err


def spec(action: ActionSpec, suite: str = "toy") -> EnvSpec:
    return EnvSpec(suite, "t", {"image": ObsSpec((32, 32, 1), "uint8")}, action)


def test_every_action_has_a_key_of_its_own() -> None:
    keys = bindings(spec(ActionSpec("discrete", 18), "atari"))
    assert {int(action) for action in keys.values()} == set(range(18))
    assert int(keys["left"]) == 4 and not set(RESERVED) & set(keys)
    vectors = bindings(spec(ActionSpec("continuous", 3)))
    assert vectors["up"].tolist() == [0, 1, 0] and vectors["c"].tolist() == [0, 0, -1]
    assert not set(RESERVED) & set(vectors)
    parts = (("a", ActionSpec("discrete", 3)), ("b", ActionSpec("continuous", 1)))
    several = spec(ActionSpec("several", 2, parts))
    assert bindings(several) == {} and "only the agent" in legend(several)


def test_envs_are_closed_with_the_game(run: RunDir) -> None:
    with reality(World(run, newest(run)).config, 0) as real:
        real.restart()
    with pytest.raises(RuntimeError, match="closed"):
        real.restart()
