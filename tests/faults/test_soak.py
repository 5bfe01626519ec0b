"""Soaking: the verdict on made-up runs, and a real run with its control (slow)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from soak import Sample, leaks, remove_planted, slower, soak

MINUTES = float(os.environ.get("SOAK_MINUTES", "4"))
FLAT = [Sample(2.0 * i, 300.0 + i % 7, 18 + i % 2, 7, 3) for i in range(64)]
"""A run that breathes, but does not grow."""
SETTINGS = (
    "--size tiny --steps 1e9 --threads 1 --no-compile -s replay.capacity=20000 "
    "-s model.units=16 -s train.checkpoint_seconds=20"
)
TOY = f"toy --task seek {SETTINGS}".split()
WORKERS = f"gym --task Taxi-v4 --envs 4 {SETTINGS}".split()


def test_a_run_that_breathes_does_not_leak() -> None:
    assert leaks(FLAT) == []


def test_what_grows_during_the_warm_up_is_no_leak() -> None:
    warm = [replace(s, private_mb=min(300.0, 100 + 20.0 * i)) for i, s in enumerate(FLAT)]
    assert leaks(warm) == []


@pytest.mark.parametrize("what", ["private_mb", "files", "threads", "shared"])
def test_everything_that_grows_is_named(what: str) -> None:
    """Slowly: 1 MB, or one more every twelfth sample."""
    step = 1.0 if what == "private_mb" else 1 / 12
    grown = [
        replace(s, **{what: getattr(FLAT[0], what) + int(i * step)}) for i, s in enumerate(FLAT)
    ]
    assert [fault.split()[0] for fault in leaks(grown)] == [what]


@pytest.mark.parametrize(
    ("run", "twin", "found"),
    [
        ((3.0, 3.0), (3.0, 3.0), False),
        ((3.0, 2.4), (3.1, 2.5), False),
        ((3.0, 2.4), (3.1, 3.1), True),
        ((2.0, 3.0), (2.0, 4.0), True),
    ],
    ids=["both steady", "both slower", "only the run slower", "only the twin as fast as it could"],
)
def test_a_loss_of_speed_is_one_that_the_twin_does_not_have(
    run: tuple[float, float], twin: tuple[float, float], found: bool
) -> None:
    rates = [[{"updates/cpu s": speed} for speed in speeds] for speeds in (run, twin)]
    assert [fault.split()[0] for fault in slower(*rates)] == (["speed"] if found else [])


@pytest.mark.slow
@pytest.mark.faults
def test_a_disturbed_run_stays_as_large_as_it_was_and_loses_nothing(tmp_path: Path) -> None:
    report = soak(tmp_path, TOY, MINUTES)
    assert report["faults"] == [], report
    assert sum(report["disturbances"].values()) >= 3 * MINUTES


@pytest.mark.slow
@pytest.mark.faults
def test_a_leak_is_found(tmp_path: Path) -> None:
    """The control: the same run with a leak in its once-a-second round."""
    try:
        report = soak(tmp_path, TOY, 2.0, leak=True, twin=True)
    finally:
        remove_planted()
    found = {fault.split()[0] for fault in report["faults"]}
    assert {"private_mb", "files", "threads", "shared", "speed"} <= found, report


@pytest.mark.slow
@pytest.mark.faults
def test_a_run_with_worker_processes_survives_their_deaths(tmp_path: Path) -> None:
    report = soak(tmp_path, WORKERS, MINUTES)
    assert report["faults"] == [], report
    assert report["disturbances"]["worker killed"] > 0
