"""A short real training run of every suite that can run on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamer_async import envs
from dreamer_async.cli import main
from dreamer_async.store.events import Episode, RunFinished, RunStarted, read_events

SMALL = """
--size tiny --envs 2 --ratio 2 --plain --no-compile --device cpu --threads 1
-s train.batch_size=2 -s train.batch_length=8 -s replay.capacity=2000
"""


@pytest.mark.slow
@pytest.mark.parametrize("suite", envs.suites())
def test_a_suite_trains_and_is_evaluated(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking := envs.missing(suite):
        pytest.skip(lacking[0])
    monkeypatch.chdir(tmp_path)
    where = ["--runs-dir", str(tmp_path / "runs")]
    assert main(["train", suite, "--steps", "160", *SMALL.split(), *where]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    events = [record.event for record in read_events(run / "events.jsonl")[0]]
    started = next(event for event in events if isinstance(event, RunStarted))
    assert (started.suite, started.task) == (suite, envs.default_task(suite))
    assert started.frames_per_step == envs.spec(suite, started.task).frames_per_step
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    assert finished.env_steps >= 160 and finished.updates > 5
    for episode in events:
        if isinstance(episode, Episode):
            assert set(episode.log) == set(envs.spec(suite, started.task).log)
