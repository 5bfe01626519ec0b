"""Pictures on terminals: the bytes, read by a terminal of its own here; who gets them; tidying up.

No real terminal is among these: docs/dashboard.md says where pictures were looked at.
"""

from __future__ import annotations

import re
import time
import zlib
from base64 import standard_b64decode
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyte
import pytest
from numpy.typing import NDArray

from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.album import MOST_BYTES, Album, Shown
from dreamer_async.tui.draw.kitty import (
    CHUNK,
    MARKS,
    NAME_QUESTION,
    PLACEHOLDER,
    QUESTION,
    deletion,
    placeholders,
    through_tmux,
    transmission,
)
from dreamer_async.tui.driver import ABORT
from dreamer_async.tui.graphics import Way, chosen, way
from dreamer_async.tui.read import film as films
from dreamer_async.tui.replies import CUT_SECONDS, EXPECTED_SECONDS, Replies
from tests.tui.test_app import RECORDED, trainer
from tests.tui.test_process import SHELL, Terminal, terminal
from tests.tui.test_screens import film, made

COMMAND = re.compile(r"\x1b_G([^;\x1b]*)(?:;([^\x1b]*))?\x1b\\")
KITTY = b"\x1bP>|kitty(0.36.4)\x1b\\"
YES = b"\x1b_Gi=31;OK\x1b\\"
RNG = np.random.default_rng(3)
NOISE = RNG.integers(0, 256, (96, 96, 3), dtype=np.uint8)
"""What cannot be compressed."""


class Picture(NamedTuple):
    """A picture that a terminal has, and the cells that it fills."""

    pixels: NDArray[np.uint8]
    rows: int
    columns: int


class Reader:
    """As much of a terminal as understands pictures; ValueError for what the protocol forbids."""

    def __init__(self) -> None:
        self.pictures: dict[int, Picture] = {}
        self._begun: dict[str, str] = {}
        self._data = ""

    def read(self, text: str) -> None:
        for match in COMMAND.finditer(text):
            if "\x18" in match[0]:
                continue  # CAN: cut off, and neither carried out nor drawn
            self._command(dict(k.split("=") for k in match[1].split(",")), match[2] or "")

    def _command(self, keys: dict[str, str], data: str) -> None:
        if keys.get("a") == "d":
            self._begun, self._data = {}, ""  # ends what was cut off, too
            assert keys["d"] == "I" and keys["q"] == "2"
            self.pictures.pop(int(keys["i"]), None)
            return
        if len(data) > CHUNK or (keys.get("m") == "1" and len(data) % 4):
            raise ValueError("a chunk of a wrong size")
        if self._begun and not set(keys) <= {"m", "q"}:
            raise ValueError("something between two chunks")
        if not self._begun and "a" not in keys:
            raise ValueError("a chunk of nothing")
        self._begun = self._begun or keys
        self._data += data
        if keys.get("m", "0") == "0":
            self._place(self._begun, self._data)
            self._begun, self._data = {}, ""

    def _place(self, keys: dict[str, str], data: str) -> None:
        asked = {"a": "T", "U": "1", "q": "2", "f": "24", "o": "z"}
        if {key: keys.get(key) for key in asked} != asked:
            return
        raw = zlib.decompress(standard_b64decode(data))
        height, width = int(keys["v"]), int(keys["s"])
        pixels = np.frombuffer(raw, np.uint8).reshape(height, width, 3)
        self.pictures[int(keys["i"])] = Picture(pixels, int(keys["r"]), int(keys["c"]))


def read(text: str) -> dict[int, Picture]:
    reader = Reader()
    reader.read(text)
    return reader.pictures


