"""Agents on the Hugging Face hub: `hf://user/name` or `hf://user/name@revision` (the extra `hub`).

Only the two files of weights are fetched, safetensors and JSON; nothing that could be run is.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Any

from dreamer_async.store.checkpoint import MANIFEST, STATE, CheckpointError

PREFIX = "hf://"
_NAME = re.compile(r"hf://(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


def local(path: str | Path) -> Path:
    """The path itself, or the folder that an agent of the hub was fetched into.

    Raises ValueError for a malformed name or without huggingface_hub, and CheckpointError when the
    hub does not give the files.
    """
    if not str(path).startswith(PREFIX):
        return Path(path)
    repo, revision = parse(str(path))
    folder = _cache() / f"{repo.replace('/', '--')}@{(revision or 'main').replace('/', '--')}"
    api = library(str(path))
    try:
        api.snapshot_download(
            repo_id=repo,
            revision=revision,
            allow_patterns=[MANIFEST, STATE],
            local_dir=str(folder),  # files themselves: links into a cache are not followed
        )
    except Exception as error:  # whatever the library raises: network, rights, names
        raise CheckpointError(f"{path}: {_first_line(error)}") from error
    if not (folder / MANIFEST).exists():
        raise CheckpointError(f"{path} has no {MANIFEST}: it was not made by `dreamer-async push`")
    return folder


def parse(name: str) -> tuple[str, str | None]:
    """Repository and revision of `hf://user/name@revision`; ValueError if it is none."""
    if (match := _NAME.fullmatch(name)) is None:
        raise ValueError(f"{name!r} is not a name on the hub: write hf://user/name")
    return match["repo"], match["revision"]


def library(what: str) -> Any:
    """huggingface_hub; ValueError that says how to install it."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise ValueError(
            f"{what} needs huggingface_hub: pip install 'dreamer-async[hub]'"
        ) from None


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "dreamer-async" / "hub"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
