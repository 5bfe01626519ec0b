"""A loop that belongs to its user: a robot, a simulator that nobody can call, a web service.

The user's program steps; a trainer, a process of its own, answers with actions, records everything
and learns in the background. One step costs one round trip to the trainer's policy, which neither
updates nor checkpoints hold up.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from dreamer_async import envs
from dreamer_async.cli.inputs import as_settings, device_kind, readable, unused_gpu
from dreamer_async.cli.launch import start_trainer
from dreamer_async.cli.new_run import check_room, create_run
from dreamer_async.config import (
    Config,
    ConfigError,
    changed_shapes,
    override,
    parse_overrides,
    resolve,
)
from dreamer_async.config.arguments import checked
from dreamer_async.envs.native import space_json
from dreamer_async.envs.session import address
from dreamer_async.envs.session.caller import Caller, Hung, Row
from dreamer_async.envs.session.server import PARENT
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.suites import session as suite
from dreamer_async.python.factory import refuse_in_worker
from dreamer_async.python.run import Run, RunFailed
from dreamer_async.python.settings import as_words, root_of
from dreamer_async.run import checkpoint_room
from dreamer_async.run.one_caller import OneCaller
from dreamer_async.store.run_dir import RUN_NAME, RunDir
from dreamer_async.store.summary import load_config

Space = gymnasium.Space[Any]
Spaces = tuple[Space, Space]
Trainer = subprocess.Popen[bytes]

_OWN = {
    "env.num_envs": "num_bodies says how many there are",
    "env.batch_size": "all bodies act at once",
    "env.args": "its spaces are given as such",
    "env.repeat": "whoever steps it repeats its actions",
    "replay.source": "it learns from its own steps; a session can go on with a run of `learn`",
}
"""Settings that a session has no use for, and why."""
CALL_SECONDS = 0.02
"""How often a trainer that starts is called."""


class Session:
    """A run whose environment is the program that holds this object.

        with Session(observation_space, action_space, run="robot") as session:
            action = session.reset(obs)
            while ...:
                obs, reward, terminated, truncated = ...  # do the action
                action = session.step(obs, reward, terminated, truncated)
                if terminated or truncated:
                    action = session.reset(...)  # the first observation of the next episode

    Observations and actions are those of the two Gymnasium spaces, and rewards and flags what
    `gymnasium.Env.step` returns. With `num_bodies` above 1 everything has a leading axis, as in
    `gymnasium.vector`, and a body whose episode has ended continues by itself: its next row is the
    first of its next episode (the autoreset mode NEXT_STEP).

    When `step` returns, its row is stored and survives a kill of either process. An existing run of
    this name continues if its spaces are the same. If a trainer is already running in it (after
    `dreamer-async resume NAME`), the session joins that trainer, which outlives it. Otherwise the
    trainer saves and ends when the session is closed or left, or when this program dies.

    It serves one thread at a time: a call that comes while another runs is a RuntimeError, with
    nothing recorded.
    """

    @checked
    def __init__(
        self,
        observation_space: Space,
        action_space: Space,
        *,
        run: str = "session",
        runs_dir: str | Path | None = None,
        num_bodies: int = 1,
        size: str | None = None,
        seed: int | None = None,
        ratio: float | None = None,
        device: str | None = None,
        threads: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin or go on with a run, and return when it answers (seconds; more on a GPU).

        `size`, `seed`, `ratio` (replayed steps per row), `device`, `threads` and `settings` are as
        in `dreamer_async.train`. Raises ConfigError (a ValueError) before anything is created,
        RunInUse if another program steps this run, and RunFailed if the trainer ends.
        """
        refuse_in_worker("dreamer_async.Session")
        if num_bodies < 1:
            raise ConfigError(f"num_bodies is {num_bodies}, but must be at least 1")
        self.num_bodies = num_bodies
        self.action_space, self.observation_space = action_space, observation_space
        self._batched = batch_space(observation_space, num_bodies) if num_bodies > 1 else None
        flags = as_settings(seed=seed, ratio=ratio, device=device, threads=threads)
        words = [*as_words(flags), *as_words(settings or {})]
        run_dir = RunDir(root_of(runs_dir) / _name(run))
        new = _config(run, observation_space, action_space, num_bodies, size, words)
        resume = run_dir.path.exists()
        if resume:
            words = [*words, "train.updates=0"]  # of a run that has learned without a program
        config = _same(run_dir, new, size, words) if resume else new
        spec = readable(config)
        notes = _prepare(run_dir, config, resume=resume)
        self._over = np.ones(num_bodies, bool)
        self._begun = self._closed = False
        self._stepping = OneCaller("another thread steps this session")
        self._trainer: Trainer | None = None
        self._run_dir = run_dir
        self.run = Run(run_dir, notes=notes)
        """The run, to read its events and returns; end it with `close`."""
        view, spaces = envs.View.of(config.env), (observation_space, action_space)
        join = partial(self._joined, spec, spaces, view)
        start = partial(_start, run_dir, words if resume else [], resume=resume)
        try:
            self._caller = self._running_one(join) or self._own(start, join)
        except BaseException as error:
            self._abandon()
            raise self._explained(error) from None

    # -- stepping ----------------------------------------------------------------------------

    def reset(self, obs: Any) -> Any:
        """Begin an episode, of every body, with its first observation; returns its first action.

        An episode that has not ended is cut here. Raises ValueError for an observation that is not
        of its space, and as `step` does.
        """
        with self._stepping:
            rows = [self._caller.row(each, 0.0, False, False) for each in self._each(obs)]
            return self._act(rows, np.ones(self.num_bodies, bool))

    def step(
        self, obs: Any, reward: Any, terminated: Any, truncated: Any, *, action: Any = None
    ) -> Any:
        """Record what the last action led to and return the next one.

        `terminated` ends an episode because of the task, `truncated` for any other reason. There
        is no action then: None, and `reset` begins the next episode. (With several bodies, actions
        of ended episodes mean nothing, and rewards of first rows do not count.)

        `action` is what was really done, if that differs from the action that was returned last:
        because of a safety layer or a human. It is recorded instead, and the agent learns from it
        as from its own. (With several bodies it has an entry for each.)

        Raises ValueError, with nothing recorded, for what does not fit the spaces; RunFailed if
        the trainer has failed or was killed, ConnectionError if another process stopped it.
        """
        with self._stepping:
            if not self._begun or (self.num_bodies == 1 and self._over[0]):
                raise ValueError("no episode is running: session.reset(obs) begins one")
            columns = map(self._column, (reward, terminated, truncated))
            parts = zip(self._each(obs), *columns, self._done(action), strict=True)
            rows = [self._caller.row(*part) for part in parts]
            return self._act(rows, self._over.copy())

    def _act(self, rows: Sequence[Row], is_first: NDArray[np.bool_]) -> Any:
        if self._closed:
            raise ValueError("the session is closed")
        self._begun = False  # until there is an answer, so that a failed one needs a reset
        try:
            actions = self._caller.exchange(rows, is_first)
        except Hung as error:
            raise self._explained(error) from None
        self._begun = True
        self._over[:] = [row.terminated or row.truncated for row in rows]
        if self.num_bodies == 1:
            return None if self._over[0] else actions[0]
        batch = create_empty_array(self.action_space, self.num_bodies)
        return concatenate(self.action_space, actions, batch)

    def _each(self, obs: Any) -> list[Any]:
        """The observation of each body."""
        if self._batched is None:
            return [obs]
        try:
            rows = list(iterate(self._batched, obs))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"observations of {self.num_bodies} bodies: {error}") from None
        return self._counted("observations", rows)

    def _done(self, action: Any) -> list[Any]:
        """What each body did; None of one that did what it was told, or begins an episode."""
        if action is None or self._batched is None:
            return [action] * self.num_bodies
        space = batch_space(self.action_space, self.num_bodies)
        try:
            each = self._counted("actions", list(iterate(space, action)))
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"actions of {self.num_bodies} bodies: {error}") from None
        return [None if over else done for over, done in zip(self._over, each, strict=True)]

    def _column(self, values: Any) -> list[Any]:
        """One number or flag of each body."""
        if self.num_bodies == 1:
            return [values]
        return self._counted("rewards and flags", list(np.asarray(values).reshape(-1)))

    def _counted(self, what: str, values: list[Any]) -> list[Any]:
        if len(values) != self.num_bodies:
            raise ValueError(f"{what} of {len(values)} bodies, but there are {self.num_bodies}")
        return values

    # -- beginning and ending ----------------------------------------------------------------

    def close(self) -> None:
        """End the session: a trainer that it started saves and ends first. May be called twice.

        Raises RunFailed if that fails.
        """
        if self._closed:
            return
        self._closed = True
        self._caller.close()
        if self._trainer is not None:
            self.run.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except RunFailed:
            if error is None:  # else that one counts, which may be the same
                raise

    def _running_one(self, join: Callable[[], Caller]) -> Caller | None:
        """Join a trainer that runs already; None if there is none, or none any more.

        One that ends, because the program that began it has, is waited for.
        """
        if not self.run.running:
            return None
        try:
            return join()
        except Hung as refused:
            if str(refused):
                raise
        with suppress(RunFailed):
            self.run.wait()
        return None

    def _own(self, start: Callable[[], Trainer], join: Callable[[], Caller]) -> Caller:
        """Start a trainer that ends with this session, or join one that was quicker."""
        self._trainer = start()
        self.run = Run(self._run_dir, self._trainer, self.run.notes)
        caller = join()
        owner = self._run_dir.owner()
        if owner is not None and owner.get("pid") != self._trainer.pid:
            self._end_trainer()  # the run is taken, so that it would end by itself
            self._trainer, self.run = None, Run(self._run_dir, notes=self.run.notes)
        return caller

    def _joined(self, spec: EnvSpec, spaces: Spaces, view: envs.View) -> Caller:
        """Call until the trainer answers; Hung once it is gone, or with its reason."""
        while (line := address.connect(self._run_dir.control)) is None:
            if not self.run.running:
                raise Hung
            time.sleep(CALL_SECONDS)
        return Caller(line, spec, self.num_bodies, spaces, view)

    def _abandon(self) -> None:
        """End a trainer that this session started and cannot use."""
        self._closed = True
        self._end_trainer()

    def _end_trainer(self) -> None:
        if self._trainer is not None and self._trainer.poll() is None:
            self._trainer.terminate()
            self._trainer.wait()

    def _explained(self, error: BaseException) -> BaseException:
        """What a connection that ended means."""
        if not isinstance(error, Hung):
            return error
        if str(error):
            from dreamer_async.store.run_lock import RunInUse

            return RunInUse(f"{self.run.name}: {error}")
        try:
            ended = self.run.wait()
        except RunFailed as failed:
            return failed
        name = self.run.name
        return ConnectionError(f"{name} has {ended.reason} ({ended.message}); it can continue")