# -- the bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 12), (64, 64), (96, 96), (33, 200), (1, 1)])
def test_what_a_terminal_decodes_is_the_frame(shape: tuple[int, int]) -> None:
    frame = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    ((number, picture),) = read(transmission(7, frame, 5, 11, 10**6)).items()
    assert (number, *picture[1:]) == (7, 5, 11)
    factor = picture.pixels.shape[0] // shape[0]
    assert factor == max(1, 128 // max(shape)), "small ones are enlarged, pixel for pixel"
    np.testing.assert_array_equal(picture.pixels[::factor, ::factor], frame)
    assert (
        picture.pixels == picture.pixels[::factor, ::factor].repeat(factor, 0).repeat(factor, 1)
    ).all()


def test_no_chunk_is_larger_than_the_protocol_allows() -> None:
    text = transmission(7, NOISE, 5, 11, 10**6)
    chunks = COMMAND.findall(text)
    assert len(chunks) > 8 and {len(data) for _, data in chunks[:-1]} == {CHUNK}
    assert [keys.rpartition(",")[2] for keys, _ in chunks] == ["m=1"] * (len(chunks) - 1) + ["m=0"]
    assert "".join(m[0] for m in COMMAND.finditer(text)) == text, "and nothing else"


def test_a_broken_transmission_is_found() -> None:
    """The control of the tests above."""
    first, second, *_, last = [m[0] for m in COMMAND.finditer(transmission(7, NOISE, 5, 11, 10**6))]
    with pytest.raises((ValueError, zlib.error)):
        read(first + last)
    with pytest.raises(ValueError, match="of nothing"):
        read(second + last)
    with pytest.raises(ValueError, match="between"):
        read(first + QUESTION)
    with pytest.raises(ValueError, match="wrong size"):
        read(first.replace(";", ";AAAA"))
    whole = transmission(7, NOISE, 5, 11, 10**6)
    assert read(first + second + deletion(7) + whole).keys() == {7}, "a deletion ends a cut one"


def test_a_picture_that_is_cut_anywhere_is_forgotten() -> None:
    whole = transmission(7, NOISE, 5, 11, 10**6)
    ends = [match.end() + by for match in COMMAND.finditer(whole) for by in range(-5, 50)]
    for end in (*range(50), *ends, *range(0, len(whole), 97)):
        assert read(whole[:end] + ABORT + deletion(7)) == {}, end
        assert read(whole[:end] + ABORT + deletion(7) + whole).keys() == {7}, end
    with pytest.raises((ValueError, zlib.error)):
        read(whole[:-1000] + ABORT[1:] + whole[-1000:])


@pytest.mark.parametrize("most", [20_000, 5000, 1000])
def test_a_picture_becomes_coarser_rather_than_larger(most: int) -> None:
    text = transmission(7, NOISE, 5, 11, most)
    assert len(text) < most + 300
    (picture,) = read(text).values()
    assert min(picture.pixels.shape[:2]) >= 8
    assert len(transmission(7, NOISE, 5, 11, 10**6)) > 30_000, "the control"


def test_a_picture_in_fewer_colours_is_still_the_picture() -> None:
    smooth = np.linspace(0, 255, 96 * 96 * 3).reshape(96, 96, 3).astype(np.uint8)
    speckled = smooth ^ RNG.integers(0, 8, smooth.shape, dtype=np.uint8)
    (picture,) = read(transmission(7, speckled, 5, 11, 21_000)).values()
    assert picture.pixels.shape == smooth.shape
    off = np.abs(picture.pixels.astype(int) - speckled.astype(int)).max()
    assert 0 < off <= 255 / 15 / 2 + 1


def test_placeholders_say_their_rows_and_take_one_column_each() -> None:
    rows = placeholders(3, 4)
    assert rows == [PLACEHOLDER + mark + PLACEHOLDER * 3 for mark in "\u0305\u030d\u030e"]
    screen = pyte.Screen(20, 3)
    pyte.Stream(screen).feed("x" + rows[0] + "y")
    assert screen.buffer[0][5].data == "y"
    assert len(MARKS) == len(set(MARKS)) == 297 and MARKS[-1] == "\U0001d244"


def test_tmux_hands_on_what_it_is_given() -> None:
    inner = transmission(7, NOISE, 5, 11, 9000) + deletion(7)
    outer = through_tmux(inner)
    parts = re.findall(r"\x1bPtmux;((?:\x1b\x1b|[^\x1b])*)\x1b\\", outer)
    assert "".join(part.replace("\x1b\x1b", "\x1b") for part in parts) == inner
    assert COMMAND.match(inner) and not COMMAND.match(outer)


# -- what a terminal has been sent -----------------------------------------------------------


def shown(seed: int, rows: int = 5) -> Shown:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Shown(pixels, rows, 10)


def test_only_what_changed_is_sent_and_all_of_it_is_cleared() -> None:
    album, reader = Album("truecolor"), Reader()
    album.show([shown(1), shown(2), shown(3)])
    first = album.news()
    assert 1000 < len(first) < MOST_BYTES + 1000
    reader.read(first)
    assert len(reader.pictures) == 3 and album.news() == ""
    album.show([shown(1), shown(4), shown(3, rows=6)])
    reader.read(album.news())
    again = read(album.clearing())
    assert again == {} and album.news() != "", "a terminal that forgot is sent everything"
    album.news()
    reader.read(album.clearing())
    assert reader.pictures == {}


@pytest.mark.parametrize("colours", ["256", "truecolor"])
def test_the_colour_of_the_text_is_the_number_of_the_picture(colours: Any) -> None:
    from rich.console import Console
    from rich.style import Style

    album = Album(colours)
    album.show([shown(1), shown(2), shown(3)])
    numbers = [int(n) for n in re.findall(r"i=(\d+)", album.news())]
    console = Console(color_system=colours, force_terminal=True, legacy_windows=False)
    for place, number in enumerate(dict.fromkeys(numbers)):
        written = Style(color=album.ink(place)).render("x", color_system=console._color_system)
        if colours == "256":
            assert f"38;5;{number}" in written and 16 <= number < 256
        else:
            red, green, blue = number.to_bytes(3, "big")
            assert f"38;2;{red};{green};{blue}" in written
    assert len(set(numbers)) == 3
    assert album.usable and not Album("standard").usable and not Album(None).usable


# -- which terminals -------------------------------------------------------------------------

PLAIN = {"TERM": "xterm-256color"}


@pytest.mark.parametrize(
    ("choice", "environment", "found"),
    [
        ("auto", PLAIN, Way.ASK),
        ("auto", PLAIN | {"TMUX": "/tmp/x"}, Way.BLOCKS),
        ("auto", PLAIN | {"STY": "1.x"}, Way.BLOCKS),
        ("auto", {"TERM": "linux"}, Way.BLOCKS),
        ("auto", PLAIN | {"TERM_PROGRAM": "Apple_Terminal"}, Way.BLOCKS),
        ("auto", PLAIN | {"NO_COLOR": "1"}, Way.BLOCKS),
        ("kitty", PLAIN, Way.SEND),
        ("kitty", PLAIN | {"TMUX": "/tmp/x"}, Way.THROUGH_TMUX),
        ("kitty", PLAIN | {"NO_COLOR": "1"}, Way.BLOCKS),
        ("blocks", PLAIN, Way.BLOCKS),
    ],
)
def test_who_is_asked(choice: Any, environment: dict[str, str], found: Way) -> None:
    assert way(choice, environment) is found
    assert way(choice, environment, ascii=True) is Way.BLOCKS


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match="screen does not hand pictures on"):
        way("kitty", {"STY": "1.x"})
    with pytest.raises(ValueError, match="there are auto, kitty, blocks"):
        chosen("sixel")


