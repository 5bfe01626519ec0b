"""Films for the dashboard: what was seen, its reconstruction, and an open-loop prediction.

Now and then, and when asked, the learner thread decodes a few sequences of the batch that it
trained on last, between two updates. No random number of the training is drawn and no sequence
is sampled for it, so that a lockstep run stays what it was bit for bit. The newest film replaces
the one before: `pictures/film.npz`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dreamer_async.agent.open_loop import OpenLoop, open_loop
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.run.aio import OwnedThread
from dreamer_async.run.films import elements
from dreamer_async.run.learner import Learner
from dreamer_async.run.telemetry import Telemetry
from dreamer_async.store.events import Controlled
from dreamer_async.store.json_file import replacing

"""Name of the newest film below `pictures/` of the run."""
PERIOD_SECONDS = 120.0
MOST_TIME = 0.01
"""Largest share of the learner's time that periodic films may take."""
ROWS = 4
"""Sequences in a film."""
CONTEXT = 5
"""Steps that the prediction may see."""
SIDE = 96
"""Larger images are thinned out to at most this many pixels a side."""
DIMENSIONS = 32
"""Numbers kept of a longer vector observation."""

Film = dict[str, NDArray[Any]]
"""meta: JSON text of version, update, env_steps, context, time (unix seconds), pause (seconds until
the next periodic film), names {key: [D]} of the numbers of a vector, classes {key: count} of those
that are categories; is_first [R, T]; image/<key> uint8 [3, R, T, H, W, C]; vector/<key> float32
[3, R, T, D]. The three are real, reconstructed, predicted."""


class Filmer:
    """Makes films in the learner thread and writes them in the writer thread."""

    def __init__(
        self,
        path: Path,
        learner: Learner,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._learner = learner
        self._telemetry = telemetry
        self._clock = clock
        self._asked = asyncio.Event()
        self._pause = PERIOD_SECONDS / 8  # the first one comes soon
        self._generator = torch.Generator().manual_seed(0)

    def ask(self) -> None:
        """Ask `film_every` for a film now; asking twice gives one."""
        self._asked.set()

    async def film_every(self, learner_thread: OwnedThread, writer_thread: OwnedThread) -> None:
        """Film now and then, and when asked, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), self._pause)
            asked = self._asked.is_set()
            self._asked.clear()
            film = await learner_thread.run(self.shoot)
            self._answer(asked, await writer_thread.run(self._write, film))

    def shoot(self) -> Film | None:
        """Film the batch of the newest update; None before the first. Runs between updates."""
        batch = self._learner.last_batch()
        if batch is None:
            return None
        began = self._clock()
        trainer = self._learner.trainer
        rows = min(ROWS, batch.reward.shape[0])
        few = batch.map(lambda tensor: tensor[:rows])
        noise = trainer.draw_noise(self._generator)
        noise = noise._replace(posterior=noise.posterior[:rows])
        context = min(CONTEXT, few.reward.shape[1] - 2)
        result = open_loop(trainer.agent, few, noise, context, trainer.observe)
        film = {"is_first": few.is_first[:, 1:].cpu().numpy()}
        for key, parts in result.items():
            film |= dict([_pictures(key, parts, trainer.agent.spec.obs[key].is_image)])
        self._pause = max(PERIOD_SECONDS, (self._clock() - began) / MOST_TIME)
        meta = {
            "version": 1,
            "update": self._learner.updates,
            "env_steps": self._telemetry.position.env_steps,
            "context": context,
            "time": time.time(),
            "pause": self._pause,
            **_numbers(trainer.agent.spec),
        }
        return {"meta": np.array(json.dumps(meta)), **film}

    def _write(self, film: Film | None) -> str:
        """Replace the film on disk; returns why not, or nothing."""
        if film is None:
            return "there was no update yet"
        try:
            write(self.path, film)
        except OSError as error:
            return f"the film could not be written: {error.strerror}"
        return ""

    def _answer(self, asked: bool, trouble: str) -> None:
        if asked:
            answer = "refused" if trouble else "done"
            self._telemetry.emit(Controlled("film", answer, trouble))


def _pictures(key: str, parts: OpenLoop, is_image: bool) -> tuple[str, NDArray[Any]]:
    """Lay the three versions of one observation out as an array and name it."""
    stacked = torch.stack([part.float() for part in parts]).cpu().numpy()
    if not is_image:
        flat = stacked.reshape(*stacked.shape[:3], -1)[..., :DIMENSIONS]
        return f"vector/{key}", flat.astype(np.float32)
    step = -(-max(stacked.shape[3:5]) // SIDE)
    channels = 3 if stacked.shape[-1] >= 3 else 1  # two are no colours: the first is shown as gray
    thinned = stacked[:, :, :, ::step, ::step, :channels].clip(0, 1)
    return f"image/{key}", np.round(255 * np.nan_to_num(thinned)).astype(np.uint8)


def _numbers(spec: EnvSpec) -> dict[str, Any]:
    """What the numbers of each observation that is no image are called, and which are classes."""
    seen = {key: obs for key, obs in spec.obs.items() if not obs.is_image}
    return {
        "names": {key: elements.names(spec, key, DIMENSIONS) for key in seen},
        "classes": {key: obs.classes for key, obs in seen.items() if obs.classes},
    }


def write(path: Path, film: Film) -> None:
    """Replace the file: readers see the old or the new film, never a part."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **film)
    with replacing(path) as file:
        file.write(buffer.getvalue())