def _name(run: str) -> str:
    if not RUN_NAME.fullmatch(run) or run == "last":
        raise ConfigError(
            f"run={run!r} is not a name for a run: use letters, digits, dots, dashes and "
            "underscores"
        )
    return run


def _config(
    name: str, seen: Space, done: Space, num_bodies: int, size: str | None, words: Sequence[str]
) -> Config:
    """The settings of a new session; ConfigError for spaces that no agent here can use."""
    for key in parse_overrides(words).keys() & _OWN.keys():
        raise ConfigError(f"{key} is not a session's to choose: {_OWN[key]}")
    wanted = resolve(suite.NAME, name, size=size, overrides=words).train.device
    kind = device_kind(wanted)
    config = resolve(suite.NAME, name, size=size, overrides=words, device=kind)
    if config.train.sync:
        raise ConfigError("a session cannot run in lockstep (train.sync): its caller would wait")
    if config.train.updates:
        raise ConfigError("train.updates is for recorded experience, not for a session")
    try:
        args = {suite.OBSERVATION: space_json.encode(seen), suite.ACTION: space_json.encode(done)}
    except ValueError as error:
        raise ConfigError(str(error)) from None
    env = replace(config.env, args=args, num_envs=num_bodies, batch_size=0)
    return replace(config, env=env)


