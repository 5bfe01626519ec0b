"""Screens as pixels, and a run that is shown again as if it had been watched."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui import moving
from dreamer_async.tui.raster import HEIGHT, WIDTH, Colour, Pixels, raster
from tests.tui.test_app import RECORDED
from tests.tui.test_screens import film

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def drawn(text: str, style: str = "") -> Pixels:
    """White on black."""
    look = Style.parse(f"#ffffff on #000000 {style}")
    return raster([Strip([Segment(text, look)])], (9, 9, 9))


def colours(pixels: Pixels) -> set[Colour]:
    return {tuple(map(int, each)) for each in pixels.reshape(-1, 3)}


def test_a_screen_has_the_size_of_its_cells_and_its_own_background() -> None:
    assert raster([Strip([Segment("ab ")])] * 2, (1, 2, 3)).shape == (2 * HEIGHT, 3 * WIDTH, 3)
    assert colours(raster([Strip([Segment("  ")])], (1, 2, 3))) == {(1, 2, 3)}


def test_blocks_fill_their_half_and_lines_reach_the_next_cell() -> None:
    upper = drawn("▀")
    half = round(HEIGHT / 2)
    assert colours(upper[:half]) == {WHITE} and colours(upper[half:]) == {BLACK}
    assert colours(drawn("▀", "reverse")[:half]) == {BLACK}
    line = drawn("──")[HEIGHT // 2]
    assert colours(line) == {WHITE}
    corner = drawn("╭")
    assert colours(corner[HEIGHT // 2, -1:]) == {WHITE}
    assert colours(corner[HEIGHT // 2, :1]) == {BLACK}


@pytest.mark.parametrize(
    ("char", "quarter"), [("⠁", (0, 0)), ("⠈", (0, 1)), ("⡀", (3, 0)), ("⢀", (3, 1))]
)
def test_a_dot_of_braille_is_in_its_own_place(char: str, quarter: tuple[int, int]) -> None:
    rows, columns = np.nonzero(drawn(char)[..., 0])
    assert (4 * int(rows.mean()) // HEIGHT, 2 * int(columns.mean()) // WIDTH) == quarter
    assert len(colours(drawn("⣿"))) > 1 and colours(drawn("⠀")) == {BLACK}


def test_letters_are_drawn_dim_ones_darker_and_bold_ones_thicker() -> None:
    plain, dim, bold = drawn("m"), drawn("m", "dim"), drawn("m", "bold")
    assert plain.max() > 200 > dim.max() > 50
    assert bold.astype(int).sum() > plain.astype(int).sum()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "20261122-222755-toy-catch")
    run.pictures.mkdir(parents=True)
    run.events_path.write_bytes(RECORDED.read_bytes())
    film(run.film_path)
    return run


def test_a_run_is_written_again_as_it_was(run: RunDir, tmp_path: Path) -> None:
    again = moving.Replayed(run, tmp_path / "again", pieces=7)
    moments = []
    with again.run.events_path.open("ab") as file:
        for piece in range(again.pieces):
            again.write(file, piece)
            moments.append(again.now)
    assert again.run.events_path.read_bytes() == RECORDED.read_bytes()
    assert moments == sorted(moments) and len(set(moments)) > 3


def test_the_picture_shows_the_run_growing(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "GROWING", 3)
    shots = asyncio.run(moving._all(run, (80, 24)))
    assert shots[0].pixels.shape == (24 * HEIGHT, 80 * WIDTH, 3)
    assert len({shot.pixels.tobytes() for shot in shots[:3]}) == 3
    assert shots[0].ms == moving.GROWING_MS
    dreamed = [shot.pixels.tobytes() for shot in shots if shot.ms == moving.FILM_MS]
    assert len(set(dreamed)) > len(dreamed) / 3 > 4, "the film plays"
    moving.as_gif(shots, tmp_path / "out.gif")
    with Image.open(tmp_path / "out.gif") as image:
        assert image.size == (80 * WIDTH, 24 * HEIGHT)
        frames = getattr(image, "n_frames", 1)  # equal ones are stored once
        assert len(shots) / 2 < frames <= len(shots)
    assert run.events_path.read_bytes() == RECORDED.read_bytes()
    assert {path.name for path in run.path.iterdir()} == {"events.jsonl", "pictures"}
