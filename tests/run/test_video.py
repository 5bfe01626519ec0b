"""Films as files: MP4 and GIF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamer_async.run.films.video import LONGEST_GIF, enlarge, films


def frame(level: int, height: int = 20, width: int = 30) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = level
    return picture


def test_a_gif_holds_every_frame_at_its_time(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    with films(None, tmp_path / "x.gif", 20) as film:
        for level in (0, 80, 160, 240):
            film.add(frame(level))
    with image.open(tmp_path / "x.gif") as gif:
        assert gif.n_frames == 4 and gif.info["duration"] == 50 and gif.info["loop"] == 0
        gif.seek(2)
        assert np.asarray(gif.convert("RGB"))[5, 5].tolist() == pytest.approx([160, 0, 0], abs=2)


def test_an_mp4_holds_every_frame_and_odd_sides_are_cut(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with films(tmp_path / "x.mp4", None, 10) as film:
        for level in (0, 80, 160, 240):
            film.add(frame(level, 33, 41))
    with av.open(str(tmp_path / "x.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 10
    assert len(frames) == 4 and frames[0].shape == (32, 40, 3)
    assert abs(int(frames[3][5, 5, 0]) - 240) < 8 > abs(int(frames[0][5, 5, 0]))


def test_a_gif_says_what_it_leaves_out(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    with films(None, tmp_path / "x.gif", 20) as film:
        for number in range(LONGEST_GIF + 3):
            film.add(frame(number % 2, 2, 2))
    assert film.frames == LONGEST_GIF + 3 and film.left_out == 3


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "x.gif").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), films(None, tmp_path / "x.gif", 20) as film:
        film.add(frame(1))
        _ = 1 / 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.gif"]
    assert (tmp_path / "x.gif").read_bytes() == b"old"


def test_small_pictures_are_enlarged_by_whole_numbers() -> None:
    assert enlarge(frame(1, 10, 30), 64).shape == (30, 90, 3)
    assert enlarge(frame(1, 100, 30), 64).shape == (100, 30, 3)