def _same(run_dir: RunDir, new: Config, size: str | None, words: Sequence[str]) -> Config:
    """The settings of a run that goes on; ConfigError if it is another one than is meant."""
    if not run_dir.exists():
        raise ConfigError(f"{run_dir.path} exists but is not a run; choose another run=")
    run_dir.refuse_links()
    old = load_config(run_dir)
    if old.env.suite != suite.NAME:
        raise ConfigError(
            f"{run_dir.name} is a run of {old.env.suite}/{old.env.task}, not of a session; "
            "choose another run="
        )
    for name in (suite.OBSERVATION, suite.ACTION):
        if old.env.args.get(name) != new.env.args[name]:
            raise ConfigError(
                f"{run_dir.name} has another {name} than this one; choose another run= or "
                f"delete it with `dreamer-async runs rm {run_dir.name}`"
            )
    if old.env.num_envs != new.env.num_envs:
        raise ConfigError(
            f"{run_dir.name} has {old.env.num_envs} bodies, not {new.env.num_envs}; its replay is "
            "laid out for them"
        )
    if size is not None and new.size != old.size:
        raise ConfigError(f"{run_dir.name} is of {old.size}, not {new.size}")
    changed = override(old, words)
    for key, reason in changed_shapes(old, changed).items():
        raise ConfigError(f"{key} cannot change in {run_dir.name}: {reason}")
    return changed


def _prepare(run_dir: RunDir, config: Config, *, resume: bool) -> tuple[str, ...]:
    """Check the disk, and create the directory of a new run; returns what deserves a look."""
    note = unused_gpu(config.train.device, device_kind(config.train.device))
    if resume:
        notes = [note, checkpoint_room.room_to_resume(config, run_dir.checkpoints)]
    else:
        room = check_room(config, run_dir.path.parent)
        _, swept = create_run(run_dir.path.parent, run_dir.name, config, named=True)
        notes = [note, room, *swept]
    return tuple(filter(None, notes))


def _start(run_dir: RunDir, words: Sequence[str], *, resume: bool) -> Trainer:

    parent = {PARENT: str(os.getpid())}
    return start_trainer(run_dir, resume=resume, overrides=words, variables=parent)
