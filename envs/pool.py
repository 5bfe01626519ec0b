"""Environments of envpool: C++ threads that step many environments of one task.

envpool checks almost nothing, and a wrong action or option kills the process (out of bounds, a
failed assertion, a segmentation fault), so that everything is validated here. Its `recv` waits in
C without the GIL and can neither be interrupted nor timed out; with too little in flight it waits
for ever. When `batch_size` is `num_envs`, it expects the actions of all environments in one `send`:
from two it makes rows that nobody stepped, and hangs in its destructor. The destructor joins the
threads while it holds the GIL.

This module imports envpool and gymnasium; only import it inside functions.

Legend: N rows of one batch, E environments.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs import children, names, needs
from dreamer_async.envs.drawing.turns import DRAWING, TurnPool
from dreamer_async.envs.native import space_json
from dreamer_async.envs.native.actions import ActionWriter, write_space
from dreamer_async.envs.observed.reader import ObsReader, UnsupportedSpace, is_vector
from dreamer_async.envs.pool_task import PIXELS, PoolTask, Reader
from dreamer_async.envs.raw_pool import RawPool, RawRows
from dreamer_async.envs.spaces import read_space, without
from dreamer_async.envs.spec import ActionSpec, EnvSpec, StepBatch
from dreamer_async.envs.suite import Options
from dreamer_async.envs.vector import EnvError, Requests, VectorEnv, check_rows, env_seeds
from dreamer_async.envs.view import PLAIN

envpool: Any = needs.import_envpool()

_FLOAT32 = np.dtype(np.float32)

TRY_SECONDS = 60.0
"""How long one environment with arguments of the user may take to make and to step."""
_WITH_OPENGL = ("envpool.mujoco", "envpool.gfootball")
"""Parts of envpool that draw by OpenGL."""
CLOSE_SECONDS = 5.0
"""How long `close` waits for steps in flight before it leaves the pool alone for ever."""


def describe(task: PoolTask) -> EnvSpec:
    """Describe a task without opening an environment."""
    return _plan(task)[0]


def _plan(task: PoolTask) -> tuple[EnvSpec, tuple[Reader, ...], ActionWriter]:
    task = _checked(task)
    with _quiet():
        spec = envpool.make_spec(task.env_id, **task.options)
        observation, action = spec.observation_space, spec.action_space
    try:
        if spec.config.max_num_players > 1:
            raise UnsupportedSpace("tasks for several players are not supported")
        usual = partial(read_space, view=task.view, hidden=task.hidden)
        readers = usual(observation) if task.readers is None else _own_readers(task, observation)
        writer = write_space(action)
    except UnsupportedSpace as error:
        raise UnsupportedSpace(f"{task.suite} {task.task}: {error}") from None
    obs = {reader.name: reader.spec for reader in readers}
    native = space_json.native(without(observation, task.hidden), action)
    taken = {each.name: each.taken() for each in readers if isinstance(each, ObsReader)}
    frames = task.frames_per_step
    described = EnvSpec(task.suite, task.task, obs, writer.spec, frames, native=native, taken=taken)
    return described, readers, writer


def _own_readers(task: PoolTask, space: Any) -> tuple[Reader, ...]:
    """Readers of a suite that has its own; keys can be left out."""
    assert task.readers is not None
    readers, kinds = task.readers(space), task.view.kinds
    known = {names.squash(reader.name): reader.name for reader in readers}
    for key, kind in kinds.items():
        if key not in known.values():
            close = names.nearest(key, known)
            raise UnsupportedSpace(names.describe("observation key", key, close, known.values()))
        if kind != "hidden":
            raise UnsupportedSpace(
                f"{key} is read by its suite's own rules: only --as {key}=hidden is possible"
            )
    if task.view.image != PLAIN.image:
        raise UnsupportedSpace(f"env.image={task.view.image} makes no difference; leave it out")
    left = tuple(reader for reader in readers if reader.name not in kinds)
    if not left:
        raise UnsupportedSpace("every observation key is hidden")
    return left


def defaults_of(env_id: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every option that envpool has for a task, with its value where nobody gives one."""
    pixels = envpool.registration.registry.specs[env_id][0].startswith("envpool.mujoco.")
    with _quiet():
        config = envpool.make_spec(env_id, **(options or {})).config._asdict()
    return {**config, **(PIXELS if pixels else {})}


