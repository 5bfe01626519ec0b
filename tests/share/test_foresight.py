"""How far ahead a world model predicts, in numbers."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from agent_cases import make_batch, make_config, make_spec
from tiny_run import make_run
from torch import Tensor

from dreamer_async.agent.actor_critic import Agent
from dreamer_async.agent.batch import Batch
from dreamer_async.agent.distributions import symlog
from dreamer_async.agent.states import Observed, RSSMState
from dreamer_async.agent.trainer import Trainer
from dreamer_async.cli import main
from dreamer_async.envs.spec import ObsSpec
from dreamer_async.run import pipeline
from dreamer_async.share.dream import NothingToSee
from dreamer_async.share.foresight import Foresight, Rewards, _error, _unbroken, foresight, table

ROWS, LENGTH = 4, 24
OBS = {"place": ObsSpec((1,), "float32"), "room": ObsSpec((), "int32", classes=4)}
STEPS = (0, 1, 2, 5, 10, 15)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Walker:
    """An agent that knows its world: a place moves by the action and is the reward.

    What it believes an action to do may be wrong by `slip`; its policy takes action 2.
    """

    spec = make_spec(OBS)
    model = SimpleNamespace(stoch=1)
    loss = SimpleNamespace(discount_in_cont=False)

    def __init__(self, slip: float = 0.0) -> None:
        self.slip, self.dyn, self.rew = slip, self, self

    def observe(self, before: RSSMState, place: Tensor, *_: Tensor) -> Observed:
        return Observed(RSSMState(place, torch.zeros(*place.shape[:2], 1, 2)), place)

    def imagine_step(
        self, state: RSSMState, action: Tensor, noise: Tensor
    ) -> tuple[RSSMState, Tensor] | RSSMState:
        if action.ndim == 1:  # noise of the policy
            return RSSMState(state.deter + 2.0, state.stoch), action
        return RSSMState(state.deter + action + self.slip, state.stoch)

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        return obs["place"]

    def embed_action(self, action: Tensor) -> Tensor:
        return action[..., None].float()

    def state(self, deter: Tensor, stoch: Tensor) -> None:
        """The context, of which it makes nothing."""

    def dec(self, deter: Tensor, stoch: Tensor) -> dict[str, Tensor]:
        room = F.one_hot(deter[:, 0].round().long() % 4, 4).float()
        return {"place": symlog(deter), "room": room}

    def __call__(self, feat: Tensor) -> Tensor:
        return feat[..., 0]

    def mean(self, logits: Tensor) -> Tensor:
        return logits

    def con(self, feat: Tensor) -> Tensor:
        return torch.full(feat.shape[:-1], 99.0)


def walk(*, broken: bool = False) -> Batch:
    """Places that actions lead to; where it is broken, episodes begin anew on the way."""
    config = make_config(ROWS, LENGTH)
    batch = make_batch(Walker.spec, config)
    place = torch.zeros(ROWS, LENGTH + 1)
    place[:, 1:] = batch.action[:, :-1].float().cumsum(1)
    first = torch.zeros(ROWS, LENGTH + 1, dtype=torch.bool)
    if broken:
        first[0, 12], first[1, 9] = True, True
        place[0, 12:], place[1, 9:] = place[0, 12:] - 99.0, place[1, 9:] + 99.0
    obs = {"place": place[..., None], "room": (place.int() % 4).int()}
    return batch._replace(obs=obs, reward=place, is_first=first)


def foreseen(walker: Walker, batch: Batch) -> Foresight:
    return foresight(cast(Agent, walker), batch, walk(), generator())


@pytest.mark.parametrize("broken", [False, True])
def test_who_knows_the_world_is_never_wrong_and_who_slips_is(broken: bool) -> None:
    found = foreseen(Walker(), walk(broken=broken))
    assert found.steps == STEPS and found.starts == ROWS * len(range(4, LENGTH - 15, 4))
    for name in ("place", "room", "reward"):
        assert found.errors[name] == pytest.approx([0.0] * len(STEPS), abs=1e-5)
    assert found.rewards.expected == pytest.approx(found.rewards.came)
    slips = foreseen(Walker(slip=1.0), walk(broken=broken))
    off = [error / slips.errors["place"][1] for error in slips.errors["place"]]
    assert off == pytest.approx(STEPS, abs=1e-3), "by one with each step"
    assert slips.errors["room"] == [float(step % 4 != 0) for step in STEPS]
    ahead = [a - b for a, b in zip(slips.rewards.expected, slips.rewards.came, strict=True)]
    assert ahead == pytest.approx(STEPS, abs=1e-4)


def test_the_policy_imagines_its_own_rewards() -> None:
    imagined = foreseen(Walker(), walk()).rewards.imagined
    assert [more - imagined[0] for more in imagined] == pytest.approx([2.0 * x for x in STEPS])


@pytest.mark.parametrize(
    ("expected", "error"),
    [(torch.tensor([[0.0, 4.0], [2.0, 0.0]]), 0.0), (torch.tensor([[1.0, 2.0]] * 2), 1.0)],
)
def test_an_error_of_one_is_that_of_the_mean(expected: Tensor, error: float) -> None:
    truth = torch.tensor([[0.0, 4.0], [2.0, 0.0]])
    variance = truth.var(0, correction=0)
    assert _error(truth, expected, variance, None) == pytest.approx(error)
    assert math.isnan(_error(truth, expected, torch.zeros(2), None)), "what stands still"
    rooms = ObsSpec((2,), "int32", classes=5)
    share = (expected.int() != truth.int()).float().mean().item()
    assert _error(truth.int(), expected.int(), variance, rooms) == pytest.approx(share)


def test_nothing_is_foreseen_across_the_start_of_an_episode() -> None:
    first = torch.zeros(2, 10, dtype=torch.bool)
    first[0, 6] = True
    starts = torch.tensor([4, 6])
    assert _unbroken(first, starts, 1).tolist() == [True, True, True, True]
    assert _unbroken(first, starts, 2).tolist() == [False, True, True, True]
    assert _unbroken(first, starts, 3).tolist() == [False, True, True, True]


def test_short_sequences_are_predicted_as_far_as_they_go() -> None:
    trainer = Trainer(make_spec(), make_config(length=7))
    batch = make_batch(trainer.spec, trainer.config)
    assert foresight(trainer.agent, batch, batch, generator()).steps == (0, 1, 2)
    short = Trainer(make_spec(), make_config(length=5))
    batch = make_batch(short.spec, short.config)
    with pytest.raises(NothingToSee, match="have 5 steps; a prediction takes 6"):
        foresight(short.agent, batch, batch, generator())


@pytest.mark.parametrize("task", ["catch", "catch_pixels"])
def test_a_run_says_what_it_foresees_and_stays_as_it_was(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path, "train.steps=60", task=task)
    assert pipeline.main(run, plain=False, resume=False) == 0
    before = run.replay_path.read_bytes()
    capsys.readouterr()
    words = ["dream", str(run.path)]
    assert main([*words, "--numbers"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{run.name}: how well it foresees its newest steps"
    assert [line.split()[-1] for line in said if "ahead" in line] == ["ahead"]
    names = [line.split("  ")[1] for line in said if line.startswith("  ") and line[2] != " "]
    assert names[-4:] == ["reward", "came", "expected of the actions", "imagined by the policy"]
    assert run.replay_path.read_bytes() == before
    assert main([*words, "--numbers", "--out", "x.png"]) == 2
    assert "--numbers prints and draws nothing" in capsys.readouterr().err
    if task == "catch":  # there is nothing else to see
        assert main(words) == 0
        assert capsys.readouterr().out.splitlines() == said
        assert main([*words, "--out", "x.png"]) == 2
        assert "observes no images" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.png"))


def test_categories_are_named_as_such() -> None:
    trainer = Trainer(make_spec(OBS), make_config(length=7))
    batch = make_batch(trainer.spec, trainer.config)
    lines = table(foresight(trainer.agent, batch, batch, generator()))
    assert any(line.startswith("  room (wrong)  ") for line in lines)
    assert any(line.startswith("  place  ") for line in lines)


def test_what_cannot_be_measured_is_a_dash_that_is_explained() -> None:
    known = Foresight(3, (0, 1), {"place": [0.5, 0.25]}, frozenset(), Rewards([1.0], [1.0], [1.0]))
    still = known._replace(errors={"place": [0.5, math.nan]})
    assert table(known) == [line for line in table(known) if "nan" not in line and "-:" not in line]
    *_, errors, _, _, _, _, explained = table(still)
    assert errors.split() == ["place", "0.5", "-"]
    assert explained == "-: it never changes, or no episode goes on for so long"