ANSWERS = "ab\x1b_Gi=31;OK\x1b\\c\x1bP>|kitty(0.36.4)\x1b\\d"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_answers_are_no_keys_however_they_are_cut(size: int) -> None:
    replies = Replies()
    replies.asked()
    keys = "".join(replies.take(ANSWERS[i : i + size]) for i in range(0, len(ANSWERS), size))
    assert (keys, replies.can_show, replies.name) == ("abcd", True, "kitty")


@pytest.mark.parametrize(
    ("answer", "can", "name"),
    [
        ("\x1bP>|ghostty 1.2.0\x1b\\\x1b_Gi=31;OK\x1b\\", True, "ghostty"),
        ("\x1bP>|WezTerm 20240203\x1b\\\x1b_Gi=31;OK\x1b\\", True, "wezterm"),
        ("\x1b_Gi=31;ENOTSUPPORTED:no\x1b\\", False, None),
        ("\x1b_Gi=4;OK\x1b\\", False, None),
        ("\x1bP>|XTerm(390)\x1b\\", None, "xterm"),
    ],
)
def test_what_answers_say(answer: str, can: bool | None, name: str | None) -> None:
    replies = Replies()
    replies.asked()
    assert replies.take(answer) == ""
    assert (replies.can_show, replies.name) == (can, name)


