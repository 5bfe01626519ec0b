"""Small files of JSON, and replacing a file whole."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dreamer_async.config.schema import parse_json
from dreamer_async.store.regular_file import read_regular

JSON_LIMIT = 1 << 20
"""Largest JSON file in bytes that is read."""


def write_json_atomic(path: Path, value: Any) -> None:
    """Replace `path` by the JSON of `value`, durably."""
    data = json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"
    with replacing(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(path.parent)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that takes the place of `path` at the end, and is gone after an error.

    Readers see the old or the new file, never a part. What must survive a power failure has to
    be synced, too.
    """
    scratch = path.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        with open(scratch, "xb") as file:
            yield file
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_json(path: Path) -> Any:
    """Read a small, regular JSON file; raises ValueError that names the file if it is not one."""
    data = read_regular(path, JSON_LIMIT)
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
