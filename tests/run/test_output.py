"""Printing for somebody who does not read."""

from __future__ import annotations

import fcntl
import io
import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from dreamer_async.run.output import Output

PIPE_BYTES = 4096
PATIENCE_S = 60.0
"""How long something is waited for that comes at once, if it comes."""


@contextmanager
def pipe(*, blocking: bool = True) -> Iterator[tuple[int, TextIO]]:
    """The reading end of a small pipe, and a stream into it."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    os.set_blocking(writer, blocking)
    with open(writer, "w", encoding="utf-8") as stream:
        try:
            yield reader, stream
        finally:
            os.close(reader)


def read_until(reader: int, text: str) -> str:
    """Read to the end of a text; fails if it does not come."""
    seen = b""
    while text.encode() not in seen:
        assert select.select([reader], [], [], PATIENCE_S)[0], f"{text!r} is not in {seen!r}"
        seen += os.read(reader, 1 << 16)
    return seen.decode()


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_come_in_order_however_large_and_slow(blocking: bool) -> None:
    """A pipe that somebody made non-blocking is no broken one."""
    lines = [f"{number} {'x' * 1000}\n" for number in range(50)]
    with pipe(blocking=blocking) as (reader, stream):
        output = Output(stream)
        for line in lines:
            output.write(line)
        assert read_until(reader, lines[-1]) == "".join(lines)
        output.close()
        assert output.dropped == 0


def test_whoever_does_not_read_costs_nothing_but_lines_and_learns_how_many() -> None:
    with pipe() as (reader, stream):
        output = Output(stream, room=10)
        began = time.monotonic()
        for number in range(1000):
            output.write(f"{number} {'x' * 1000}\n")
        assert time.monotonic() - began < PATIENCE_S
        dropped = output.dropped
        assert 900 < dropped < 1000
        seen = read_until(reader, "because nothing read them\n")
        assert seen.endswith(f"... {dropped} lines were dropped because nothing read them\n")
        assert seen.count("\n") == 1000 - dropped + 1
        output.write("later\n")
        assert read_until(reader, "later\n") == "later\n"
        output.close()


def test_printing_itself_would_wait_for_a_reader() -> None:
    """The control of the test before."""
    with pipe() as (reader, stream):
        thread = threading.Thread(target=lambda: print("x" * (1 << 16), file=stream, flush=True))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        end = time.monotonic() + PATIENCE_S
        while thread.is_alive():  # it may end between this and a read, which would wait for ever
            assert time.monotonic() < end
            if select.select([reader], [], [], 0.1)[0]:
                os.read(reader, 1 << 16)


def test_closing_waits_a_little_for_the_last_lines_and_not_for_ever() -> None:
    with pipe() as (reader, stream):
        output = Output(stream)
        output.write("x" * (1 << 16))
        began = time.monotonic()
        output.close(seconds=0.2)
        assert 0.15 < time.monotonic() - began < PATIENCE_S
        os.read(reader, 1 << 16)
    out = io.StringIO()
    output = Output(out)
    output.write("last words\n")
    output.close()
    assert out.getvalue() == "last words\n", "a stream that is no file"


def test_a_closed_pipe_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = open(writer, "w", encoding="utf-8")  # noqa: SIM115  closed below
    output = Output(stream)
    for _ in range(5):
        output.write("nobody reads this\n")
    output.close()
    stream.close()
