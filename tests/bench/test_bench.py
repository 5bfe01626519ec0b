"""Bench measures every part and says what it ran on; plan counts what a run needs."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dreamer_async.agent.trainer import Trainer
from dreamer_async.bench import PARTS, measure, report, vram
from dreamer_async.bench.apart import BenchError, measure_apart
from dreamer_async.bench.memory import copier
from dreamer_async.bench.pipeline import Progress, mean_shares
from dreamer_async.bench.plan import plan
from dreamer_async.bench.profile import profile
from dreamer_async.bench.reference import REFERENCES, references
from dreamer_async.bench.report import bench_lines, load_warning, verdicts
from dreamer_async.bench.stream import append_beat, write_stream
from dreamer_async.bench.synthetic import random_rows
from dreamer_async.bench.timing import LEAST, timed, timed_in_turn, timing
from dreamer_async.cli import main
from dreamer_async.config import SIZES, Config, resolve
from dreamer_async.envs import spec
from dreamer_async.envs.spec import ActionSpec
from dreamer_async.replay.setup import open_replay, prefill_steps, ring_spec
from dreamer_async.store.events import EventWriter, Gauges, Metrics, read_events
from dreamer_async.store.run_dir import RunDir
from tests.tiny_run import TINY, make_run

SMALL = (*TINY, "train.device=cpu")


@pytest.mark.parametrize("task", ["catch", "catch_pixels", "reach"])
def test_every_part_but_the_pipeline_is_measured(task: str) -> None:
    config = resolve("toy", task, size="tiny", overrides=SMALL)
    rows = [row for part in PARTS[:-1] for row in measure(config, part, 0.01)["results"]]
    assert {row["part"] for row in rows} == set(PARTS[:-1])
    for row in rows:
        assert 0 < row["min_s"] <= row["median_s"] <= row["max_s"], row
        assert row["unit"].startswith("s") and row["n"] >= 1
    update = next(row for row in rows if row["part"] == "learner")
    assert update["n"] >= LEAST
    shares = [v for name, v in update["detail"].items() if name.startswith("share_")]
    assert sum(shares) == pytest.approx(1.0)


class Begun(Exception):
    """A device was chosen: enough of a measurement where there is none."""


@pytest.mark.parametrize("part", ["learner", "policy", "ceilings", "pipeline"])
def test_what_is_measured_here_has_the_device_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Streams, events and recordings are made on the current one, which was the first.

    What is measured in processes of its own leaves the device to them: it may be exclusive.
    """

    def begin(device: object) -> None:
        raise Begun(str(device))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", begin)
    monkeypatch.setattr(torch.cuda, "get_device_name", str)
    monkeypatch.setattr("dreamer_async.bench.pipeline.measured_run", lambda *_: (1.0, {}))
    monkeypatch.setattr("dreamer_async.bench.pipeline.measure_apart", lambda *_: {"median_s": 1.0})
    on = ("train.device=cuda:1", "train.precision=float32")
    config = resolve("toy", "catch", size="tiny", overrides=[*TINY, *on])
    if part == "pipeline":
        assert measure(config, part, 0.01)["device"] == "cuda:1"
        return
    with pytest.raises(Begun, match="cuda:1"):
        measure(config, part, 0.01)


def test_the_adapter_is_paired_with_a_raw_pool() -> None:
    config = resolve("classic", "CartPole-v1", size="tiny", overrides=SMALL)
    shares = []
    for _ in range(20):  # until a busy machine lets both go on for as long
        adapter, raw = measure(config, "env", 0.05)["results"]
        assert raw["what"].endswith("raw envpool")
        assert adapter["n"] == raw["n"]
        shares.append(adapter["detail"]["share_of_raw"])
        if 0 < shares[-1] < 2:
            return
    raise AssertionError(shares)


@pytest.mark.slow
def test_the_pipeline_runs_for_real_and_is_compared_with_its_learner() -> None:
    config = resolve("toy", "seek", size="tiny", overrides=SMALL)
    whole, alone = measure(config, "pipeline", 3.0)["results"]
    assert whole["n"] == alone["n"] == 3
    assert whole["detail"]["share_of_learner_alone"] > 0
    assert {"share_update", "share_learner_wait"} <= set(whole["detail"])