def _checked(task: PoolTask) -> PoolTask:
    """The same task with the user's arguments among its options; ValueError if they are wrong."""
    args = task.view.args
    if not args:
        return task
    defaults = defaults_of(task.env_id, task.options)
    options = task.asked(defaults)
    drawn = task.drawn or bool(args.get("from_pixels"))
    if drawn:
        needs.require_drawing()
    if fault := _try(task.env_id, json.dumps(options)):
        given = ", ".join(f"{name}={value!r}" for name, value in args.items())
        raise ValueError(f"{task.env_id} cannot be used with {given}: {fault}")
    frames = task.frames(defaults)
    view = replace(task.view, args={})
    return replace(task, options=options, drawn=drawn, frames_per_step=frames, view=view)


_TRY = """
import json, sys
import numpy as np
from dreamer_async.envs import needs
env_id, options = json.loads(sys.argv[1])
options = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
pool = needs.import_envpool().make(env_id, env_type="gymnasium", num_envs=1, seed=0, **options)
pool.reset()
for _ in range(3):
    pool.step(np.stack([pool.action_space.sample()]))
"""


@cache
def _try(env_id: str, options: str) -> str:
    """Make and step a pool in a process of its own, which a wrong value may end; why it failed."""
    path = f"import sys; sys.path[:] = {sys.path!r}\n"
    command = children.bound([sys.executable, "-P", "-c", path + _TRY, f'["{env_id}", {options}]'])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRY_SECONDS)
    except subprocess.TimeoutExpired:
        return f"it does not step within {TRY_SECONDS:.0f} seconds"
    if not done.returncode:
        return ""
    said = (done.stderr.strip().splitlines() or [f"it ends with exit code {done.returncode}"])[-1]
    return said[:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop the warnings of gymnasium about bounds that lose precision."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class PoolEnv(VectorEnv):
    """One envpool pool; see VectorEnv."""

    def __init__(self, task: PoolTask, options: Options) -> None:
        task = _checked(task)
        in_turn = task.drawn and needs.require_drawing()
        self.spec, self._readers, self._writer = _plan(task)
        self._draws = options.drawn and _draws(task.env_id)
        self.num_envs, self.batch_size = options.num_envs, options.batch_size
        self._time_limit_is_terminal = task.time_limit_is_terminal
        self._first = np.ones(self.num_envs, np.bool_)
        self._requests = Requests(self.spec.action, self.num_envs, self.batch_size)
        self._sending = threading.Lock()
        self._lockstep = self.batch_size == self.num_envs
        self._held = self._writer.write(_zeros(self.spec.action, self.num_envs))
        with DRAWING if in_turn else nullcontext(), _quiet():
            pool = envpool.make(
                task.env_id,
                env_type="gymnasium",
                num_envs=self.num_envs,
                batch_size=self.batch_size,
                num_threads=1 if in_turn else min(options.threads, self.num_envs),
                seed=env_seeds(options.seed, self.num_envs),
                **({"render_mode": "rgb_array"} if self._draws else {}),
                **(_binding(task.env_id) | dict(task.options)),
            )
            _ = pool.observation_space  # which warns when it is first used, else in recv
        self._pool: Any = TurnPool(pool, self.batch_size) if in_turn else RawPool(pool)
        self._vectors: list[tuple[str, int, slice, tuple[int, ...]]] = []
        self._length = self.batch_size  # of `_read_vectors`: rewards, then the vectors
        for reader in filter(is_vector, self._readers):
            shape = (self.batch_size, *reader.spec.shape)
            where = slice(self._length, self._length + math.prod(shape))
            self._vectors.append((reader.name, self._pool.index(reader.path), where, shape))
            self._length = where.stop
        self._others = [reader for reader in self._readers if not is_vector(reader)]

    @property
    def pool(self) -> Any:
        """The pool itself, to measure this adapter against; every batch received must be sent."""
        return self._pool.pool

    @property
    def in_flight(self) -> int:
        return self._requests.in_flight

    def start(self) -> None:
        with self._sending:
            self._requests.take_all()
            self._first[:] = True
            self._pool.async_reset()

    def send(self, action: NDArray[Any], env_id: NDArray[np.int32]) -> None:
        with self._sending:
            self._requests.take(action, env_id)
            if not self._lockstep:
                self._pool.send(self._writer.write(action), env_id.copy())
                return
            self._held[env_id] = self._writer.write(action)
            if self.in_flight == self.num_envs:  # in order of env_id, as the rows then are too
                self._pool.send(self._held.copy(), np.arange(self.num_envs, dtype=np.int32))

    def recv(self) -> StepBatch:
        with self._requests.receiving:
            pool = self._pool  # which close takes away
            raw = pool.recv()
            if len(raw.env_id) != self.batch_size:
                count = len(raw.env_id)
                raise EnvError(f"envpool delivered {count} rows instead of {self.batch_size}")
            self._requests.put(raw.env_id)
            return self._rows(raw, pool.observation)

    def _rows(self, raw: RawRows, observation: Callable[[Any], Any]) -> StepBatch:
        """Convert and check a batch. Where an episode starts comes from our books, not from
        envpool's step counter, and the reward there is whatever was in memory."""
        env_id, last = raw.env_id, raw.done
        place = env_id.astype(np.intp)  # other integers index ten times slower
        first = self._first[place]
        self._first[place] = last
        raw.reward[first] = 0
        flat, obs = self._read_vectors(raw.values)
        reward = flat[: self.batch_size]
        reward[...] = raw.reward
        if self._others:
            given = observation(raw.values)
            obs |= {reader.name: reader.read(given) for reader in self._others}
        terminal = last.copy() if self._time_limit_is_terminal else last > raw.truncated
        rows = StepBatch(env_id, obs, reward, first, last, terminal)
        finite = math.isfinite(np.vdot(flat, flat))
        if self._others or not finite:
            originals = {} if finite else self._originals(raw)
            check_rows(self.spec, rows, raw.steps, originals)
        return rows

    def _read_vectors(
        self, values: Sequence[NDArray[Any]]
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Convert all vectors, {key: [N, D]}, into one array behind room for the rewards, so that
        one pass can tell whether everything is finite."""
        flat = np.empty(self._length, _FLOAT32)
        obs: dict[str, Any] = {}
        for name, index, where, shape in self._vectors:
            value = values[index]
            obs[name] = vector = flat[where].reshape(shape)
            vector[...] = value if value.shape == shape else value.reshape(shape)
        return flat, obs

    def _originals(self, raw: RawRows) -> dict[str, NDArray[Any]]:
        """What became float32, as it was."""
        vectors = {name: raw.values[index] for name, index, _, _ in self._vectors}
        return vectors | {"reward": raw.reward}

    def render(self, env_id: int) -> NDArray[np.uint8] | None:
        if not self._draws or env_id in self._requests.pending:
            return None
        try:
            with DRAWING:
                return self.pool.render(env_ids=[env_id])[0]
        except RuntimeError:  # most tasks of toy text have no picture
            self._draws = False
            return None

    def close(self) -> None:
        """Receive what is in flight and free the pool, or leave it alone if that takes too long."""
        if not self._requests.close():
            return
        with self._sending:
            pool, self._pool = self._pool, None
        free = threading.Thread(target=self._free, args=(pool,), name="envpool close", daemon=True)
        del pool  # a thread that hangs keeps the only reference, and so the destructor away
        free.start()
        free.join(CLOSE_SECONDS)

    def _free(self, pool: Any) -> None:
        self._drain(pool)
        pool.free()

    def _drain(self, pool: Any) -> None:
        """Receive until nothing is in flight, asking idle environments to fill the last batch."""
        with self._requests.draining():
            pending = self._requests.pending
            if not pool.steps_ahead or (self._lockstep and len(pending) < self.num_envs):
                return  # whatever was asked for is held here
            while pending:
                idle = [i for i in range(self.num_envs) if i not in pending]
                fill = np.array(idle[: max(0, self.batch_size - len(pending))], np.int32)
                if len(fill):
                    pool.send(self._writer.write(_zeros(self.spec.action, len(fill))), fill)
                pending.update(fill.tolist())
                pending.difference_update(pool.recv().env_id.tolist())


def _draws(env_id: str) -> bool:
    """Whether asking a task for its picture is safe: without OpenGL it would end the process."""
    entry, *_ = envpool.registration.registry.specs[env_id]
    if not entry.startswith(_WITH_OPENGL):
        return True
    try:
        needs.require_drawing()
    except needs.MissingNeed:
        return False
    return True


def _binding(env_id: str) -> dict[str, str]:
    """Options that let no process outlive ours: VizDoom plays each game in one of its own.

    Each game looks for its directory and makes it where it is missing; two that do so at once end
    our process. EnvError if it cannot be made.
    """
    entry, *_ = envpool.registration.registry.specs[env_id]
    if not entry.startswith("envpool.vizdoom"):
        return {}
    try:
        Path("_vizdoom").mkdir(exist_ok=True)
    except OSError as error:
        raise EnvError(f"VizDoom keeps files where it is started: {error}") from None
    return {"vzd_path": children.stand_in(envpool.make_spec(env_id).config.vzd_path)}


def _zeros(spec: ActionSpec, rows: int) -> NDArray[Any]:
    """A valid batch of actions."""
    return np.zeros((rows, *spec.shape), spec.dtype)
