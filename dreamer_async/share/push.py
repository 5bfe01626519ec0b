"""Weights of a run on the Hugging Face hub, with their card (the extra `hub`)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dreamer_async.run.hub import library, parse
from dreamer_async.share.weights import FILES, export
from dreamer_async.store.run_dir import RunDir


class PushFailed(RuntimeError):
    """The hub did not take the files; the message says why, in the hub's words."""


def push(
    run: RunDir,
    name: str,
    *,
    best: bool = False,
    episodes: int = 10,
    seed: int = 0,
    private: bool = False,
) -> tuple[str, ...]:
    """Upload a run's weights to `hf://user/name`; returns why newer checkpoints were skipped.

    Raises ValueError, CheckpointError and PushFailed.
    """
    repo, revision = parse(name)
    api = library("push").HfApi()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "weights"
        skipped = export(run, folder, best=best, episodes=episodes, seed=seed, name=name)
        try:
            api.create_repo(repo_id=repo, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo,
                folder_path=str(folder),
                revision=revision,
                allow_patterns=list(FILES),
                commit_message=f"{run.name}",
            )
        except Exception as error:  # whatever the library raises: network, rights, names
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            raise PushFailed(f"{name}: {first}") from error
    return skipped