def test_stages_of_a_run_are_averaged_after_its_first_update(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    writer = EventWriter(run.events_path, 0)
    writer.emit(Metrics(0, 5, {"suite/score": 1.0}))  # of an episode, long before an update
    for update, share in ((0, 0.9), (1, 0.2), (3, 0.4)):
        if update:
            writer.emit(Metrics(update, 10, {"loss/total": 1.0}))
        writer.emit(Gauges(10, update, {"stage/update": share, "rate/updates": 1.0}))
    writer.close()
    progress = Progress(run)
    assert progress.updates() == 2
    assert progress.stages() == pytest.approx({"update": 0.3})
    assert mean_shares([{"a": 1.0}, {"b": 0.5}]) == {"share_a": 0.5, "share_b": 0.25}


def test_a_part_that_fails_says_why() -> None:
    config = resolve("toy", "seek", overrides=("train.device=cuda:63",))
    with pytest.raises(BenchError, match="CUDA"):
        measure_apart(config, "learner", 0.1)


def test_a_part_that_takes_too_long_is_given_up() -> None:
    config = resolve("toy", "seek", size="tiny", overrides=SMALL)
    with pytest.raises(BenchError, match=r"learner took more than 0\.01 s"):
        measure_apart(config, "learner", 60.0, patience=0.01)


def test_a_profile_names_every_stage_and_leaves_a_trace(tmp_path: Path) -> None:
    config = resolve("toy", "catch_pixels", size="tiny", overrides=SMALL)
    result = profile(config, spec("toy", "catch_pixels"), tmp_path / "trace.json")
    assert {"encoder", "observe", "imagine", "backward", "optimiser"} <= set(result["stages"])
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    text = "\n".join(report.profile_lines(result))
    assert "backward" in text and "aten::" in text


@pytest.mark.parametrize("size", ["tiny", "size1m"])
def test_plan_counts_parameters_and_replay_as_a_run_has_them(size: str, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    config = resolve("toy", "catch", size=size, overrides=("train.steps=5000",))
    needed = plan(config, tmp_path / "not" / "there", speeds=False)
    assert needed["parameters"] == Trainer(spec("toy", "catch"), config).optim.size
    with open_replay(config, spec("toy", "catch"), RunDir(run.path), resume=False) as replay:
        assert needed["replay_steps"] == replay.spec.capacity * replay.spec.num_envs
        assert needed["replay_gb"] * 1e9 == pytest.approx(replay.bytes, rel=0.05)
    assert not (tmp_path / "not").exists()
    assert needed["updates"] == (5000 - prefill_steps(config)) * 32 // (8 * 16)
    assert "not measured" in "\n".join(report.plan_lines(needed))


PLANS = [
    ("atari100k", "size12m", "true", 1.4, True),
    ("atari100k", "size12m", "false", None, None),
    ("atari100k", "size50m", "true", 6.8, False),
    ("atari", "size200m", "true", 12.8, True),
    ("atari", "size25m", "true", None, None),
]


@pytest.mark.parametrize(("suite", "size", "compiled", "gb", "as_compiled"), PLANS)
def test_plan_estimates_what_a_gpu_would_hold(
    suite: str, size: str, compiled: str, gb: float | None, as_compiled: bool | None, tmp_path: Path
) -> None:
    settings = f"train.compile={compiled}", "train.device=cpu"
    needed = plan(resolve(suite, "pong", size=size, overrides=settings), tmp_path, speeds=False)
    assert (needed["vram_gb"], needed["vram_compiled"]) == (gb, as_compiled)
    text = "\n".join(report.plan_lines(needed))
    assert ("no estimate" if gb is None else f"about {gb:.1f} GB") in text
    assert gb is None or ("estimate" in text and "simulated card" in text)


@pytest.mark.parametrize(
    "own", ["model.deter=4096", "loss.imagine_length=60", "train.batch_size=32"]
)
def test_plan_estimates_nothing_of_what_nobody_has_seen(own: str, tmp_path: Path) -> None:
    settings = "train.compile=true", "train.device=cpu", own
    made = resolve("atari100k", "pong", size="size12m", overrides=settings)
    assert plan(made, tmp_path, speeds=False)["vram_gb"] is None


def test_the_table_of_gpu_memory_has_sizes_that_exist() -> None:
    assert len(set(row[:-1] for row in vram.table())) == len(vram.table()) >= 9
    for row in vram.table():
        assert row.size in SIZES and 0 < row.held_gb < 80
    held = {row[:-1]: row.held_gb for row in vram.table()}
    for size, image, compiled, expandable in held:
        other = held.get((size, image, compiled, False))
        if expandable and other is not None:  # it only ever saves memory
            assert held[size, image, compiled, True] <= other


def measured_on_a_gpu(monkeypatch: pytest.MonkeyPatch, how: str) -> list[tuple[Any, ...]]:
    """Let `plan` see a GPU on which an update takes 10 ms; returns what was asked of it."""
    asked: list[tuple[Any, ...]] = []

    def results(config: Config, part: str, *rest: float) -> list[dict[str, Any]]:
        asked.append((part, config.train.compile, config.train.capture, rest[-1]))
        memory = {"peak_gb": 1.0, "held_gb": 2.5}
        return [{"what": f"update 16x64, {how}", "median_s": 0.01, "detail": memory}]

    plans = importlib.import_module("dreamer_async.bench.plan")
    monkeypatch.setattr(plans, "choose_device", lambda _: torch.device("cuda", 0))
    monkeypatch.setattr(plans, "choose_precision", lambda *_, native: "bfloat16")
    monkeypatch.setattr(plans, "results_apart", results)
    return asked


@pytest.mark.parametrize("how", ["captured", "compiled"])
def test_plan_measures_on_a_gpu_what_a_run_would_do(
    how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = measured_on_a_gpu(monkeypatch, how)
    needed = plan(resolve("toy", "catch", size="size1m"), tmp_path, speeds=True)
    part, compiled, captured, patience = asked[0]
    assert (part, compiled, captured) == ("learner", True, True)
    assert patience >= 2 * 208, "too short for an empty cache of two busy processors"
    assert (needed["held_gb"], needed["peak_gb"], needed["update_how"]) == (2.5, 1.0, how)
    assert needed["learner_hours"] == pytest.approx(needed["updates"] * 0.01 / 3600)
    text = "\n".join(report.plan_lines(needed))
    assert f"per update, {how}" in text and "2.5 GB of the GPU" in text and "estimate" not in text


def test_plan_measures_hours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("dreamer_async.bench.plan"), "SECONDS", 0.05)
    settings = [word for item in SMALL for word in ("-s", item)]
    assert main(["plan", "toy", "--size", "tiny", "--json", *settings]) == 0
    needed = json.loads(capsys.readouterr().out)
    assert needed["learner_hours"] == pytest.approx(needed["updates"] * needed["update_s"] / 3600)
    assert needed["env_hours"] > 0 and needed["peak_gb"] > 0


def test_bench_prints_a_table_with_speeds_from_elsewhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "policy", "--suite", "toy", "--size", "size1m", "--seconds", "0"]) == 0
    out = capsys.readouterr().out
    assert "act for 1 environments" in out and "act for 16 environments" in out
    assert "measured elsewhere" in out and "r2dreamer" in out


