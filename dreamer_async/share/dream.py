"""A picture of what a world model expects: real, reconstructed and dreamed images of a run.

Each block of three lines is one sequence from the replay: the real images, their
reconstructions, and the open-loop prediction, which sees the first `context` images and then
only the actions. Time goes to the right. `dream_film` makes a film of the same.

Legend: B sequences, T time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamer_async.agent.actor_critic import Agent
from dreamer_async.agent.open_loop import OpenLoop, decode, filter_and_dream, real
from dreamer_async.agent.states import RSSMState
from dreamer_async.agent.trainer import Trainer
from dreamer_async.config import Config, from_dict
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.replay.check import check_steps
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.setup import stored_ring_spec
from dreamer_async.run import saved_spec
from dreamer_async.run.staging import Staging
from dreamer_async.store import checkpoint
from dreamer_async.store.checkpoint_layout import TRAINER, under
from dreamer_async.store.run_dir import RunDir

GAP = 2
"""Pixels between images."""
NAMES = ("real", "reconstruction", "dream")
"""The three versions of an image, in their order."""
LEAST_SIDE = 64
"""Smaller images are enlarged to this many pixels a side, so that words beside them can be read."""


class NothingToSee(ValueError):
    """The run has no images or no replay; the message says which."""


class Expected(NamedTuple):
    """What arrived with each step, and what was expected of it."""

    real: Tensor
    """[B, T]."""
    reconstruction: Tensor
    """[B, T] by states that saw every observation."""
    prediction: Tensor
    """[B, T] by states that saw only the first few."""


class Dreams(NamedTuple):
    """Sequences of a run, seen and dreamed."""

    images: dict[str, OpenLoop]
    """{image key: [B, T, H, W, C]}."""
    reward: Expected
    """Rewards."""
    cont: Expected
    """Probabilities of going on: 0 where the episode ended by itself, else 1."""
    context: int
    """Steps whose observations the prediction has seen."""


def load(run_dir: RunDir) -> checkpoint.Checkpoint:
    """The newest valid checkpoint; raises CheckpointError."""
    return checkpoint.need(run_dir.path)


def draw(
    run_dir: RunDir, out: Path, *, rows: int = 3, context: int = 5, seed: int = 0
) -> tuple[str, ...]:
    """Write the picture of a run's newest valid checkpoint as PNG; returns why newer were skipped.

    Needs pillow (the extra `pictures`). Raises NothingToSee and CheckpointError.
    """
    from PIL import Image

    found = load(run_dir)
    result = dreams(run_dir, found, rows, context, seed)
    Image.fromarray(labelled(result)).save(out, "PNG")
    return found.skipped


def trainer_of(found: checkpoint.Checkpoint, rows: int = 0) -> Trainer:
    """What a checkpoint holds, on the CPU, with batches of at least so many rows."""
    config = from_dict(found.manifest["config"])
    if rows > config.train.batch_size:
        config = replace(config, train=replace(config.train, batch_size=rows))
    trainer = Trainer(saved_spec.of(found.manifest, config.env), config)
    trainer.load_state_dict(under(found.tensors, TRAINER))
    return trainer


@torch.no_grad()
def dreams(
    run_dir: RunDir, found: checkpoint.Checkpoint, rows: int, context: int, seed: int
) -> Dreams:
    """Dream `rows` sequences of a run on the CPU."""
    trainer = trainer_of(found, rows)
    agent, spec = trainer.agent, trainer.spec
    images = [name for name, obs in spec.obs.items() if obs.is_image]
    if not images:
        raise NothingToSee(
            f"{run_dir.name} observes no images, only {', '.join(spec.obs)}; --numbers says how "
            "well they are foreseen"
        )
    batch = sample(run_dir, trainer.config, spec, seed).batch()
    noise = trainer.draw_noise(torch.Generator().manual_seed(seed))
    states = filter_and_dream(agent, batch, noise, context)
    states = [RSSMState(*(part[:rows] for part in state)) for state in states]
    decoded = [decode(agent, state) for state in states]
    shown = {
        key: OpenLoop(real(batch.obs[key][:rows, 1:]), *(parts[key] for parts in decoded))
        for key in images
    }
    reward, cont = zip(*(paid_and_alive(agent, state.feat) for state in states), strict=True)
    alive = 1.0 - batch.is_terminal[:rows, 1:].float()
    return Dreams(
        shown, Expected(batch.reward[:rows, 1:], *reward), Expected(alive, *cont), context
    )


def paid_and_alive(agent: Agent, feat: Tensor) -> tuple[Tensor, Tensor]:
    """Reward and probability of going on that states [B, T, F] expect, [B, T] each."""
    cont = torch.sigmoid(agent.con(feat))
    discount = agent.discount if agent.loss.discount_in_cont else 1.0
    return agent.rew.mean(agent.rew(feat)), (cont / discount).clamp(max=1.0)


def sample(
    run_dir: RunDir,
    config: Config,
    spec: EnvSpec,
    seed: int,
    *,
    rows: int = 0,
    newest: bool = False,
) -> Staging:
    """Draw sequences from the run's replay without changing it, by default as many as a batch has.

    With `newest` they are its newest ones and do not overlap; there may be fewer of them.
    """
    ring, latents = run_dir.replay_paths(config.replay.directory)
    if not ring.exists() or not latents.exists():
        raise NothingToSee(f"{run_dir.name} no longer has a replay")
    on_disk = stored_ring_spec(config, spec, ring)
    with Replay.open(ring, latents, on_disk, seed=seed, readonly=True) as replay:
        check_steps(replay, spec, config.model.classes)
        count = rows or config.train.batch_size
        if newest and not (count := min(count, replay.newest_windows)):
            raise NothingToSee(f"{run_dir.name} has no sequence of every environment yet")
        staging = Staging(replay.spec, count, torch.device("cpu"))
        replay.sample(staging.buffers, online=False, newest=newest)
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


def labelled(result: Dreams) -> NDArray[np.uint8]:
    """The picture with a name at each line, and the steps above them."""
    from dreamer_async.share import captions

    times = max(-(-LEAST_SIDE // part.real.shape[3]) for part in result.images.values())
    large = {
        key: OpenLoop(*(_repeat(version, times) for version in part))
        for key, part in result.images.items()
    }
    picture = compose(large)
    names, row = [], 0
    for key, part in large.items():
        for _ in range(part.real.shape[0]):
            for name in NAMES:
                names.append((row, f"{key} {name}" if len(large) > 1 else name))
                row += part.real.shape[2] + GAP
            row += 2 * GAP
    left = captions.margin(names, picture.shape[0])
    first = next(iter(large.values())).real
    column, length = first.shape[3] + GAP, first.shape[1]
    every = -(-32 // column)
    steps = [
        (left.shape[1] + t * column, f"{'dream from ' * (t == result.context)}{t}")
        for t in range(length)
        if t == result.context or (t % every == 0 and not 0 < t - result.context <= 96 // column)
    ]
    line = captions.strip(steps, left.shape[1] + picture.shape[1], captions.DIM)
    return np.concatenate([line, np.concatenate([left, picture], 1)])


def _repeat(images: Tensor, times: int) -> Tensor:
    """Repeat every pixel of [B, T, H, W, C] images."""
    return images.repeat_interleave(times, 2).repeat_interleave(times, 3)