def test_keys_that_look_like_an_answer_are_not_lost() -> None:
    now = 0.0
    replies = Replies(lambda: now)
    assert replies.take("\x1b") == "\x1b", "nobody asked"
    replies.asked()
    assert (replies.take("a\x1b"), replies.silence()) == ("a", "\x1b")
    assert (replies.take("\x1b_"), replies.silence(), replies.silence()) == ("", "\x1b_", "")
    assert replies.take("\x1b[A") == "\x1b[A"
    now += EXPECTED_SECONDS
    assert replies.take("\x1b") == "\x1b", "whoever has not answered by now will not"
    assert (replies.take("\x1b_Gi="), replies.silence()) == ("", "")
    now += CUT_SECONDS
    assert replies.silence() == "\x1b_Gi=" and replies.silence() == ""
    assert replies.take("\x1b_G" + "x" * 300) != "", "no answer is as long as that"


# -- a dashboard on a terminal ---------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = made(tmp_path / "20261122-222755-toy-catch", RECORDED.read_bytes(), lr=4e-5)
    film(run.film_path)
    return run


def answer(screen: Terminal, *answers: bytes) -> None:
    """Wait for the question, and answer."""
    screen.wait_for(QUESTION.encode())
    assert NAME_QUESTION.encode() in screen.output
    for part in answers:
        screen.press(part)


def wait_for_pictures(screen: Terminal, count: int = 3) -> Reader:
    end = time.monotonic() + 20
    while True:
        reader = Reader()
        reader.read(screen.output.decode("utf-8", "replace"))
        if len(reader.pictures) == count:
            return reader
        assert time.monotonic() < end, screen.output[-2000:]
        screen.read(0.1)


def test_a_terminal_that_answers_gets_the_film_and_is_left_clean(run: RunDir) -> None:
    """Also in the shell that ctrl+z goes back to, and again after that."""
    frames = films.load(run.film_path)
    shot = frames.shots()[0]
    with trainer(run):
        screen = terminal(run, words=("-c", SHELL), COLORTERM="truecolor", SSH_CONNECTION="x")
        try:
            answer(screen, KITTY[:7], KITTY[7:] + YES[:4], YES[4:])
            screen.press(b"4")
            reader = wait_for_pictures(screen)
            for picture, frame in zip(reader.pictures.values(), frames.frame(shot, 0), strict=True):
                np.testing.assert_array_equal(picture.pixels[::10, ::10], frame)
            (number, picture), *_ = reader.pictures.items()
            ink = ";".join(map(str, number.to_bytes(3, "big")))
            screen.wait_for(f"38;2;{ink}".encode())
            screen.read(0.5)
            text = screen.output.decode("utf-8", "replace")
            assert "▀" not in text
            assert text.count(PLACEHOLDER) == 3 * picture.rows * picture.columns, "painted once"
            screen.press(b"\x1a")
            screen.wait_for(b"SHELL stopped True")
            reader.read(screen.output.decode("utf-8", "replace"))
            assert reader.pictures == {} and screen.is_clean()
            screen.output = b""
            screen.press(b"\n")
            wait_for_pictures(screen)
            screen.press(b"q")
            assert screen.exit_code() == 0 and screen.is_clean()
            reader.read(screen.output.decode("utf-8", "replace"))
            assert reader.pictures == {}
        finally:
            screen.close()


@pytest.mark.parametrize("name", [b"WezTerm 20240203", b""])
def test_a_terminal_that_says_no_or_nothing_gets_half_blocks(run: RunDir, name: bytes) -> None:
    with trainer(run):
        screen = terminal(run, COLORTERM="truecolor", SSH_CONNECTION="x")
        try:
            answer(screen, *([b"\x1bP>|" + name + b"\x1b\\" + YES] if name else []))
            screen.press(b"4")
            screen.wait_for(b"8;2;255;255;255")  # the ball
            screen.press(b"q")
            assert screen.exit_code() == 0 and screen.is_clean()
            assert read(screen.output.decode("utf-8", "replace")) == {}
            assert PLACEHOLDER.encode() not in screen.output
            assert run.take_requests() == [], "no letter of an answer was a key"
        finally:
            screen.close()
