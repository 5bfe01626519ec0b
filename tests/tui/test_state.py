"""The view of a run: rebuilt equals watched, resumes drop the right past, odd input is tame."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamer_async.store.episodes import kept
from dreamer_async.store.events import (
    Checkpointed,
    Controlled,
    Episode,
    Evaluated,
    Event,
    Gauges,
    Metrics,
    PhaseChanged,
    Record,
    Resumed,
    RunFinished,
    RunStarted,
    Warned,
    read_events,
)
from dreamer_async.tui.read.progress import Phase, Trainer, eta_seconds, goal, phase, rate
from dreamer_async.tui.read.state import MAX_NAMES, number, rebuild, reduce
from dreamer_async.tui.read.tail import Tail
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show import alarms
from dreamer_async.tui.show.names import label, optional_charts, reconstructions, required_charts

RECORDED = Path(__file__).parents[1] / "data" / "tui" / "catch.jsonl"


def started(**changes: object) -> RunStarted:
    values: dict[str, object] = {
        "run": "20251122-120000-atari-pong",
        "suite": "atari",
        "task": "pong",
        "size": "size12m",
        "parameters": 12_000_000,
        "device": "cuda:0",
        "precision": "bfloat16",
        "num_envs": 16,
        "steps": 1000,
        "frames_per_step": 4,
        "train_ratio": 32.0,
        "seed": 0,
        "sync": False,
        "compiled": True,
        "replay_capacity": 5_000_000,
        "replay_bytes": 12_000_000_000,
        "pid": 1,
        "version": "0.1.0",
    }
    return RunStarted(**(values | changes))  # type: ignore[arg-type]


def record(event: Event, *, time: float = 0.0, generation: int = 0) -> Record:
    return Record(event, time, time, generation)


def view_of(*events: Event) -> RunView:
    """Fold events that come a second apart."""
    return rebuild([record(event, time=float(index)) for index, event in enumerate(events)])


def loss(update: int, value: float | None = None) -> Metrics:
    return Metrics(update, 10 * update, {"loss/image": float(update) if value is None else value})


# --- the promise ----------------------------------------------------------------------------


def test_rebuilt_from_the_file_equals_watched(tmp_path: Path) -> None:
    data = RECORDED.read_bytes()
    path = tmp_path / "events.jsonl"
    tail, watched = Tail(path), RunView()
    with open(path, "wb") as file:
        for start in range(0, len(data), 7777):
            file.write(data[start : start + 7777])
            file.flush()
            for item in tail.read(3000):
                reduce(watched, item)
    while items := tail.read(1 << 20):
        for item in items:
            reduce(watched, item)
    records, _ = read_events(RECORDED)
    assert watched == rebuild(records)
    assert watched.records == len(records) == data.count(b"\n")


def test_the_comparison_of_views_sees_a_difference() -> None:
    records, _ = read_events(RECORDED)
    assert rebuild(records) != rebuild(records[:-1])
    one, two = rebuild(records), rebuild(records)
    two.metrics["loss/dyn"].append(1e6, 1.0, 1e6)
    assert one != two


def test_the_recorded_run() -> None:
    lines = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    view = rebuild(read_events(RECORDED)[0])
    scores = [line["score"] for line in lines if line["type"] == "episode"]
    assert view.episodes.mean.tolist() == scores
    dyn = [line["values"]["loss/dyn"] for line in lines if line["type"] == "metrics"]
    assert view.metrics["loss/dyn"].mean.tolist() == pytest.approx(dyn)
    assert view.started is not None and view.started.task == "catch"
    assert phase(view, Trainer(alive=True)) == Phase("training")
    assert reconstructions(view.latest) == ["loss/vector"]
    assert view.at_floor and eta_seconds(view) is not None
    assert view.checkpoint is not None and view.finished is None


# --- resumes --------------------------------------------------------------------------------


def test_a_resume_drops_metrics_past_its_update_and_episodes_past_its_step() -> None:
    view = RunView()
    for update in range(1, 11):
        reduce(view, record(loss(update)))
        reduce(view, record(Episode(10 * update, 0, 1.0, 5)))
    reduce(view, record(started(), generation=1))
    reduce(view, record(Resumed("checkpoints/step-60", 90, 6, 3.0), generation=1))
    assert view.metrics["loss/image"].mean.tolist() == [1, 2, 3, 4, 5, 6]
    assert view.latest == {"loss/image": 6.0}
    assert view.episode_count == 9
    assert (view.env_steps, view.updates) == (90, 6)
    reduce(view, record(loss(7, 70.0), generation=1))
    assert view.metrics["loss/image"].mean.tolist() == [1, 2, 3, 4, 5, 6, 70]


def played(count: int) -> list[Event]:
    """An episode and an update every ten steps, better each time; an evaluation every 50 steps."""
    events: list[Event] = []
    for n in range(1, count + 1):
        events += [loss(n), Episode(10 * n, 0, float(n), n)]
        events += [Evaluated(10 * n, n, (float(n),), (5,), 1.0)] if n % 5 == 0 else []
    return events


@pytest.mark.parametrize("lost", [1, 30, 1500, 2000])
def test_episodes_that_a_resume_has_lost_count_no_longer(lost: int) -> None:
    """They are played again: what is known equals that of a run that never had them."""
    resumed = Resumed("checkpoints/step", 10 * (2000 - lost), 2000 - lost, 0.0)
    view = view_of(started(), *played(2000), resumed)
    before = view_of(started(), *played(2000 - lost))
    assert view.episodes == before.episodes and view.lengths == before.lengths
    assert list(view.rows) == list(before.rows)[-max(0, 1000 - lost) :] * (lost < 1000)
    for name in ("episode_count", "best_score", "last_length"):
        assert getattr(view, name) == getattr(before, name), name
    assert [e.mean for e in view.evaluations] == [e.mean for e in before.evaluations]


def test_episodes_of_a_resumed_run_stand_in_order_on_every_axis() -> None:
    """Replay may go further than the checkpoint: its episodes stay, but the updates are lost."""
    view = RunView()
    for event in played(20):
        reduce(view, record(event))
    reduce(view, record(Resumed("", 150, 8, 0.0), generation=1))
    reduce(view, record(Episode(170, 0, 99.0, 5), generation=0))
    for event in [loss(9), Episode(160, 0, 1.0, 5)]:
        reduce(view, record(event, generation=1))
    before = [(10 * n, n) for n in range(1, 21)]
    steps = [step for step, _ in kept(before, Resumed("", 150, 8, 0.0))]
    assert view.episodes.x.tolist() == [*steps, 160], "as scores count them"
    assert view.episodes.along("updates").tolist() == [*range(1, 9), *[8] * 7, 9]


def test_evaluations_of_a_run_that_learns_from_what_was_recorded_are_lost_with_updates() -> None:
    done = [Evaluated(0, n, (1.0,), (5,), 1.0) for n in (10, 20, 30)]
    view = view_of(started(updates=90), *done, Resumed("", 0, 20, 0.0))
    assert [e.updates for e in view.evaluations] == [10, 20]


def test_evaluations_of_lost_weights_go_though_their_steps_are_kept() -> None:
    done = [Evaluated(10 * n, n, (1.0,), (5,), 1.0) for n in (10, 20, 30)]
    view = view_of(started(), *done, Resumed("", 300, 20, 0.0))
    assert [e.updates for e in view.evaluations] == [10, 20]


def test_late_lines_of_the_old_generation_are_dropped_too() -> None:
    view = RunView()
    reduce(view, record(loss(5)))
    reduce(view, record(Resumed("", 50, 5, 0.0), generation=1))
    reduce(view, record(loss(9), generation=0))
    reduce(view, record(loss(3), generation=0))
    assert view.metrics["loss/image"].mean.tolist() == [5, 3]


def test_a_second_resume_may_go_further_back() -> None:
    view = RunView()
    for generation, updates in enumerate([(1, 2, 3, 4), (3, 4, 5), (2, 3)]):
        if generation:
            event = Resumed("", 0, updates[0] - 1, 0.0)
            reduce(view, record(event, generation=generation))
        for update in updates:
            reduce(view, record(loss(update, 10.0 * generation + update), generation=generation))
    assert view.metrics["loss/image"].mean.tolist() == [1, 22, 23]


def test_a_resumed_run_is_not_finished() -> None:
    view = view_of(started(), RunFinished("stopped", 5, 1, 0), started())
    assert view.finished is None
    assert phase(view, Trainer(alive=True)).name == "starting"


# --- phases ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "trainer", "expected"),
    [
        ((), Trainer(), Phase("waiting")),
        ((), Trainer(alive=False), Phase("lost", 0.0)),
        ((started(),), Trainer(alive=True), Phase("starting", 0.0)),
        (
            (started(), PhaseChanged("compiling", 0, 0)),
            Trainer(alive=True),
            Phase("compiling", 1.0),
        ),
        ((started(), PhaseChanged("training", 9, 0)), Trainer(alive=True), Phase("training")),
        ((started(), PhaseChanged("training", 9, 0)), Trainer(alive=False), Phase("lost", 1.0)),
        (
            (started(), PhaseChanged("training", 9, 0)),
            Trainer(alive=True, stop_requested_at=7.0),
            Phase("stopping", 7.0),
        ),
        (
            (started(), RunFinished("completed", 9, 1, 0)),
            Trainer(alive=False, stop_requested_at=1.0),
            Phase("finished"),
        ),
        ((started(), RunFinished("failed", 9, 1, 70)), Trainer(alive=False), Phase("failed")),
        (
            (started(), RunFinished("stopped", 9, 1, 0)),
            Trainer(alive=True, since=0.5),  # it has not let go of the lock yet
            Phase("finished"),
        ),
        (
            (started(), RunFinished("stopped", 9, 1, 0)),
            Trainer(alive=True, since=60.0),
            Phase("resuming", 60.0),
        ),
    ],
)
def test_phase(events: tuple[Event, ...], trainer: Trainer, expected: Phase) -> None:
    assert phase(view_of(*events), trainer) == expected


def test_a_repeated_phase_keeps_its_start() -> None:
    view = view_of(PhaseChanged("compiling", 0, 0), PhaseChanged("compiling", 0, 0))
    assert view.phase_since == 0.0


def stepping(*steps: int, phase: str = "training") -> list[Event]:
    """A phase, then one gauges event for each number of steps; four steps an update."""
    return [PhaseChanged(phase, 0, 0), *(Gauges(n, n // 4, {}) for n in steps)]


def test_eta_is_calm_and_only_where_it_means_something() -> None:
    steps = stepping(*range(0, 401, 10))
    assert eta_seconds(view_of(started(), *steps)) == 60.0
    jolt = [*range(0, 301, 10), 301, 302]
    assert eta_seconds(view_of(started(), *stepping(*jolt))) == pytest.approx(74.8, abs=2.0)
    assert eta_seconds(view_of(*steps)) is None
    assert eta_seconds(view_of(started(), *stepping())) is None
    assert eta_seconds(view_of(started(), *stepping(0, 10, phase="prefill"))) is None
    assert eta_seconds(view_of(started(), *stepping(500, 500, 500))) is None


def test_a_run_that_learns_from_what_was_recorded_is_measured_in_updates() -> None:
    still = [PhaseChanged("training", 0, 0), *(Gauges(0, n, {}) for n in range(0, 401, 10))]
    assert eta_seconds(view_of(started(updates=1000), *still)) == 60.0
    assert goal(view_of(started(updates=1000), *still)) == (400, 1000, "updates")
    assert eta_seconds(view_of(started(), *still)) is None, "its steps never end"
    assert goal(view_of(started(), *still)) == (0, 1000, "steps")


def test_the_rate_of_a_slow_run_does_not_flip() -> None:
    """An update every five seconds is 0.2/s whenever one looks."""
    for end in range(60, 65):
        view = view_of(*stepping(*(4 * (second // 5) for second in range(end))))
        assert rate(view, "updates") == pytest.approx(0.2, abs=0.02)


def test_the_rate_of_a_fast_run_is_that_of_the_last_seconds() -> None:
    steps = [*range(0, 1000, 10), *range(1000, 3000, 100)]
    assert rate(view_of(*stepping(*steps)), "env_steps") == 100.0


def test_the_rate_belongs_to_the_phase() -> None:
    view = view_of(*stepping(*range(0, 4000, 400), phase="prefill"), *stepping(4000, 4004, 4008))
    assert rate(view, "env_steps") == 4.0
    assert rate(view_of(*stepping(1)), "env_steps") is None
    assert rate(RunView(), "updates") is None


# --- what is kept ---------------------------------------------------------------------------


def test_missing_and_odd_numbers() -> None:
    view = view_of(
        Metrics(1, 10, {"loss/image": 3.0, "opt/grad_norm": None}),
        Metrics(2, 20, {"loss/image": None}),
        Episode(20, 0, None, 4),
    )
    assert view.metrics["loss/image"].mean.tolist() == [3.0]
    assert view.latest == {"loss/image": None, "opt/grad_norm": None}
    assert "opt/grad_norm" not in view.metrics
    assert len(view.episodes) == 0 and view.episode_count == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3.0),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        (1e300, 1e100),
        (-1e300, -1e100),
        ("7", None),
        (True, None),
        (None, None),
    ],
)
def test_number(value: object, expected: float | None) -> None:
    assert number(value) == expected


def test_charts_are_chosen_in_a_fixed_order() -> None:
    view = view_of(
        Metrics(1, 1, {"value/mean": 0.0, "loss/total": 1.0, "loss/proprio": 1.0, "loss/dyn": 1.0})
    )
    assert required_charts(view.latest)[:3] == ["loss/proprio", "loss/reward", "loss/cont"]
    assert optional_charts(view.metrics) == ["loss/total", "value/mean"]
    assert label("loss/proprio") == "proprio recon." and label("loss/dyn") == "dynamics KL"


def test_alerts() -> None:
    view = view_of(
        Warned("warning", "slow"),
        Controlled("pause", "refused", "unknown"),
        Controlled("stop", "accepted"),
        RunFinished("failed", 1, 1, 70, "ten updates in a row were not finite"),
    )
    assert [(alert.level, alert.message) for alert in view.alerts] == [
        ("warning", "slow"),
        ("warning", "pause refused: unknown"),
        ("error", "ten updates in a row were not finite"),
    ]


@pytest.mark.parametrize("jump", [-3600.0, 1e6, 1e300, -1e300])
def test_a_wall_clock_that_jumps_moves_no_curve_and_no_word(jump: float) -> None:
    """Curves, rates and the end in sight come from the monotonic clock."""

    def watched(jump: float) -> RunView:
        events: list[Event] = [started(steps=1000), PhaseChanged("training", 0, 0)]
        for i in range(1, 60):
            events += [Gauges(10 * i, i, {}), Metrics(i, 10 * i, {"loss/dyn": float(i)})]
            events += [Episode(10 * i, 0, float(i), 5)]
        times = [1e9 + i + jump * (i > len(events) // 2) for i in range(len(events))]
        pairs = enumerate(zip(events, times, strict=True))
        return rebuild([Record(event, time, float(i), 0) for i, (event, time) in pairs])

    calm, jumpy = watched(0.0), watched(jump)
    assert jumpy.metrics == calm.metrics and jumpy.episodes == calm.episodes
    assert jumpy.clock.ran == calm.clock.ran == 178
    for counter in ("env_steps", "updates"):
        assert rate(jumpy, counter) == rate(calm, counter)
    assert eta_seconds(jumpy) == eta_seconds(calm) is not None
    for now in (1e9, 1e9 + jump, 0.0):
        alarms.line(jumpy, phase(jumpy, Trainer(alive=True)), now, "run")
        alarms.safety(jumpy, now)


def test_text_from_the_file_is_clean_inside_the_view() -> None:
    evil = "\x1b[2J\u202e[@click=app.quit]x[/]\n" + "y" * 10_000
    view = view_of(
        started(task=evil, run=evil, device=evil),
        PhaseChanged(evil, 0, 0),
        Metrics(1, 1, {evil: 1.0, "loss/" + evil: 2.0}),
        Gauges(1, 1, {evil: 1.0}),
        Warned(evil, evil),
        Checkpointed(evil, 1, 1, 1, 1.0),
    )
    assert view.started is not None and view.checkpoint is not None
    texts = [
        view.started.task,
        view.started.run,
        view.started.device,
        view.phase,
        *view.metrics,
        *view.gauges,
        view.alerts[0].level,
        view.alerts[0].message,
        view.checkpoint.path,
    ]
    assert all("\x1b" not in text and "\u202e" not in text for text in texts)
    assert max(map(len, texts)) <= 500


def test_enormous_numbers_do_no_harm() -> None:
    view = view_of(
        started(steps=10**400, parameters=-(10**30)),
        Metrics(10**400, 10**400, {"loss/image": 1.0}),
        Episode(-(10**400), 0, 1e308, 10**400),
        PhaseChanged("training", 10**400, -5),
    )
    assert view.env_steps == 0 and view.updates == 0
    assert view.episodes.high.tolist() == [1e100]


def test_names_are_bounded() -> None:
    view = RunView()
    for index in range(2 * MAX_NAMES):
        reduce(view, record(Metrics(index, index, {f"x/{index}": 1.0})))
        reduce(view, record(Gauges(index, index, {f"x/{index}": 1.0})))
    assert len(view.metrics) == len(view.gauges) == MAX_NAMES
