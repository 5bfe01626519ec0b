"""How fast the replay gives batches and takes steps, against plain copies of the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dreamer_async.bench.synthetic import adder
from dreamer_async.bench.timing import Timing, timed, timed_in_turn, timing
from dreamer_async.config import Config
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.replay.layout import RingSpec, SampleBuffers, aligned, ring_bytes
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.setup import ring_spec

COLD_BYTES = 128_000_000
"""Size of a measured replay: images do not fit the caches, as those of a real one do not."""
MOST_STEPS = 16_384
"""Steps of a measured replay beyond one window an environment, however small they are."""


@contextmanager
def filled_replay(config: Config, spec: EnvSpec) -> Iterator[Replay]:
    """A small replay of made-up experience, in a temporary directory."""
    ring = ring_spec(config, spec, 0)
    beyond = min(MOST_STEPS, COLD_BYTES // ring.field_bytes)
    ring = ring_spec(config, spec, config.env.num_envs * ring.length + beyond)
    with TemporaryDirectory(prefix="dreamer-async-") as folder:
        paths = Path(folder) / "ring", Path(folder) / "latents"
        with Replay.create(*paths, ring, seed=config.train.seed) as replay:
            add = adder(replay, spec)
            for _ in range(ring.capacity):
                add()
            yield replay


def memory(config: Config, spec: EnvSpec, seconds: float) -> list[Timing]:
    """Time sampling one batch, copying as many bytes, and adding one step."""
    with filled_replay(config, spec) as replay:
        out = SampleBuffers.allocate(replay.spec, config.train.batch_size)
        nbytes = sum(array.nbytes for array in out.fields.values())
        actions = {"sample": lambda: replay.sample(out), "copy": copier(replay.spec, nbytes)}
        times = timed_in_turn(actions, seconds * 2 / 3)
        adding = [t / replay.spec.num_envs for t in timed(adder(replay, spec), seconds / 3)]
        overhead = sum(ring_bytes(replay.spec)) / (replay.spec.num_envs * replay.spec.capacity)
        overhead -= replay.spec.raw_bytes
    shape = f"{config.train.batch_size}x{replay.spec.length}"
    share = float(np.median(np.divide(times["copy"], times["sample"])))
    return [
        timing("replay", f"sample {shape}", "s/batch", times["sample"], share_of_copy=share),
        timing("replay", f"copy {nbytes / 1e6:.1f} MB", "s/batch", times["copy"]),
        timing("replay", "add", "s/step", adding, extra_bytes_per_step=overhead),
    ]


def copier(spec: RingSpec, nbytes: int) -> Callable[[], None]:
    """Copy `nbytes` in one piece, from anywhere in as much memory as the fields of a ring take.

    A source of only so many bytes would come from the cache, where no batch of a replay lies.
    """
    ring = spec.num_envs * spec.capacity * spec.field_bytes
    source = np.ones(max(ring, nbytes + 1), np.uint8)
    target = aligned((nbytes,), "uint8")
    rng = np.random.default_rng(0)

    def copy() -> None:
        begin = rng.integers(len(source) - nbytes)
        np.copyto(target, source[begin : begin + nbytes])

    return copy