def test_bench_refuses_an_unknown_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "atari"]) == 2
    assert "--suite atari" in capsys.readouterr().err


def test_references_name_real_sizes_and_parts() -> None:
    for row in REFERENCES:
        assert row.part in PARTS and row.size in ("", *SIZES) and row.seconds > 0
    assert {row.part for row in references("all", "size1m")} == {
        "learner",
        "policy",
        "env",
        "replay",
    }
    assert not [row for row in references("learner", "size12m") if row.size != "size12m"]


def measured(**differences: object) -> dict[str, Any]:
    """What `measure` would return of an idle machine like that of our references."""
    update = timing("learner", "update 16x64, native", "s/update", [0.9])
    acting = timing("policy", "act for 1 environments", "s/step", [0.0007])
    facts = {
        **{"task": "atari/pong", "size": "size1m", "sees": "96x96x1", "device": "cpu"},
        **{
            "precision": "float32",
            "differs": [],
            "threads": 2,
            "cores": 2,
            "load": 0.1,
            "torch": "2",
        },
        **{"torch": "2", "processor": "?", "results": [asdict(update), asdict(acting)]},
    }
    return facts | differences


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [(0.5, "normal, 0.56 times"), (1.2, "normal"), (2.0, "slow,"), (9.0, "much too slow")],
)
def test_a_speed_is_judged_by_what_is_normal(seconds: float, verdict: str) -> None:
    update = asdict(timing("learner", "update 16x64, native", "s/update", [seconds]))
    (said,) = verdicts(measured(results=[update]))
    assert said.startswith("learner   update 16x64, native: " + verdict)
    assert "the 900 ms on 2 cores of an AMD EPYC (AVX2), no GPU" in said


UPDATE = asdict(timing("learner", "update 16x64, native", "s/update", [0.9]))


@pytest.mark.parametrize(
    "differences",
    [
        {"device": "H100"},
        {"sees": "32x32x3"},
        {"size": "tiny"},
        {"results": []},
        {"precision": "bfloat16-dense"},
        {"differs": ["loss.imagine_length"]},
        {"threads": 1, "results": [UPDATE]},
    ],
)
def test_nothing_is_said_of_speeds_that_nothing_can_be_compared_with(
    differences: dict[str, object],
) -> None:
    (said,) = verdicts(measured(**differences))
    assert said.startswith("nothing says whether that is normal")


