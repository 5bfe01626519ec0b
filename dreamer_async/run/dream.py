"""A picture of what a world model expects: real, reconstructed and dreamed images of a run.

Each block of three lines is one sequence from the replay: the real images, their
reconstructions, and the open-loop prediction, which sees the first `context` images and then
only the actions. Time goes to the right.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dreamer_async import envs
from dreamer_async.agent.open_loop import OpenLoop, open_loop
from dreamer_async.agent.trainer import Trainer
from dreamer_async.config import Config, from_dict
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.replay.check import check_steps
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.setup import stored_ring_spec
from dreamer_async.run.staging import Staging
from dreamer_async.store import checkpoint
from dreamer_async.store.checkpoint_layout import TRAINER, under
from dreamer_async.store.run_dir import RunDir

GAP = 2
"""Pixels between images."""


class NothingToSee(ValueError):
    """The run has no images or no replay; the message says which."""


def draw(
    run_dir: RunDir, out: Path, *, rows: int = 3, context: int = 5, seed: int = 0
) -> tuple[str, ...]:
    """Write the picture of a run's newest valid checkpoint as PNG; returns why newer were skipped.

    Needs pillow (the extra `pictures`). Raises NothingToSee and CheckpointError.
    """
    from PIL import Image

    found = checkpoint.need(run_dir.path)
    picture = compose(dreams(run_dir, found, rows, context, seed))
    Image.fromarray(picture).save(out)
    return found.skipped


def dreams(
    run_dir: RunDir, found: checkpoint.Checkpoint, rows: int, context: int, seed: int
) -> dict[str, OpenLoop]:
    """Dream `rows` sequences of a run on the CPU: {image key: [rows, T, H, W, C]}."""
    config: Config = from_dict(found.manifest["config"])
    spec = envs.spec_of(config.env)
    images = [name for name, obs in spec.obs.items() if obs.is_image]
    if not images:
        raise NothingToSee(f"{run_dir.name} observes no images, only {', '.join(spec.obs)}")
    trainer = Trainer(spec, config)
    trainer.load_state_dict(under(found.tensors, TRAINER))
    staging = sample(run_dir, config, spec, seed)
    noise = trainer.draw_noise(torch.Generator().manual_seed(seed))
    result = open_loop(trainer.agent, staging.batch(), noise, context)
    return {name: OpenLoop(*(part[:rows] for part in result[name])) for name in images}


def sample(run_dir: RunDir, config: Config, spec: EnvSpec, seed: int) -> Staging:
    """Draw one batch from the run's replay without changing it."""
    ring, latents = run_dir.replay_paths(config.replay.directory)
    if not ring.exists() or not latents.exists():
        raise NothingToSee(f"{run_dir.name} has no replay any more")
    on_disk = stored_ring_spec(config, spec, ring)
    with Replay.open(ring, latents, on_disk, seed=seed, readonly=True) as replay:
        check_steps(replay, spec, config.model.classes)
        staging = Staging(replay.spec, config.train.batch_size, torch.device("cpu"))
        replay.sample(staging.buffers, online=False)
    return staging


def compose(results: dict[str, OpenLoop]) -> NDArray[np.uint8]:
    """Lay out [rows, T, H, W, C] images in [0, 1] as one RGB picture [height, width, 3]."""
    lines = []
    for result in results.values():
        for row in range(result.real.shape[0]):
            lines += [_strip(part[row].numpy()) for part in result]
            lines.append(np.zeros((2 * GAP, lines[0].shape[1], 3), np.uint8))
    return np.concatenate(lines[:-1])


def _strip(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Set [T, H, W, C] images side by side."""
    pixels = np.round(255 * images.clip(0, 1)).astype(np.uint8)
    colour = np.broadcast_to(
        pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1], (*pixels.shape[:-1], 3)
    )
    padded = np.pad(colour, ((0, 0), (0, GAP), (0, GAP), (0, 0)))
    return np.concatenate(list(padded), 1)
