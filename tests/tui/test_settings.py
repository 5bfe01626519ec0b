"""Settings of a run on the screen: floors and percentiles, and what a resume has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dreamer_async.config import LossConfig
from dreamer_async.store.events import Metrics, encode_line
from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.app import Dashboard
from dreamer_async.tui.read.limits import Limits, limits
from dreamer_async.tui.read.progress import Phase
from dreamer_async.tui.read.source import Source
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show import alarms, pictures
from dreamer_async.tui.show.groups import LOOKS, grouped
from dreamer_async.tui.show.options import Options
from tests.tui.test_app import NOW, driven, settle, text
from tests.tui.test_groups import made
from tests.tui.test_overview import words
from tests.tui.test_state import started

SCALE = {"return/S": 0.4, "return/p5": 0.1, "return/p95": 0.5, "loss/dyn": 2.0, "loss/rep": 2.0}


def view_of(path: Path, values: Mapping[str, float | None], **settings: Any) -> RunView:
    """The view of a run with these settings of its losses."""
    run = RunDir(path)
    run.config_path.write_text(json.dumps({"loss": settings}))
    run.events_path.write_bytes(encode_line(Metrics(1, 10, values), NOW, 0.0, 0))
    source = Source(path)
    source.read_newest()
    source.close()
    return source.view


def test_the_usual_limits_are_the_defaults_of_the_settings() -> None:
    known = asdict(LossConfig())
    assert asdict(Limits()) == {name: known[name] for name in asdict(Limits())}
    odd = {"loss.free_nats": "x", "loss.return_floor": "nan", "loss.return_low": "-1"}
    assert limits(odd) == Limits()
    assert limits({"loss.return_high": "9e1", "other": "7"}) == Limits(return_high=90.0)


def test_the_floor_of_the_return_scale_is_that_of_the_settings(tmp_path: Path) -> None:
    usual = pictures.scale(view_of(tmp_path, SCALE), Options())
    assert words(usual.value) == "at floor, raw 0.400" and usual.references == [1.0]
    lower = pictures.scale(view_of(tmp_path, SCALE, return_floor=0.1), Options())
    assert words(lower.value) == "" and lower.references == [0.1]
    bare = {"return/S": 0.30000001192092896}  # in float32
    there = pictures.scale(view_of(tmp_path, bare, return_floor=0.3), Options())
    assert words(there.value) == "at its floor 0.3"


@pytest.mark.parametrize(
    ("floor", "said"), [(0.1, "collapsed to its floor of 0.1"), (4.0, ""), (0.01, "")]
)
def test_a_collapse_is_one_to_the_floor_of_the_settings(
    tmp_path: Path, floor: float, said: str
) -> None:
    view = view_of(tmp_path, SCALE, return_floor=floor)
    view.metrics["return/S"].append(20, max(0.1, floor), 2)
    view.latest["return/S"] = max(0.1, floor)
    found = [alarm.text for alarm in alarms.standing(view, Phase("training"), NOW)]
    assert len(found) == bool(said) and said in "".join(found)


def test_the_floor_of_the_kl_losses_is_that_of_the_settings(tmp_path: Path) -> None:
    for settings, floor in (({}, 1.0), ({"free_nats": 0.25}, 0.25)):
        view = view_of(tmp_path, SCALE, **settings)
        for name in ("loss/dyn", "loss/rep"):
            picture = pictures.metric(view, name, Options())
            assert (picture.note, picture.references) == (f"floor {floor:g}", [floor])


def test_percentiles_are_called_by_the_settings(tmp_path: Path) -> None:
    view = view_of(tmp_path, SCALE, return_low=10.0, return_high=99.5)
    legend = [words(entry[0]) for entry in pictures.scale(view, Options()).legend]
    assert legend == ["○ S 0.400", "▽ p10 0.100", "△ p99.5 0.500"]
    assert pictures.metric(view, "return/p95", Options()).title == "return/p99.5"


def again(run: RunDir, lr: float) -> None:
    """The run is resumed with another learning rate."""
    run.config_path.write_text(json.dumps({"optim": {"lr": lr}, "train": {"seed": 1}}))
    with open(run.events_path, "ab") as file:
        file.write(encode_line(started(), NOW + lr, 0.0, 1))


@driven
async def test_settings_that_a_resume_has_changed_are_shown(tmp_path: Path) -> None:
    runs = [made(tmp_path, f"20261122-22275{n}-catch-s{n}", n, 1.0, [1.0] * 40) for n in (1, 2)]
    app = Dashboard(runs[0].path, [runs[1].path], clock=lambda: NOW, animate=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("7")
        await settle(pilot)
        assert "(2 seeds)" in text(pilot) and "optim.lr" not in text(pilot)
        again(runs[0], 7.5)
        app.read_piece()
        app.show()
        await pilot.pause()
        assert "optim.lr" in text(pilot) and "7.5" in text(pilot)
        assert "(2 seeds)" not in text(pilot)


def test_a_resume_may_make_one_kind_too_many(tmp_path: Path) -> None:
    rates = (1.0, 2.0, 2.0, 3.0, 4.0)
    runs = [made(tmp_path, f"20261122-22270{n}-x", n, lr, []) for n, lr in enumerate(rates)]
    sources = [Source(run.path) for run in runs]
    assert len(grouped(sources)) == len(LOOKS)
    again(runs[2], 5.0)
    for source in sources:
        source.read_newest()
        source.close()
    groups = grouped(sources)
    assert len(groups) == len(LOOKS) + 1
    assert {group.look for group in groups} == set(LOOKS)
