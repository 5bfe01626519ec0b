"""How far ahead a world model predicts, in numbers: images, vectors, categories and rewards.

States that saw every observation are the starts. From each of them the model goes on open-loop with
the actions that were taken, and what it expects is compared with what came. From the same starts
the policy acts in imagination, as when it learns (eq. 6). The sequences are the newest of the
replay, collected by almost the same policy: if its imagination promises clearly more reward than
came, the policy has learned from the model's mistakes.

Legend: B sequences, T time, K starts in each, R = B * K starts, H steps ahead, J step 0 and those
ahead that are judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dreamer_async.agent.actions import draw_action_noise
from dreamer_async.agent.actor_critic import Agent, roll_out
from dreamer_async.agent.batch import Batch
from dreamer_async.agent.open_loop import actions_before, decode, filter_states, real
from dreamer_async.agent.states import RSSMState
from dreamer_async.envs.spec import ObsSpec
from dreamer_async.share.dream import NothingToSee, load, paid_and_alive, sample, trainer_of
from dreamer_async.store.run_dir import RunDir

SEQUENCES = 32
CONTEXT = 5
"""Steps of a sequence that are seen before the first start."""
EVERY = 4
"""Steps between two starts."""
AHEAD = (1, 2, 5, 10, 15)
STILL = 1e-12
"""What has less variance than this does not move."""
WRONG = " (wrong)"
"""Stands behind the names of categories."""
REWARD = "reward"


class Rewards(NamedTuple):
    """Mean rewards, each [J]."""

    came: list[float]
    """What came."""
    expected: list[float]
    """What was expected of the actions that were taken."""
    imagined: list[float]
    """What the policy gets in imagination."""


class Foresight(NamedTuple):
    """How well the next steps are predicted; every list has one number for each of `steps`."""

    starts: int
    """Predictions that were made."""
    steps: tuple[int, ...]
    """[J] steps ahead; 0 is the start itself, which was seen."""
    errors: dict[str, list[float]]
    """{observation key or reward: [J]} root mean square errors, as shares of the standard deviation
    in the replay: 1 is no better than the mean of all. Of categories the share that is wrong. NaN
    for what never changes."""
    categories: frozenset[str]
    """Which of the keys are categories."""
    rewards: Rewards
    """Mean rewards, beside those that were expected."""


def of_run(run_dir: RunDir, seed: int = 0) -> tuple[Foresight, tuple[str, ...]]:
    """Judge a run's newest valid checkpoint by the newest steps of its replay, on the CPU.

    Also returns why newer checkpoints were skipped. Raises NothingToSee and CheckpointError.
    """
    found = load(run_dir)
    trainer = trainer_of(found)
    newest, others = (
        sample(run_dir, trainer.config, trainer.spec, seed, rows=SEQUENCES, newest=which).batch()
        for which in (True, False)
    )
    generator = torch.Generator().manual_seed(seed)
    return foresight(trainer.agent, newest, others, generator), found.skipped


@torch.no_grad()
def foresight(agent: Agent, batch: Batch, others: Batch, generator: torch.Generator) -> Foresight:
    """Predict from many steps of a batch, and measure errors by how much `others` spread.

    NothingToSee if the sequences of the batch are too short for a prediction.
    """
    length = batch.reward.shape[1] - 1  # T: index 0 is the context step
    steps = (0, *(ahead for ahead in AHEAD if CONTEXT + ahead <= length))
    if len(steps) == 1:
        raise NothingToSee(f"sequences have {length} steps; a prediction takes {CONTEXT + 1}")
    starts = torch.arange(CONTEXT - 1, length - steps[-1], EVERY)  # [K]
    first = batch.is_first[:, 1:]
    actions = actions_before(agent, batch)  # [B, T, W]
    noise = torch.rand(*first.shape, agent.model.stoch, generator=generator)  # [B, T, S]
    seen = filter_states(agent, batch, actions, noise)
    start = RSSMState(*(part[:, starts].flatten(0, 1) for part in seen))  # [R, ...]
    came = _came(agent, batch)  # {key: [B, T, *]}
    spread = {key: x.flatten(0, 1).float().var(0) for key, x in _came(agent, others).items()}
    errors: dict[str, list[float]] = {key: [] for key in came}
    rewards = Rewards([], [], _imagined(agent, start, steps, generator))
    for step, state in enumerate(_open_loop(agent, start, actions, starts, steps[-1], generator)):
        if step not in steps:
            continue
        kept = _unbroken(first, starts, step)  # [R]
        truth = {key: x[:, starts + step].flatten(0, 1)[kept] for key, x in came.items()}
        expected = {key: x[kept] for key, x in _expected(agent, state).items()}
        for key, found in errors.items():
            obs = agent.spec.obs.get(key)
            found.append(_error(truth[key], expected[key], spread[key], obs))
        rewards.came.append(truth[REWARD].mean().item())
        rewards.expected.append(expected[REWARD].mean().item())
    categories = frozenset(key for key, obs in agent.spec.obs.items() if obs.classes)
    return Foresight(len(start.deter), steps, errors, categories, rewards)


def _came(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    """What was observed and paid: {key: [B, T, *]}, without the context step."""
    came = {key: real(batch.obs[key][:, 1:]) for key in agent.spec.obs}
    return {**came, REWARD: batch.reward[:, 1:]}


def _open_loop(
    agent: Agent,
    state: RSSMState,
    actions: Tensor,
    starts: Tensor,
    horizon: int,
    generator: torch.Generator,
) -> Iterator[RSSMState]:
    """The starts, then what follows them with the actions [B, T, W] that were taken: [R, ...]."""
    yield state
    for step in range(1, horizon + 1):
        action = actions[:, starts + step].flatten(0, 1)  # [R, W]
        noise = torch.rand(len(action), agent.model.stoch, generator=generator)  # [R, S]
        state = agent.dyn.imagine_step(state, action, noise)
        yield state


def _unbroken(first: Tensor, starts: Tensor, step: int) -> Tensor:
    """[R] whether no episode begins within the next `step` steps, which nobody could predict."""
    begun = first.cumsum(1)  # [B, T]
    return (begun[:, starts + step] == begun[:, starts]).flatten()


def _expected(agent: Agent, state: RSSMState) -> dict[str, Tensor]:
    """What states [R, ...] expect to observe and to be paid: {key: [R, *]}."""
    alone = RSSMState(*(part[:, None] for part in state))  # [R, 1, ...]
    observations = {key: value[:, 0] for key, value in decode(agent, alone).items()}
    return {**observations, REWARD: agent.rew.mean(agent.rew(state.feat))}


def _error(truth: Tensor, expected: Tensor, variance: Tensor, spec: ObsSpec | None) -> float:
    """Error of [R, *] against [R, *], as `Foresight.errors`, by the variance of each number [*].

    Over all numbers of an observation together: one that hardly moves says nothing by itself.
    """
    if spec is not None and spec.classes:
        return (expected != truth).float().mean().item()
    off = (expected - truth).square().mean(0)  # [*]
    spread = variance.sum()
    return (off.sum() / spread).sqrt().item() if spread > STILL else math.nan


def _imagined(
    agent: Agent, start: RSSMState, steps: tuple[int, ...], generator: torch.Generator
) -> list[float]:
    """[J] mean reward of eq. 6 from the starts, as far as episodes go on."""
    rows, horizon = len(start.deter), steps[-1]
    action = draw_action_noise(agent.spec.action, (rows, horizon), generator)  # [R, H, ...]
    prior = torch.rand(rows, horizon, agent.model.stoch, generator=generator)  # [R, H, S]
    feat = roll_out(agent.imagine_step, start, action, prior).feat  # [R, H+1, F]
    reward, alive = paid_and_alive(agent, feat)  # [R, H+1]
    reached = torch.cat([torch.ones(rows, 1), alive[:, :-1].cumprod(1)], 1)  # [R, H+1]
    mean = (reached * reward).sum(0) / reached.sum(0).clamp(min=STILL)  # [H+1]
    return mean[list(steps)].tolist()


def table(found: Foresight) -> list[str]:
    """The numbers as lines of text."""
    names = {key: key + WRONG * (key in found.categories) for key in found.errors}
    width = max(map(len, (*names.values(), "imagined by the policy")))
    ahead = [f"{step} ahead" if step else "seen" for step in found.steps]

    def line(name: str, cells: Iterable[str]) -> str:
        return f"  {name:{width}}" + "".join(f"{cell:>10}" for cell in cells)

    def row(name: str, numbers: list[float]) -> str:
        return line(name, (f"{number:.3g}" if math.isfinite(number) else "-" for number in numbers))

    told = (*found.errors.values(), found.rewards.came)
    unknown = any(not math.isfinite(number) for numbers in told for number in numbers)
    return [
        f"{found.starts:,} open-loop predictions from the newest steps of the replay",
        line("", ahead),
        "errors, as shares of the standard deviation in the replay (1: no better than the mean)",
        *(row(names[key], numbers) for key, numbers in found.errors.items()),
        "mean rewards",
        row("came", found.rewards.came),
        row("expected of the actions", found.rewards.expected),
        row("imagined by the policy", found.rewards.imagined),
        *(["-: it never changes, or no episode goes on for so long"] if unknown else []),
    ]
