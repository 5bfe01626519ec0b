"""What commands print: nothing of it moves a cursor, whoever wrote it."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamer_async import cli
from dreamer_async.cli import commands
from dreamer_async.machine.console import CleanStream, clean_output, printable

ROOT = Path(__file__).resolve().parents[2]
SCREAM = "\x1b[2J\x1b]0;x\x07a\u202eb\x9b\r\x08\x00c\ud800"


@given(st.text())
def test_what_is_left_is_printable_and_nothing_else_is_lost(text: str) -> None:
    left = printable(text)
    assert all(char.isprintable() or char in "\n\t" for char in left)
    assert [c for c in text if c.isprintable()] == [c for c in left if c.isprintable()]


def test_streams_are_clean_inside_the_block_only(capsys: pytest.CaptureFixture[str]) -> None:
    with clean_output():
        print(SCREAM)
        print(SCREAM, file=sys.stderr)
    out, err = capsys.readouterr()
    assert out == err == "[2J]0;xabc\n"
    print("\x1b")
    assert capsys.readouterr().out == "\x1b\n"


def test_a_clean_stream_is_like_the_one_below() -> None:
    below = io.TextIOWrapper(io.BytesIO(), "ascii", "replace")
    stream = CleanStream(below)
    assert stream.write(SCREAM) == len(SCREAM)
    stream.flush()
    assert stream.buffer.getvalue() == b"[2J]0;xabc"  # type: ignore[attr-defined]
    assert (stream.encoding, stream.errors, stream.isatty()) == ("ascii", "replace", False)


def test_a_traceback_is_cleaned_and_is_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise AttributeError(SCREAM)

    monkeypatch.setattr(commands, "run", fail)
    assert cli.main(["version"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and "[2J" in err
    assert all(line.isprintable() for line in err.split("\n"))


CLOSED = """
import os, sys
from dreamer_async.machine.console import open_closed_streams
{opening}
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.write(1, b"printed below Python")
print("printed")
print("an error", file=sys.stderr, flush=True)
assert "<&-" not in sys.argv[2] or sys.stdin.read() == ""
"""


@pytest.mark.parametrize(
    ("closed", "opened"),
    [(">&-", True), ("<&- >&- 2>&-", True), (">&-", False)],
    ids=["stdout", "all", "control"],
)
def test_no_file_takes_the_place_of_a_closed_stream(
    tmp_path: Path, closed: str, opened: bool
) -> None:
    file, script = tmp_path / "replay", CLOSED.format(opening="open_closed_streams()" * opened)
    shell = f'exec "$0" -c "$1" "$2" "$3" {closed}'
    words = ["sh", "-c", shell, sys.executable, script, str(file), closed]
    assert subprocess.run(words, cwd=ROOT, timeout=60).returncode == 0
    assert file.read_text() == ("" if opened else "printed below Python")
