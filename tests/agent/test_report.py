"""Open-loop prediction: shapes, units, and which observations it may see."""

from __future__ import annotations

import pytest
import torch
from agent_cases import MIXED, make_batch, make_config, make_spec

from dreamer_async.agent import Trainer
from dreamer_async.agent.open_loop import open_loop


def test_open_loop_sees_only_the_context() -> None:
    spec, config = make_spec(MIXED), make_config()
    trainer = Trainer(spec, config)
    batch = make_batch(spec, config)
    batch = batch._replace(is_first=torch.zeros_like(batch.is_first))
    noise = trainer.draw_noise(torch.Generator().manual_seed(0))
    result = open_loop(trainer.agent, batch, noise, context=2)
    assert set(result) == set(MIXED)
    for key, obs in MIXED.items():
        assert all(part.shape == (3, 6, *obs.shape) for part in result[key])
    image = result["image"]
    assert all(part.min() >= 0 and part.max() <= 1 for part in image)
    assert torch.equal(image.prediction[:, :2], image.reconstruction[:, :2])
    assert not torch.equal(image.prediction[:, 2:], image.reconstruction[:, 2:])
    other = make_batch(spec, config, seed=1)
    obs = {k: torch.cat([v[:, :3], other.obs[k][:, 3:]], 1) for k, v in batch.obs.items()}
    changed = open_loop(trainer.agent, batch._replace(obs=obs), noise, context=2)
    assert torch.equal(changed["vector"].prediction, result["vector"].prediction)
    assert not torch.equal(changed["vector"].reconstruction, result["vector"].reconstruction)


def test_context_must_leave_something_to_predict() -> None:
    spec, config = make_spec(), make_config()
    trainer = Trainer(spec, config)
    noise = trainer.draw_noise(torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="context is 6; use 1 to 5"):
        open_loop(trainer.agent, make_batch(spec, config), noise, context=6)
