"""A search: ranges, what is chosen, what is given up, and what a kill leaves behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dreamer_async.config import ConfigError, known_settings
from dreamer_async.store.events import Episode, EventWriter
from dreamer_async.store.sweep_dir import VERSION, Job, Sweep, SweepDir
from dreamer_async.sweep import search, work
from dreamer_async.sweep.ranges import Range, is_range, parse_range
from dreamer_async.sweep.search import Search, typical
from dreamer_async.sweep.work import Standing


def test_ranges_are_numbers_or_choices() -> None:
    assert parse_range("optim.lr", "1e-5..1e-3:log") == Range(1e-5, 1e-3, whole=False, log=True)
    assert parse_range("train.batch_size", "4..16") == Range(4, 16, whole=True)
    assert parse_range("optim.lr", "0.1..0.5") == Range(0.1, 0.5)
    assert parse_range("train.batch_size", "8,16").choices == ("8", "16")
    assert is_range("1..4") and not is_range("1.5") and not is_range("../x")


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        ("optim.lr", "1e-3..1e-5", "low < high"),
        ("optim.lr", "0..1:log", "0 < low"),
        ("optim.lr", "a..b", "expected a number"),
        ("train.batch_size", "1.5..4", "expected a whole number"),
        ("train.device", "cpu..cuda", "name the values"),
        ("optim.rl", "1..2", "unknown setting"),
    ],
)
def test_wrong_ranges_are_refused(key: str, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_range(key, text)


def test_every_setting_may_be_chosen_from_by_name() -> None:
    assert "optim.lr" in known_settings()


@pytest.fixture
def directory(tmp_path: Path) -> SweepDir:
    made = SweepDir(tmp_path / "sweep-toy")
    fixed = {"size": "tiny", "task": "catch", "seed": "3", "optim.lr": "1e-5..1e-3:log"}
    made.write(Sweep(VERSION, "toy", ("train.steps=1000",), (), search=fixed, trials=9))
    return made


def opened(directory: SweepDir) -> Search:
    pytest.importorskip("optuna")
    cut_off = [j for j in directory.read().jobs if work.stand(directory, j).to_do]
    return Search(directory, cut_off, lambda text: None)


def ended(job: Job, state: str, score: float | None) -> Standing:
    return Standing(job, state, 1000, 1000, score)


def test_a_typical_run_is_one_of_them(directory: SweepDir) -> None:
    config = work.config_of(directory.read(), typical(directory.read()))
    assert (config.optim.lr, config.train.seed, config.train.steps) == (1e-5, 3, 1000)


def test_trials_are_chosen_kept_and_told(directory: SweepDir) -> None:
    source = opened(directory)
    jobs = [source.next() for _ in range(9)]
    assert source.next() is None, "as many as asked for"
    rates = [work.config_of(directory.read(), job).optim.lr for job in jobs if job]
    assert len(set(rates)) == 9 and all(1e-5 <= rate <= 1e-3 for rate in rates)
    assert directory.read().jobs == tuple(jobs)
    for place, job in enumerate(jobs[:-2]):
        assert job is not None
        source.ended(job, ended(job, "completed", float(place)))
    last, stopped = jobs[-2:]
    assert last is not None and stopped is not None
    source.ended(last, ended(last, "failed", 99.0))
    source.ended(stopped, ended(stopped, "stopped", 99.0))
    best = source.best()
    assert best is not None and best[1] == 6.0, "what failed or was stopped does not count"


def test_a_kill_between_two_writes_loses_no_trial(directory: SweepDir) -> None:
    source = opened(directory)
    first = source.next()
    assert first is not None
    source._study.ask()  # it was killed before it made a run of this one
    again = opened(directory)
    assert again.next() == first, "a run that was cut off goes on"
    second = again.next()
    assert second is not None and second.name != first.name
    assert len(directory.read().jobs) == 2


def follow_episodes(source: Search, directory: SweepDir, job: Job, score: float) -> bool:
    """Let the run end episodes of this return; whether it is given up."""
    run = work.make(directory, directory.read(), job)
    with EventWriter(run.events_path, 0) as writer:
        for step in range(50, 1001, 50):
            writer.emit(Episode(step, 0, score, 50))

    async def watch() -> bool:
        try:
            return await asyncio.wait_for(source.follow(job, run), 0.3)
        except TimeoutError:
            return False

    return asyncio.run(watch())


@pytest.mark.parametrize("told", [False, True])
def test_a_failed_run_that_is_tried_again_counts(
    directory: SweepDir, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Unless Optuna was told that it has failed for good, as earlier versions did."""
    monkeypatch.setattr(search, "POLL_SECONDS", 0.01)
    source = opened(directory)
    job = source.next()
    assert job is not None
    source.ended(job, ended(job, "failed", 1.0))
    if told:
        source._study.tell(0, state=search._optuna().trial.TrialState.FAIL)
    again = opened(directory)
    assert not follow_episodes(again, directory, job, 2.0)
    again.ended(job, ended(job, "completed", 2.0))
    assert (again.best() is None) == told


def test_a_run_behind_the_median_at_equal_steps_is_given_up(
    directory: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "POLL_SECONDS", 0.01)
    source = opened(directory)

    def follow(score: float) -> tuple[Job, bool]:
        job = source.next()
        assert job is not None
        given_up = follow_episodes(source, directory, job, score)
        source.ended(job, ended(job, "pruned" if given_up else "completed", score))
        return job, given_up

    for score in range(search.FIRST_TRIALS):
        assert not follow(float(score))[1], "the first ones are only looked at"
    assert not follow(9.0)[1], "one ahead of the median goes on"
    job, given_up = follow(-1.0)
    assert given_up
    kept = {each.name: each for each in directory.read().jobs}
    assert kept[job.name].pruned and not work.stand(directory, kept[job.name]).to_do
    reported = source._known(job).intermediate_values
    assert max(reported) >= search.FIRST_RUNG, "not before a fifth of its steps"
    assert max(reported) < search.RUNGS // 2