def test_other_programs_and_units_are_named() -> None:
    lines = bench_lines(measured(native="kernels-x86-64-v3-6f0c2f8d1b7a9e35"), "learner")
    assert lines[0].endswith("torch 2, native functions prebuilt for x86-64-v3")
    assert "900 ms" in lines[3] and lines[3].endswith("  per update")
    assert not [line for line in lines if "warning" in line or "s/update" in line]
    slow = [asdict(timing("learner", "update 16x64, native", "s/update", [9.0]))]
    assert "slow, as others are at work" in verdicts(measured(load=1.5, results=slow))[0]
    (warning,) = [line for line in bench_lines(measured(load=1.5), "learner") if "warning" in line]
    assert "load 1.5 on 2 cores" in warning
    (alone,) = load_warning(measured(load=1.5, cores=1))
    assert "load 1.5 on 1 core)" in alone


def test_the_first_call_is_not_timed() -> None:
    calls: list[int] = []
    assert len(timed(lambda: calls.append(1), 0.0)) == LEAST == len(calls) - 1
    row = timing("replay", "x", "s", [3.0, 1.0, 2.0])
    assert (row.median_s, row.min_s, row.max_s, row.n) == (2.0, 1.0, 3.0, 3)


def test_things_that_are_compared_take_turns() -> None:
    calls: list[str] = []
    actions = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    times = timed_in_turn(actions, 0.0)
    assert calls == ["a", "b"] * (1 + LEAST)
    assert [len(spent) for spent in times.values()] == [LEAST, LEAST]


@pytest.mark.parametrize("share", [0.5, 1.0, 3.0])
def test_a_batch_may_be_larger_than_the_measured_ring(share: float) -> None:
    config = resolve("toy", "catch", size="tiny", overrides=SMALL)
    ring = ring_spec(config, spec("toy", "catch"), 0)
    copier(ring, int(share * ring.num_envs * ring.capacity * ring.field_bytes))()


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.345, "12.3 s"), (0.5, "500 ms"), (2e-3, "2 ms"), (4e-6, "4 us")]
)
def test_times_are_spelled_in_their_unit(seconds: float, text: str) -> None:
    assert report.spell(seconds) == text


def test_random_actions_fit_their_spec() -> None:
    rng = np.random.default_rng(0)
    discrete = ActionSpec("discrete", 3).sample(200, rng)
    assert discrete.dtype == np.int32
    assert set(discrete.tolist()) == {0, 1, 2}
    continuous = ActionSpec("continuous", 2).sample(5, rng)
    assert (continuous.dtype, continuous.shape) == (np.float32, (5, 2))


@pytest.mark.parametrize("task", ["seek", "reach", "catch_pixels"])
def test_made_up_rows_fit_their_spec(task: str) -> None:
    wanted = spec("toy", task)
    rows = random_rows(wanted, 5, np.random.default_rng(0))
    for key, obs in wanted.obs.items():
        assert rows.obs[key].shape == (5, *obs.shape)
        assert rows.obs[key].dtype == obs.dtype
        if obs.classes:
            assert rows.obs[key].max() < obs.classes


def test_a_made_up_stream_is_a_run_that_ends_now(tmp_path: Path) -> None:
    write_stream(tmp_path / "events.jsonl", 200)
    append_beat(tmp_path / "events.jsonl")
    records, _ = read_events(tmp_path / "events.jsonl")
    kinds = [type(record.event).__name__ for record in records]
    assert kinds[:5] == ["RunStarted", "PhaseChanged", "Metrics", "Gauges", "Episode"]
    assert len(records) == 2 + 200 + 13 + 1 + 2
    assert kinds.count("Episode") == 13 and kinds[-3:] == ["PhaseChanged", "Metrics", "Gauges"]
    times = [record.time for record in records]
    assert times == sorted(times) and times[-3] - times[0] == pytest.approx(100.0)
    metrics = [r.event for r in records if isinstance(r.event, Metrics)][:-1]
    assert [m.update for m in metrics] == list(range(0, 200, 2))


@pytest.mark.slow
def test_the_dashboard_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamer_async.bench.dashboard.EVENTS", 40_000)
    monkeypatch.setattr("dreamer_async.bench.dashboard.STARTS", 2)
    config = resolve("toy", "seek", size="tiny", overrides=SMALL)
    rows = measure(config, "dashboard", 1.0, pairs=1)["results"]
    assert len(rows) == 5 + 2 * 2 and {row["part"] for row in rows} == {"dashboard"}
    assert all(0 < row["min_s"] <= row["median_s"] <= row["max_s"] for row in rows)
