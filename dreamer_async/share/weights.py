"""Weights to pass on: a folder of safetensors and JSON, with a card for people.

    README.md           the model card: task, protocol, scores with seeds, how to load it
    state.safetensors   all parameters of the agent
    manifest.json       settings, and where the run stood, with the hash of the file above
    scores.json         the scores of the card

It is a checkpoint without what only training needs (moments, environments, random numbers), and
`dreamer_async.load` takes it as one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamer_async import __version__, envs
from dreamer_async.config import Config, ConfigError, from_dict
from dreamer_async.run import saved_spec
from dreamer_async.run.evaluate import Evaluation, evaluate
from dreamer_async.store import checkpoint
from dreamer_async.store.checkpoint_layout import AGENT
from dreamer_async.store.json_file import write_json_atomic
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sizes import counted
from dreamer_async.store.summary import chosen_settings, summarize

KEPT = (
    *("config", "env_steps", "updates", "skipped", "ratio_started", "ratio_debt"),
    *("replay_steps", "torch", "threads", saved_spec.KEY),
)
"""What the manifest keeps of that of the checkpoint."""
FILES = ("README.md", "scores.json", "state.safetensors", "manifest.json")
"""The manifest last: what reads a folder asks for it first."""


def check_folder(out: Path) -> None:
    """Refuse a folder that holds something, or whose parent is not there; raises ConfigError."""
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{out} cannot be made: {out.absolute().parent} is not a directory")
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not an empty directory")


def export(
    run: RunDir,
    out: Path,
    *,
    best: bool = False,
    episodes: int = 10,
    seed: int = 0,
    name: str = "FOLDER",
) -> tuple[str, ...]:
    """Write the folder of a run's newest checkpoint or of its best one; why newer were skipped.

    `out` is a new folder, or an empty one or a link to one, which stays the same. The agent plays
    `episodes` first, on the CPU, for the card, which says that it is loaded by `name`. Raises
    ConfigError and CheckpointError, and then leaves nothing behind.
    """
    out = out.absolute()  # `.` has neither a name nor a parent
    check_folder(out)
    found = checkpoint.need(run.path, of_best=best)
    played = None
    if episodes:
        played = evaluate(run.path, episodes, seed, device="cpu", best=best)
    scores = scores_of(run, found, played)
    tensors = {name: part for name, part in found.tensors.items() if name.startswith(AGENT)}
    manifest = {key: found.manifest[key] for key in KEPT if key in found.manifest}
    with _appearing(out) as folder:
        checkpoint.write(folder, tensors, manifest)
        (folder / checkpoint.STATE).chmod(0o644)
        write_json_atomic(folder / "scores.json", scores)
        (folder / "README.md").write_text(card(found, scores, name))
    return found.skipped


@contextlib.contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder that is `out` when it is complete, and gone after an error.

    One that is there already is filled and not replaced: somebody may be working in it.
    """
    there = out.is_dir()
    scratch = (out if there else out.parent) / f".new-{secrets.token_hex(8)}"
    scratch.mkdir()
    try:
        yield scratch
        if there:
            _fill(out, scratch)
        else:
            scratch.rename(out)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _fill(out: Path, scratch: Path) -> None:
    """Move all files of a folder up into the one that it is in: all of them or none."""
    if any(path != scratch for path in out.iterdir()):
        raise ConfigError(f"{out} is not empty any more: something was put there meanwhile")
    try:
        for name in FILES:
            (scratch / name).rename(out / name)
        scratch.rmdir()
    except BaseException:
        for name in FILES:
            (out / name).unlink(missing_ok=True)
        raise


def scores_of(
    run: RunDir, found: checkpoint.Checkpoint, played: Evaluation | None
) -> dict[str, Any]:
    """What is known of how well the agent plays, with the seeds of it."""
    config: Config = from_dict(found.manifest["config"])
    frames = envs.spec_of(config.env).frames_per_step
    summary = summarize(run)
    kept = ("seed", "episodes", "mean", "median", "std", "min", "max", "scores")
    return {
        "task": f"{config.env.suite}/{config.env.task}",
        "training_seed": config.train.seed,
        "env_steps": found.manifest["env_steps"],
        "frames": found.manifest["env_steps"] * frames,
        "updates": found.manifest["updates"],
        "recent_training_return": summary.recent_return,
        "evaluation": {key: getattr(played, key) for key in kept} if played else None,
    }


def card(found: checkpoint.Checkpoint, scores: dict[str, Any], name: str) -> str:
    """The model card, with the front matter that the Hugging Face hub reads."""
    config: Config = from_dict(found.manifest["config"])
    env = config.env
    repeat = envs.spec_of(env).frames_per_step
    chosen = chosen_settings(config)
    settings = " ".join(f"{key}={value}" for key, value in chosen.items()) or "as preset"
    return f"""---
library_name: dreamer-async
tags: [reinforcement-learning, world-model, dreamerv3, {env.suite}]
---

# DreamerV3 on {scores["task"]}

Size `{config.size}`, after {scores["env_steps"]:,} agent steps ({scores["frames"]:,} frames)
and {scores["updates"]:,} updates.

| | |
| --- | --- |
| task | `{scores["task"]}` ({envs.about(env.suite)}) |
| environment frames per agent step | {repeat} |
| actions | sampled, as in training |
| seed of the training | {config.train.seed} |
{_score_rows(scores)}| settings that differ from the presets | {settings} |
| dreamer-async | {__version__} |
| torch | {found.manifest.get("torch", "unknown")} |

## Use

```python
import dreamer_async

agent = dreamer_async.load("{name}")
action = agent.act(obs)  # as the environment gives it: {_observations(config)}
```

The parameters are in `state.safetensors`, the settings in `manifest.json`; nothing else is read.
"""


def _score_rows(scores: dict[str, Any]) -> str:
    """Rows of the table: what it played for the card, and at the end of the training."""
    rows = ""
    if played := scores["evaluation"]:
        count = counted(played["episodes"], "episode")
        rows += (
            f"| evaluation | {played['mean']:.2f} ± {played['std']:.2f} (mean and deviation of "
            f"{count}, seed {played['seed']}) |\n"
        )
    if (recent := scores["recent_training_return"]) is not None:
        rows += f"| last training episodes | {recent:.2f} (mean of up to 20, when exported) |\n"
    return rows


def _observations(config: Config) -> str:
    """{key: type [shape]} of the task."""
    spec = envs.spec_of(config.env)
    parts = (f'"{key}": {obs.dtype} {list(obs.shape)}' for key, obs in spec.obs.items())
    return "{" + ", ".join(parts) + "}"
