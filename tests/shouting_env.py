"""An environment that prints what a terminal would obey, from Python and from below it."""

from __future__ import annotations

import os
import sys
from typing import Any

from tests.faulty_envs import Walk

SCREAM = "\x1b[2J\x1b]0;x\x07"


class Shouting(Walk):
    """Prints while it is built, and raises in the same voice."""

    def __init__(self) -> None:
        super().__init__()
        print(f"{SCREAM}built")
        print(f"{SCREAM}warned", file=sys.stderr)
        os.write(1, f"{SCREAM}deep\n".encode())
        os.write(2, f"{SCREAM}unfinished".encode())

    def step(self, action: Any) -> Any:
        raise ArithmeticError(f"{SCREAM}fell")
