"""The replay against a plain list: whatever the calls and their order, both say the same."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dreamer_async.replay.layout import RingSpec, SampleBuffers
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.ring import Field

ENVS = 3
FIELDS = {
    "frame": Field((2, 2, 1), "uint8"),
    "action": Field((2,), "float32"),
    "reward": Field((), "float32"),
    "is_first": Field((), "bool"),
    "is_last": Field((), "bool"),
    "is_terminal": Field((), "bool"),
}


@dataclass
class Step:
    """One step as a plain list keeps it."""

    values: dict[str, Any]
    latent: int | None
    """What all of its latents are; None if they were lost."""


@dataclass
class Model:
    """Everything that was ever added, and the official queue in its simplest form."""

    capacity: int
    length: int
    history: list[list[Step]] = field(default_factory=lambda: [[] for _ in range(ENVS)])
    begun: list[int] = field(default_factory=lambda: [0] * ENVS)
    """Steps that a killed writer had begun and not finished, per environment."""
    queue: list[tuple[int, int]] = field(default_factory=list)
    completed: list[tuple[int, int]] = field(default_factory=list)
    """Every window that was ever queued."""

    def oldest(self, env: int) -> int:
        return max(0, len(self.history[env]) + self.begun[env] - self.capacity)

    def windows(self) -> set[tuple[int, int]]:
        return {
            (env, start)
            for env, steps in enumerate(self.history)
            for start in range(self.oldest(env), len(steps) - self.length + 1)
        }

    def add(self, env: int, step: Step) -> None:
        before = len(self.history[env])
        self.history[env].append(step)
        self.begun[env] = 0
        if before >= self.length and before % self.length == 0:
            self.queue.append((env, before - self.length + 1))
            self.completed.append(self.queue[-1])

    def pop(self) -> tuple[int, int] | None:
        while self.queue:
            env, start = self.queue.pop(0)
            if start >= self.oldest(env):
                return env, start
        return None


class ReplayMachine(RuleBasedStateMachine):
    """Calls in any order; `capacity` is small, so that rings wrap all the time."""

    replay: Replay

    @initialize(length=st.integers(2, 5), extra=st.integers(1, 12), seed=st.integers(0, 1000))
    def create(self, length: int, extra: int, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.spec = RingSpec(FIELDS, 3, 2, ENVS, length + extra, length)
        self.model = Model(self.spec.capacity, length)
        self.paths = self.folder / "ring", self.folder / "latents"
        self.replay = Replay.create(*self.paths, self.spec, seed=seed)
        self.samples: list[SampleBuffers] = []
        self.checkpoint = self.replay.state(), 0
        self.code = 0

    def teardown(self) -> None:
        if hasattr(self, "replay"):
            self.replay.close()
            shutil.rmtree(self.folder)

    @rule(
        order=st.permutations(range(ENVS)),
        count=st.integers(1, ENVS),
        first=st.integers(0, 5),
        last=st.integers(0, 5),
        times=st.integers(1, 9),
    )
    def add(self, order: list[int], count: int, first: int, last: int, times: int) -> None:
        for _ in range(times):
            self._add_once(order[:count], first == 0, last == 0)

    def _add_once(self, envs: list[int], first: bool, last: bool) -> None:
        codes = [self._next_code() for _ in envs]
        flags = {"is_first": first, "is_last": last, "is_terminal": first and last}
        fields = {
            "frame": np.array([np.full((2, 2, 1), code % 251) for code in codes], np.uint8),
            "action": np.array([[code, -code] for code in codes], np.float32),
            "reward": np.array(codes, np.float32),
            **{name: np.full(len(envs), value) for name, value in flags.items()},
        }
        latent = np.array([code % 200 for code in codes])
        self.replay.add(
            np.array(envs, np.int32),
            fields,
            np.repeat(latent[:, None], 3, 1).astype(np.float16),
            np.repeat(latent[:, None], 2, 1).astype(np.uint8),
        )
        for row, env in enumerate(envs):
            values = {name: np.array(array[row]) for name, array in fields.items()}
            self.model.add(env, Step(values, int(latent[row])))

    def _next_code(self) -> int:
        self.code += 1
        return self.code

    @precondition(lambda self: self.model.windows())
    @rule(rows=st.integers(1, 5), online=st.booleans())
    def sample(self, rows: int, online: bool) -> None:
        out = SampleBuffers.allocate(self.spec, rows)
        self.replay.sample(out, online=online)
        windows = self.model.windows()
        uniform = False
        for row, place in enumerate(zip(out.env.tolist(), out.start.tolist(), strict=True)):
            expected = self.model.pop() if online and not uniform else None
            uniform = uniform or expected is None
            assert place == (expected or place)
            assert place in windows
            self._compare(out, row, *place)
        self.samples.append(out)

    def _compare(self, out: SampleBuffers, row: int, env: int, start: int) -> None:
        steps = self.model.history[env][start : start + self.spec.length]
        lost = steps[0].latent is None
        for name, column in out.fields.items():
            wanted = [step.values[name] for step in steps]
            if name == "is_last":
                follows = [step.values["is_first"] for step in steps[1:]]
                wanted = [a or b for a, b in zip(wanted, [*follows, False], strict=True)]
            if name == "is_first":
                wanted = [True, wanted[1] or lost, *wanted[2:]]
            np.testing.assert_array_equal(column[row], np.array(wanted), err_msg=name)
        latent = steps[0].latent or 0
        assert out.deter[row].tolist() == [latent] * 3
        assert out.stoch[row].tolist() == [latent] * 2

    @precondition(lambda self: self.samples)
    @rule(data=st.data(), value=st.integers(0, 255))
    def write_latents(self, data: st.DataObject, value: int) -> None:
        out = data.draw(st.sampled_from(self.samples))
        size = len(out.env), self.spec.length - 1
        written = self.replay.write_latents(
            out.env,
            out.start,
            out.generation,
            np.full((*size, 3), value, np.float16),
            np.full((*size, 2), value, np.uint8),
        )
        expected = 0
        if out.generation == self.replay.generation:
            for env, start in zip(out.env.tolist(), out.start.tolist(), strict=True):
                for step in range(max(start + 1, self.model.oldest(env)), start + self.spec.length):
                    self.model.history[env][step].latent = value
                    expected += 1
        assert written == expected

    @rule()
    def save(self) -> None:
        """Remember a checkpoint, and what the queue was then."""
        self.checkpoint = json.loads(json.dumps(self.replay.state())), len(self.model.completed)

    @rule(lose_latents=st.booleans(), killed=st.sets(st.integers(0, ENVS - 1)))
    def restore(self, lose_latents: bool, killed: set[int]) -> None:
        """Restart from the last checkpoint, maybe after a kill in the middle of an add."""
        self._spoil(killed)
        self._reopen(lose_latents)
        state, known = self.checkpoint
        assert self.replay.load_state(state)
        saved = [(env, start) for env, start in state["queue"]]
        late = sorted(self.model.completed[known:], key=lambda window: window[::-1])
        self.model.queue = [
            (env, start) for env, start in saved + late if start >= self.model.oldest(env)
        ]

    @rule()
    def restart_without_checkpoint(self) -> None:
        self._reopen(lose_latents=False)
        self.model.queue = []

    def _spoil(self, envs: set[int]) -> None:
        """Leave the files as a writer does that is killed between reserving and publishing."""
        self.model.begun = [max(b, int(e in envs)) for e, b in enumerate(self.model.begun)]
        for env in envs:
            step = len(self.model.history[env])
            self.replay._cursors.reserved[env] = step + 1
            for column in self.replay._columns.values():
                column[env, step % self.spec.capacity] = 1
            self.replay._latent["deter"][env, step % self.spec.capacity] = np.nan

    def _reopen(self, lose_latents: bool) -> None:
        self.replay.close()
        if lose_latents:
            self.paths[1].unlink()
            for step in (step for steps in self.model.history for step in steps):
                step.latent = None
        generation = self.replay.generation
        self.replay = Replay.open(*self.paths, self.spec, seed=1)
        assert self.replay.generation == generation + 1

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "replay"):
            return
        assert self.replay.windows == len(self.model.windows())
        assert self.replay.steps == sum(len(steps) for steps in self.model.history)
        stats = self.replay.stats()
        assert stats["online_queue"] == len(self.model.queue)
        assert stats["torn"] == 0


TestReplayMachine = ReplayMachine.TestCase
TestReplayMachine.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
