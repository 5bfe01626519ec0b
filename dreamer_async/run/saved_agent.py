"""A trained agent in three lines, in the units of its environment.

agent = dreamer_async.load("last")
observation, _ = env.reset()
action = agent.act(observation)
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dreamer_async import envs
from dreamer_async.agent.policy import Policy, PolicyCarry
from dreamer_async.config import Config, EnvConfig, from_dict
from dreamer_async.config.arguments import checked
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.fast.place import take_place
from dreamer_async.run import hub, saved_spec
from dreamer_async.run.one_caller import OneCaller
from dreamer_async.store import checkpoint
from dreamer_async.store.checkpoint_layout import AGENT, Counters, under
from dreamer_async.store.run_dir import RunDir, RunNotFound

if TYPE_CHECKING:
    import gymnasium


class SavedAgent:
    """The agent of a checkpoint: `load` makes one.

    It takes observations exactly as the environment gives them (an array for a Box, a number for a
    Discrete, a dict or tuple where the space is one) and returns actions as `env.step` takes them,
    with the bounds, `start`, type and nesting of the action space. Images of any size and keys that
    `--as` names are read as in training. For tasks with their own way of reading observations
    (toys, MiniGrid, `--resize exact`) observations are dicts of the keys of `spec.obs`:
    `observation_space` says what is taken.

    Where a run repeats each action (`--repeat`), the caller does so, too. One agent serves one
    thread at a time: a call that comes while another runs is a RuntimeError.
    """

    def __init__(
        self,
        found: checkpoint.Checkpoint,
        device: str = "auto",
        seed: int = 0,
        task: str | None = None,
    ) -> None:
        self.path: Path = found.path
        """The checkpoint."""
        self.skipped: tuple[str, ...] = found.skipped
        """Checkpoints that would have come first and do not verify, each with its reason."""
        try:
            self.config: Config = from_dict(found.manifest.get("config"))
            """Settings of the run."""
            counters = Counters.read(found.manifest)
            env = self.config.env
            self.spec: EnvSpec = _spec(found, env, task)
            """What the agent sees and decides."""
            self._translator = envs.translator(self.spec, envs.View.of(env))
        except saved_spec.WRONG as error:
            raise checkpoint.CheckpointError(f"{found.path.name}: {error}") from error
        self.env_steps: int = counters.env_steps
        """Agent steps that the run had seen."""
        self.updates: int = counters.updates
        """Updates that it had made."""
        place = take_place(replace(self.config.train, device=device))
        self.policy: Policy = Policy(
            self.spec, self.config, place.device, place.precision, place.backend
        )
        """Acts on batches in the units of `spec`."""
        self.generator: torch.Generator = torch.Generator().manual_seed(seed)
        """Random numbers of latents and actions."""
        self._load_weights(found)
        self._carry: PolicyCarry | None = None
        self._acting = OneCaller("this agent acts for another thread; load one for each")

    @property
    def observation_space(self) -> gymnasium.Space[Any]:
        """What `act` takes."""
        return self._translator.observation_space

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        """What `act` returns."""
        return self._translator.action_space

    def reset(self) -> None:
        """Forget the episodes under way: the next observation starts one."""
        self._carry = None

    def act(self, obs: Any, is_first: ArrayLike | None = None, *, greedy: bool = False) -> Any:
        """Return the action for the next observation of an episode, remembering the episode.

        Call `reset` before the first observation of another one. With `is_first`, N bools, `obs`
        holds N observations, nested as one is with a leading axis in each array (texts are a
        sequence of N), and the actions come likewise; rows where `is_first` is True begin an
        episode. Actions are sampled as in training; `greedy` takes the likeliest ones.

        Raises ValueError that names the key, what was given and what its space says.
        """
        with self._acting:
            return self._act(obs, is_first, greedy)

    def _act(self, obs: Any, is_first: ArrayLike | None, greedy: bool) -> Any:
        rows = 1 if is_first is None else len(_flags(is_first))
        carry = self._carry
        if carry is not None and len(carry.deter) != rows:
            if is_first is None or not _flags(is_first).all():
                raise ValueError(
                    f"the last observation was one of {len(carry.deter)} environments, this one "
                    f"is of {rows}: call reset() first"
                )
            carry = None
        action, self._carry = self._step(obs, carry, is_first, greedy)
        return action

    def initial(self, rows: int = 1) -> PolicyCarry:
        """The carry before the first observations of this many environments."""
        return self.policy.initial(rows)

    def step(
        self,
        obs: Any,
        carry: PolicyCarry | None,
        is_first: ArrayLike | None = None,
        *,
        greedy: bool = False,
    ) -> tuple[Any, PolicyCarry]:
        """Do what `act` does, with the caller's own carry; return the action and the next carry.

        `carry` None starts an episode in every row. Raises ValueError as `act`, and where
        observations, `is_first` and carry differ in their number of rows.
        """
        with self._acting:
            return self._step(obs, carry, is_first, greedy)

    def _step(
        self, obs: Any, carry: PolicyCarry | None, is_first: ArrayLike | None, greedy: bool
    ) -> tuple[Any, PolicyCarry]:
        if is_first is None:
            rows, first = self._translator.read(obs), np.zeros(1, bool)
        else:
            rows, first = self._translator.read_batch(obs), _flags(is_first)
        count = len(next(iter(rows.values())))
        if len(first) != count:
            raise ValueError(f"is_first is of {len(first)} rows, but {count} observations came")
        if carry is None:
            carry, first = self.initial(count), np.ones(count, bool)
        if len(carry.deter) != count:
            raise ValueError(f"carry is of {len(carry.deter)} rows, but {count} observations came")
        acted, carry = self.policy.act(rows, first, carry, self.generator, greedy=greedy)
        if is_first is None:
            return self._translator.write(acted.action[0]), carry
        return self._translator.write_batch(acted.action), carry

    def _load_weights(self, found: checkpoint.Checkpoint) -> None:
        """Copy the policy's part of the trainer's state; raises CheckpointError if it lacks any."""
        try:
            self.policy.load(under(found.tensors, AGENT))
        except (ValueError, RuntimeError) as error:
            raise checkpoint.CheckpointError(f"{found.path.name}: {error}") from error


@checked
def load(
    run: str | Path = "last",
    device: str = "auto",
    seed: int = 0,
    *,
    best: bool = False,
    task: str | None = None,
    runs_dir: str | Path | None = None,
) -> SavedAgent:
    """Load the agent of a run, or of one checkpoint.

    `run` is `last`, the name of a run in the runs directory (`runs_dir`, else DREAMER_RUNS_DIR,
    else `runs`), the path of a run or of a checkpoint, or what was pushed to the
    Hugging Face Hub (`hf://USER/NAME`, or with `@REVISION`). For a run it loads the newest valid
    checkpoint, or with `best` the one with the highest mean score of the 20 training episodes
    before it. `device` is cpu, cuda, cuda:N or auto; `seed` is that of latents and actions.

    No environment is built and none of the user's code is imported, because a checkpoint describes
    its environment. Checkpoints of earlier versions do not: if their task is `module:factory`,
    `task` has to name it again, since a file must not choose what is imported.

    Raises ValueError (`RunNotFound`) for a run that cannot be found, and for `best` of what is a
    checkpoint itself, and `CheckpointError` where nothing valid is saved.
    """
    path = find(run, runs_dir)
    single = (path / checkpoint.MANIFEST).exists()
    if single and best:
        raise ValueError(f"best chooses among the checkpoints of a run, and {run} is one by itself")
    found = checkpoint.read(path) if single else checkpoint.need(path, of_best=best)
    return SavedAgent(found, device, seed, task)


def find(run: str | Path, runs_dir: str | Path | None) -> Path:
    """The path of a run or of a checkpoint; RunNotFound for a name that is none."""
    root = Path(runs_dir or os.environ.get("DREAMER_RUNS_DIR") or "runs").expanduser()
    path = Path(run).expanduser()
    if str(run).startswith(hub.PREFIX):
        return hub.local(run)
    if isinstance(run, Path) or os.sep in run:
        return path.absolute()
    try:
        return RunDir.find(root, run).path
    except RunNotFound:
        if path.is_dir():
            return path.absolute()
        raise


def _spec(found: checkpoint.Checkpoint, env: EnvConfig, task: str | None) -> EnvSpec:
    """What a checkpoint says of its environment, or else what the suite does."""
    if task is not None and task != env.task:
        raise ValueError(f"task {task!r} is not this run's task, which is {env.task!r}")
    if task is not None and envs.is_code(task):
        envs.allow_code(task)
    return saved_spec.of(found.manifest, env)


def _flags(is_first: ArrayLike) -> NDArray[np.bool_]:
    """[N] bools, which may be written as numbers."""
    flags = np.asarray(is_first)
    if flags.ndim != 1 or flags.dtype.kind not in "biuf" or not np.isin(flags, (0, 1)).all():
        raise ValueError(f"is_first must be a list of bools, one per observation, not {is_first!r}")
    return flags.astype(bool)
