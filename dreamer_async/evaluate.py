"""Scores of a trained agent: full episodes on environments of their own."""

from __future__ import annotations

import numpy as np

import envs
from dreamer_async.run_dir import RunDir
from dreamer_async.saved_agent import SavedAgent, load
from dreamer_async.telemetry import EpisodeTracker

MAX_ENVS = 8


def evaluate(
    run_dir: RunDir, episodes: int, seed: int, device: str = "auto", *, best: bool = False
) -> dict[str, object]:
    """Play this many episodes with the newest valid checkpoint, or with the best one.

    Returns scores and lengths per episode with their summary. As in the official evaluation
    actions are sampled. Raises CheckpointError when there is no valid checkpoint.
    """
    agent = load(run_dir.path, device, seed, best=best)
    scores, lengths = play(agent, episodes, seed)
    return {
        "run": run_dir.name,
        "task": f"{agent.spec.suite}/{agent.spec.task}",
        "checkpoint": agent.path.name,
        "env_steps": agent.env_steps,
        "updates": agent.updates,
        "seed": seed,
        "episodes": episodes,
        "mean": float(np.mean(scores)),
        "median": float(np.median(scores)),
        "std": float(np.std(scores)),
        "min": float(np.min(scores)),
        "max": float(np.max(scores)),
        "scores": scores,
        "lengths": lengths,
    }


def play(agent: SavedAgent, episodes: int, seed: int) -> tuple[list[float], list[int]]:
    """Play episodes in parallel environments, the same number in each up to rounding.

    Taking whatever ends first would favour short episodes.
    """
    num_envs = min(episodes, MAX_ENVS)
    quota = np.full(num_envs, episodes // num_envs)
    quota[: episodes % num_envs] += 1
    env_config = agent.config.env
    pool = envs.make(
        env_config.suite, env_config.task, num_envs=num_envs, batch_size=num_envs, seed=seed
    )
    tracker, carry = EpisodeTracker(num_envs), agent.initial(num_envs)
    scores: list[float] = []
    lengths: list[int] = []
    with pool:
        pool.start()
        while quota.any():
            step = pool.recv()
            action, carry = agent.act(step.obs, carry, step.is_first)
            pool.send(action, step.env_id)
            for episode in tracker.update(step, 0):
                if quota[episode.env_id]:
                    quota[episode.env_id] -= 1
                    scores.append(float(episode.score or 0.0))
                    lengths.append(episode.length)
    return scores, lengths
