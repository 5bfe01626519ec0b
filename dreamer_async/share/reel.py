"""The film of an evaluation: episodes of its first environment, with what the agent thinks of them.

A frame is what the environment draws of itself, or else its first image observation.

Legend: N environments, D deter, S stoch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dreamer_async import envs
from dreamer_async.agent.heads import TwohotHead
from dreamer_async.agent.policy import PolicyCarry
from dreamer_async.agent.states import RSSMState
from dreamer_async.config import Config, from_dict
from dreamer_async.envs.spec import EnvSpec, StepBatch
from dreamer_async.run.evaluate import LONGEST, Evaluation, Say, evaluate, shares
from dreamer_async.run.films.video import Films, Frame, enlarge, films
from dreamer_async.store import checkpoint
from dreamer_async.store.checkpoint_layout import AGENT, under

SIDE = 384
"""Small frames are enlarged until their larger side has as many pixels."""
Value = Callable[[RSSMState], float]
"""What the critic expects from a state [1, D], [1, S, K]."""


class NoPicture(ValueError):
    """The task has neither a picture of its own nor an image to observe."""


class Reel:
    """Films environment 0 for some episodes, as a `Spectator`."""

    def __init__(
        self,
        films: Films,
        episodes: int,
        value: Value | None = None,
    ) -> None:
        """With `value` a line below each frame says score, step and what the critic expects."""
        self._films, self._left, self._value = films, episodes, value
        self._score, self._step = 0.0, 0

    def watch(self, pool: envs.VectorEnv, step: StepBatch, carry: PolicyCarry) -> None:
        """Film environment 0; NoPicture if there is nothing to see of it."""
        if not self._left:
            return
        row = int(np.flatnonzero(step.env_id == 0)[0])
        first = bool(step.is_first[row])
        self._score = 0.0 if first else self._score + float(step.reward[row])
        self._step = 0 if first else self._step + 1
        frame = enlarge(frame_of(pool, step, row), SIDE)
        self._films.add(self._labelled(frame, carry, row))
        self._left -= bool(step.is_last[row])

    def _labelled(self, frame: Frame, carry: PolicyCarry, row: int) -> Frame:
        if self._value is None:
            return frame
        value = self._value(RSSMState(carry.deter[row : row + 1], carry.stoch[row : row + 1]))
        text = f"score {self._score:g}   value {value:z.2f}   step {self._step}"
        from dreamer_async.share.captions import below, strip  # the extra `pictures`

        return below([frame, strip([(4, text)], frame.shape[1])])


def evaluate_filmed(
    run: Path,
    episodes: int,
    seed: int,
    *,
    device: str = "auto",
    best: bool = False,
    longest: int = LONGEST,
    say: Say = lambda text: None,
    files: tuple[Path | None, Path | None],
    fps: int,
    overlay: bool = False,
) -> tuple[Evaluation, str]:
    """Evaluate as `evaluate` does, and film it; also returns what was filmed, in words.

    `files` are MP4 and GIF. Raises NoPicture, and then writes nothing.
    """
    value = critic(checkpoint.need(run, of_best=best)) if overlay else None
    with films(*files, fps) as out:
        shown = int(shares(episodes)[0])
        reel = Reel(out, shown, value)
        result = evaluate(
            *(run, episodes, seed),
            device=device,
            best=best,
            longest=longest,
            say=say,
            spectator=reel,
        )
    names = " and ".join(str(path) for path in files if path is not None)
    plural = "s" * (episodes > 1)
    some = f"{shown} of {episodes} episodes" if shown < episodes else f"{shown} episode{plural}"
    cut = f"; the GIF leaves out the last {out.left_out}" if out.left_out else ""
    return result, f"wrote {names}: {some}, {out.frames:,} steps{cut}"


def frame_of(pool: envs.VectorEnv, step: StepBatch, row: int) -> Frame:
    """What one environment looks like now: [H, W, 3]."""
    drawn = pool.render(int(step.env_id[row]))
    return observed(pool.spec, step, row) if drawn is None else drawn


def observed(spec: EnvSpec, step: StepBatch, row: int) -> Frame:
    """The first image of one row in colour, [H, W, 3]; NoPicture if there is none."""
    for key, obs in spec.obs.items():
        if obs.is_image:
            return coloured(step.obs[key][row])
    raise NoPicture(
        f"{spec.suite}/{spec.task} cannot be filmed: it draws no picture of itself, and "
        f"observes no image, only {', '.join(spec.obs)}"
    )


def coloured(image: NDArray[np.generic]) -> Frame:
    """Bytes [H, W, C] as RGB: gray ones three times, and of more than three channels the first."""
    channels = image[..., :3] if image.shape[-1] >= 3 else image[..., :1]
    return np.array(np.broadcast_to(channels, (*image.shape[:2], 3)), np.uint8)


def critic(found: checkpoint.Checkpoint) -> Value:
    """The critic of a checkpoint, on the CPU."""
    config: Config = from_dict(found.manifest["config"])
    model = config.model
    feat = model.deter + model.stoch * model.classes
    head = TwohotHead(feat, model.units, model.critic_layers, model.bins)
    head.load_state_dict(under(under(found.tensors, AGENT), "val."))

    @torch.no_grad()
    def value(state: RSSMState) -> float:
        feat = RSSMState(*(part.float().cpu() for part in state)).feat
        return float(head.mean(head(feat)))

    return value
