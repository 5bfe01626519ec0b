"""Whole runs of the trainer on a toy: overlapped, in lockstep, stopped, resumed, broken."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_runs import Server, Started, log
from safetensors.torch import save_file
from tiny_run import UPDATES_PER_STEP, extend, lacking_updates, make_run, newest, read

from dreamer_async.agent.policy import Acted
from dreamer_async.agent.trainer import Trainer
from dreamer_async.envs.spec import StepBatch
from dreamer_async.run import parts, pipeline
from dreamer_async.run.collector import Player
from dreamer_async.run.learner import Learner, Report
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.store import checkpoint, events
from dreamer_async.store.run_dir import RunDir


def trained(run: RunDir) -> dict[str, torch.Tensor]:
    return {n: t for n, t in newest(run).tensors.items() if n.startswith("trainer/")}


@pytest.mark.parametrize("sync", ["true", "false"])
@pytest.mark.parametrize("task", ["catch", "reach"])
def test_a_run_collects_learns_and_saves(tmp_path: Path, sync: str, task: str) -> None:
    run = make_run(tmp_path, "train.steps=120", f"train.sync={sync}", task=task)
    assert pipeline.main(run, plain=False, resume=False) == 0
    seen = read(run)
    finished = seen[-1]
    assert isinstance(finished, events.RunFinished) and finished.reason == "completed"
    assert 120 <= finished.env_steps <= 124
    ratio = UPDATES_PER_STEP * (finished.env_steps - prefill_steps(seen))
    assert abs(finished.updates - ratio) <= 3
    phases = [e.phase for e in seen if isinstance(e, events.PhaseChanged)]
    assert phases == ["prefill", "training", "stopping", "finished"]
    values = next(e for e in reversed(seen) if isinstance(e, events.Metrics)).values
    for name in ("loss/reward", "loss/cont", "loss/dyn", "loss/rep", "loss/actor", "loss/critic"):
        assert name in values
    for name in ("loss/replay_critic", "return/S", "return/p5", "return/p95"):
        assert name in values
    assert any(isinstance(e, events.Episode) for e in seen)
    assert newest(run).manifest["updates"] == finished.updates


def phases(run: RunDir) -> list[str]:
    return [e.phase for e in read(run) if isinstance(e, events.PhaseChanged)]


def compiling(monkeypatch: pytest.MonkeyPatch, warm_up: Callable[[Learner], str]) -> None:
    """Let learners compile as on a GPU, in this way."""
    build = Learner.__init__

    def compiles(learner: Learner, *args: Any) -> None:
        build(learner, *args)
        learner.compiles = True

    monkeypatch.setattr(Learner, "__init__", compiles)
    monkeypatch.setattr(Learner, "warm_up", warm_up)


def until(reached: Callable[[], bool]) -> bool:
    """Wait for something that another thread does."""
    end = time.monotonic() + 60
    while not reached() and time.monotonic() < end:
        time.sleep(0.001)
    return reached()


def test_the_replay_fills_while_the_update_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the collector then waits until the first updates are paid back."""
    filled: list[bool] = []

    def warm_up(learner: Learner) -> str:
        filled.append(until(lambda: learner.replay.windows >= 4 * 8))
        time.sleep(0.3)  # in which a checkpoint would be due
        filled.append(learner.updates == 0)
        return "not that fast"

    compiling(monkeypatch, warm_up)
    run = make_run(tmp_path, "train.steps=200", "train.checkpoint_seconds=0.1")
    assert pipeline.main(run, plain=False, resume=False) == 0
    assert filled == [True, True]
    assert phases(run) == ["compiling", "training", "stopping", "finished"]
    seen = read(run)
    assert "not that fast" in [e.message for e in seen if isinstance(e, events.Warned)]
    assert isinstance(seen[-1], events.RunFinished) and seen[-1].updates > 0
    saved = [e.updates for e in seen if isinstance(e, events.Checkpointed)]
    assert saved and 0 not in saved, "nothing is saved before there is anything new"


def test_in_lockstep_compiling_comes_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def warm_up(learner: Learner) -> str:
        time.sleep(0.2)
        steps.append(learner.replay.steps)
        return ""

    compiling(monkeypatch, warm_up)
    run = make_run(tmp_path, "train.steps=120", "train.sync=true")
    assert pipeline.main(run, plain=False, resume=False) == 0
    assert steps == [0]
    assert phases(run) == ["compiling", "prefill", "training", "stopping", "finished"]


def test_a_run_that_owes_updates_compiles_before_it_collects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ring is full and the collector has no room: the learner must not wait for it."""
    run = make_run(tmp_path, "train.steps=300", "replay.capacity=200")
    assert pipeline.main(run, plain=False, resume=False) == 0
    before, steps = newest(run).manifest["updates"], []
    start = TrainRatio.start
    monkeypatch.setattr(
        TrainRatio, "start", lambda ratio, debt=None: start(ratio, ratio.bound + ratio.cost)
    )

    def warm_up(learner: Learner) -> str:
        first = learner.replay.steps
        time.sleep(0.3)
        steps.append(learner.replay.steps - first)
        return ""

    compiling(monkeypatch, warm_up)
    extend(run, "train.steps=400")
    assert pipeline.main(run, plain=False, resume=True) == 0
    assert steps == [0] and newest(run).manifest["updates"] > before
    assert phases(run)[-4:] == ["compiling", "training", "stopping", "finished"]


def test_a_failure_to_compile_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warm_up(learner: Learner) -> str:
        raise ValueError("no such kernel")

    compiling(monkeypatch, warm_up)
    run = make_run(tmp_path, "train.steps=200")
    assert pipeline.main(run, plain=False, resume=False) != 0
    finished = read(run)[-1]
    assert isinstance(finished, events.RunFinished) and "no such kernel" in finished.message


def prefill_steps(seen: list[events.Event]) -> int:
    return next(
        e.env_steps for e in seen if isinstance(e, events.PhaseChanged) and e.phase == "training"
    )


def test_a_checkpoint_knows_the_mean_of_the_last_20_episodes(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.steps=100", "train.train_ratio=0.1")
    assert pipeline.main(run, plain=False, resume=False) == 0
    assert newest(run).manifest["score"] is None, "too few episodes"
    extend(run, "train.steps=400")
    assert pipeline.main(run, plain=False, resume=True) == 0
    scores = [e.score or 0.0 for e in read(run) if isinstance(e, events.Episode)]
    assert newest(run).manifest["score"] == pytest.approx(sum(scores[-20:]) / 20)


def test_what_is_announced_is_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a checkpoint is written, which may take long, the learner goes on."""
    write, step = checkpoint.save, Learner.step
    steps: list[int] = []
    saves: list[int] = []

    def counted(learner: Learner) -> Report:
        steps.append(learner.updates)
        return step(learner)

    def slow(*args: Any) -> Path:
        saves.append(len(steps))
        end = time.monotonic() + 60
        while len(saves) <= 3 and len(steps) < saves[-1] + 3 and time.monotonic() < end:
            time.sleep(0.001)
        if len(saves) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return write(*args)

    monkeypatch.setattr(checkpoint, "save", slow)
    monkeypatch.setattr(Learner, "step", counted)
    run = make_run(tmp_path, "train.steps=10_000_000", "train.checkpoint_seconds=0.05")
    assert pipeline.main(run, plain=False, resume=False) == 0
    announced = {run.path / e.path: e for e in read(run) if isinstance(e, events.Checkpointed)}
    paths = [path for path in checkpoint.candidates(run.checkpoints) if path in announced]
    kept = [checkpoint.read(path) for path in paths]  # one that the end cut short is not announced
    assert len(announced) >= 3 and len(kept) >= 2
    for found in kept:
        event = announced[found.path]
        assert found.manifest["updates"] == event.updates
        assert found.manifest["env_steps"] == event.env_steps


@pytest.mark.parametrize("fails", [True, False], ids=["fails", "control"])
def test_an_update_that_fails_while_the_run_stops_ends_it_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Nobody waits for its result any more, and what it has changed half-way is not saved."""
    update = Trainer.update

    def stopped(trainer: Trainer, *inputs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        if fails:
            raise ValueError("half-way")
        return update(trainer, *inputs)

    monkeypatch.setattr(Trainer, "update", stopped)
    run = make_run(tmp_path, "train.steps=10_000_000")
    code = pipeline.main(run, plain=False, resume=False)
    saved = list(checkpoint.candidates(run.checkpoints))
    assert (code != 0, len(saved)) == ((True, 0) if fails else (False, 1))


def test_lockstep_runs_are_identical_and_the_seed_matters(tmp_path: Path) -> None:
    states = []
    for i, seed in enumerate((1, 1, 2)):
        run = make_run(
            tmp_path / str(i), "train.steps=100", "train.sync=true", f"train.seed={seed}"
        )
        assert pipeline.main(run, plain=False, resume=False) == 0
        states.append(trained(run))
    assert equal(states[0], states[1])
    assert not equal(states[0], states[2])


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_lockstep_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    """N steps, stop, resume, N steps equal 2N steps: weights, moments, replay latents, episodes."""
    whole = make_run(tmp_path / "whole", "train.steps=200", "train.sync=true")
    assert pipeline.main(whole, plain=False, resume=False) == 0
    halved = make_run(tmp_path / "halved", "train.steps=100", "train.sync=true")
    assert pipeline.main(halved, plain=False, resume=False) == 0
    halfway = trained(halved)
    extend(halved, "train.steps=200")
    assert pipeline.main(halved, plain=False, resume=True) == 0
    assert equal(trained(whole), trained(halved))
    assert not equal(trained(whole), halfway), "the comparison must be able to fail"
    everything = newest(whole).tensors, newest(halved).tensors
    assert equal(*everything), "policy carry, generators, environments and episodes too"
    scores = [
        [(e.env_id, e.score, e.env_steps) for e in read(run) if isinstance(e, events.Episode)]
        for run in (whole, halved)
    ]
    assert scores[0] == scores[1] and scores[0]


@pytest.mark.slow
def test_a_lockstep_run_of_torch_alone_resumes_bit_for_bit(tmp_path: Path) -> None:
    """As with native functions, which all other runs here use."""
    settings = "train.sync=true", "train.native=false"
    whole = make_run(tmp_path / "whole", "train.steps=120", *settings)
    halved = make_run(tmp_path / "halved", "train.steps=60", *settings)
    for run in (whole, halved):
        assert pipeline.main(run, plain=False, resume=False) == 0
    halfway = trained(halved)
    extend(halved, "train.steps=120")
    assert pipeline.main(halved, plain=False, resume=True) == 0
    assert equal(newest(whole).tensors, newest(halved).tensors)
    assert not equal(trained(whole), halfway), "the comparison must be able to fail"


def test_an_overlapped_resume_neither_bursts_nor_stalls(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.steps=120")
    assert pipeline.main(run, plain=False, resume=False) == 0
    change_manifest(run, lambda manifest: manifest.update(ratio_debt=90.0))
    first = newest(run).manifest
    extend(run, "train.steps=240")
    assert pipeline.main(run, plain=False, resume=True) == 0
    second = newest(run).manifest
    assert lacking_updates(first, second) in (0, 1), "at most the update that the stop cut short"
    resumed = next(e for e in read(run) if isinstance(e, events.Resumed))
    assert resumed.env_steps == first["env_steps"] and resumed.lost_updates == 0


def test_a_resume_neither_sees_nor_draws_again_what_was_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[bytes, bytes]] = []
    act = Player.act

    def noted(self: Player, step: StepBatch) -> Acted:
        if self.generator.get_state().equal(
            torch.Generator().manual_seed(self.generator.initial_seed()).get_state()
        ):
            seen = b"".join(rows.tobytes() for rows in step.obs.values())
            begun.append((seen, self.generator.get_state().numpy().tobytes()))
        return act(self, step)

    monkeypatch.setattr(Player, "act", noted)
    run = make_run(tmp_path, "train.steps=20", "env.batch_size=4")
    assert pipeline.main(run, plain=False, resume=False) == 0
    for steps in (40, 60):
        extend(run, f"train.steps={steps}")
        assert pipeline.main(run, plain=False, resume=True) == 0
    monkeypatch.setattr(parts, "seed_from", lambda seed, steps: seed)  # the control
    extend(run, "train.steps=80")
    assert pipeline.main(run, plain=False, resume=True) == 0
    seen, drawn = zip(*begun, strict=True)
    assert len(set(seen[:3])) == len(set(drawn[:3])) == 3
    assert begun[3] == begun[0], "the comparison must be able to fail"


def test_a_resume_without_a_checkpoint_forgives_the_updates_that_were_done(tmp_path: Path) -> None:
    """Of the replay's steps those of the prefill had paid for one update, not for many."""
    run = make_run(tmp_path, "train.steps=120")
    assert pipeline.main(run, plain=False, resume=False) == 0
    done = newest(run).manifest["updates"]
    shutil.rmtree(run.checkpoints)
    extend(run, "train.steps=140")
    assert pipeline.main(run, plain=False, resume=True) == 0
    resumed = next(e for e in read(run) if isinstance(e, events.Resumed))
    assert resumed.checkpoint == "" and resumed.env_steps >= 120
    assert abs(resumed.lost_updates - done) <= 3
    paid_by_all = UPDATES_PER_STEP * resumed.env_steps
    assert resumed.lost_updates < paid_by_all - 10, "the control"


def test_resuming_without_the_replay_fills_it_again(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.steps=120")
    assert pipeline.main(run, plain=False, resume=False) == 0
    before = newest(run).manifest
    run.free_replay()
    extend(run, "train.steps=240")
    assert pipeline.main(run, plain=False, resume=True) == 0
    after = newest(run).manifest
    assert after["env_steps"] >= 240
    assert before["updates"] < after["updates"]
    phases = [e.phase for e in read(run) if isinstance(e, events.PhaseChanged)]
    assert phases.count("prefill") == 2


def test_a_moved_run_says_where_its_replay_is_expected(tmp_path: Path) -> None:
    replays = tmp_path / "replays"
    replays.mkdir()
    run = make_run(tmp_path, "train.steps=80", f"replay.directory={replays}")
    assert pipeline.main(run, plain=False, resume=False) == 0
    run.path.rename(tmp_path / "renamed")
    moved = RunDir(tmp_path / "renamed")
    extend(moved, "train.steps=120")
    assert pipeline.main(moved, plain=False, resume=True) == 0
    said = [e.message for e in read(moved) if isinstance(e, events.Warned)]
    (told,) = (message for message in said if "moved or renamed" in message)
    assert str(moved.replay_paths(str(replays))[0]) in told
    extend(moved, "train.steps=160")
    assert pipeline.main(moved, plain=False, resume=True) == 0
    told = [e for e in read(moved) if isinstance(e, events.Warned) and "moved" in e.message]
    assert len(told) == 1, "now it is where it is expected"


def test_a_damaged_checkpoint_falls_back_and_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.steps=100")
    assert pipeline.main(run, plain=False, resume=False) == 0
    extend(run, "train.steps=120")
    assert pipeline.main(run, plain=False, resume=True) == 0
    paths = list(checkpoint.candidates(run.checkpoints))
    assert len(paths) == 2
    (paths[0] / checkpoint.STATE).write_bytes(b"junk")
    extend(run, "train.steps=140")
    assert pipeline.main(run, plain=False, resume=True) == 0
    resumed = [e for e in read(run) if isinstance(e, events.Resumed)][-1]
    assert resumed.checkpoint.endswith(paths[1].name)
    assert paths[0].name in resumed.skipped[0]
    assert resumed.lost_updates > 0


def test_nothing_valid_is_an_error_and_nothing_is_deleted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, "train.steps=100")
    assert pipeline.main(run, plain=False, resume=False) == 0
    path = newest(run).path
    (path / checkpoint.STATE).write_bytes(b"junk")
    extend(run, "train.steps=120")
    assert pipeline.main(run, plain=False, resume=True) == 65
    assert path.name in capfd.readouterr().err
    assert path.exists() and run.replay_path.exists()


def contents(run: RunDir) -> dict[str, bytes]:
    """Every file of a run but the lock, which says who had it last."""
    files = [path for path in run.path.rglob("*") if path.is_file() and path != run.lock_path]
    return {str(path.relative_to(run.path)): path.read_bytes() for path in files}


def bad_checkpoint(run: RunDir) -> None:
    (newest(run).path / checkpoint.STATE).write_bytes(b"junk")


def change_manifest(run: RunDir, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and make its hash right again, as somebody could."""
    change_manifest_of(newest(run).path, change)


def change_manifest_of(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / checkpoint.MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    manifest[checkpoint.OWN_HASH] = checkpoint._manifest_hash(manifest)
    path.write_text(json.dumps(manifest))


def change_generator(run: RunDir, state: torch.Tensor) -> None:
    found = newest(run)
    save_file(found.tensors | {"learner/generator": state}, found.path / checkpoint.STATE)
    digest = hashlib.sha256((found.path / checkpoint.STATE).read_bytes()).hexdigest()
    change_manifest_of(found.path, lambda manifest: manifest.update(sha256=digest))


def another_ring(run: RunDir) -> None:
    extend(run, "env.num_envs=2")


def another_ring_without_latents(run: RunDir) -> None:
    another_ring(run)
    run.latents_path.unlink()


REFUSALS: list[tuple[Callable[[RunDir], object], str]] = [
    (bad_checkpoint, "does not match its hash"),
    (another_ring, "num_envs 4, this run needs 2"),
    (another_ring_without_latents, "num_envs 4, this run needs 2"),
    (lambda run: extend(run, "model.units=16"), "expected torch.float32"),
    (lambda run: (bad_checkpoint(run), run.free_replay()), "no valid checkpoint"),
    (lambda run: (extend(run, "model.units=16"), run.free_replay()), "expected torch"),
    (lambda run: change_manifest(run, lambda m: m.pop("updates")), "missing key updates"),
    (lambda run: change_manifest(run, lambda m: m.update(env_steps=-1)), "env_steps -1"),
    (lambda run: change_manifest(run, lambda m: m.update(updates="7")), "updates: expected"),
    (lambda run: change_manifest(run, lambda m: m["replay"].update(heads="x")), "replay state"),
    (lambda run: change_manifest(run, lambda m: m.pop("replay")), "replay"),
    (lambda run: change_manifest(run, lambda m: m["counted"].update(a=-1)), "counted: -1 steps"),
    (lambda run: change_generator(run, torch.zeros(3)), "no state of a generator"),
    (lambda run: change_generator(run, torch.zeros(5056, dtype=torch.uint8)), "no state of a"),
]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A short run that has ended."""
    run = make_run(tmp_path_factory.mktemp("ended"), "train.steps=40")
    assert pipeline.main(run, plain=False, resume=False) == 0
    return run


@pytest.mark.parametrize(("spoil", "reason"), REFUSALS)
def test_a_resume_that_cannot_restore_changes_nothing(
    ended: RunDir,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    spoil: Callable[[RunDir], object],
    reason: str,
) -> None:
    run = RunDir(Path(shutil.copytree(ended.path, tmp_path / "run")))
    spoil(run)
    before = contents(run)
    capfd.readouterr()
    assert pipeline.main(run, plain=True, resume=True, overrides=["train.steps=80"]) == 65
    out, err = capfd.readouterr()
    assert reason in err and err.count("\n") == 1
    assert "step 0" not in out
    assert contents(run) == before


def test_a_resume_that_restores_keeps_its_new_settings(ended: RunDir, tmp_path: Path) -> None:
    """The control: the run's stream, its ring and its config do change."""
    run = RunDir(Path(shutil.copytree(ended.path, tmp_path / "run")))
    before = contents(run)
    assert pipeline.main(run, plain=False, resume=True, overrides=["train.steps=60"]) == 0
    after = contents(run)
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed == {"config.json", "events.jsonl", "replay.ring", "replay.latents"}
    assert newest(run).manifest["env_steps"] >= 60


def test_another_size_is_refused_by_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, "train.steps=100")
    assert pipeline.main(run, plain=False, resume=False) == 0
    extend(run, "train.steps=120", "model.units=16")
    assert pipeline.main(run, plain=False, resume=True) == 65
    assert "step-" in capfd.readouterr().err


def test_poisoned_weights_skip_every_update_and_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from dreamer_async.run.learner import Learner

    run = make_run(tmp_path, "train.steps=2000", "train.skip_limit=3")
    publish = Learner.publish

    def poison(self: Learner) -> None:
        publish(self)
        parameter = next(iter(self.trainer.agent.parameters()))
        with torch.no_grad():
            parameter.fill_(float("nan"))

    monkeypatch.setattr(Learner, "publish", poison)
    assert pipeline.main(run, plain=False, resume=False) == 70
    assert "3 updates in a row" in capfd.readouterr().err
    seen = read(run)
    assert sum("not finite" in e.message for e in seen if isinstance(e, events.Warned)) >= 2
    assert isinstance(seen[-1], events.RunFinished) and seen[-1].exit_code == 70
    assert not list(checkpoint.candidates(run.checkpoints)), "no state that is not finite is saved"


def test_a_checkpoint_that_is_due_while_the_weights_are_poisoned_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Those from before stay, and verify; it ends the run before updates have failed often."""
    often = "train.sync=true", "train.checkpoint_seconds=0.001", "train.skip_limit=50"
    run = make_run(tmp_path, "train.steps=10_000_000", *often)
    step = Learner.step

    def poisoned(self: Learner) -> Report:
        if self.updates == 10:
            with torch.no_grad():
                next(iter(self.trainer.agent.parameters())).fill_(float("nan"))
        return step(self)

    monkeypatch.setattr(Learner, "step", poisoned)
    assert pipeline.main(run, plain=False, resume=False) == 70
    assert "is not finite" in capfd.readouterr().err
    kept = [checkpoint.read(path) for path in checkpoint.candidates(run.checkpoints)]
    assert kept and all(found.manifest["updates"] <= 10 for found in kept)


def test_a_run_in_use_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, "train.steps=100")
    with run.lock():
        assert pipeline.main(run, plain=False, resume=False) == 73
    assert "in use" in capfd.readouterr().err


def is_metrics(event: events.Event) -> bool:
    return isinstance(event, events.Metrics)


def is_gauges(event: events.Event) -> bool:
    return isinstance(event, events.Gauges)


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, "request"])
def test_every_way_to_stop_saves_and_exits_cleanly(
    server: Server, tmp_path: Path, how: int | str
) -> None:
    run = make_run(tmp_path, "train.steps=10_000_000")
    with server.start(run, {"slow_updates": 0.2, "gauges_often": 0.05}) as trainer:
        trainer.wait_for(is_metrics, 2)
        sent = time.monotonic()
        if isinstance(how, str):
            run.request("stop")
        else:
            trainer.send_signal(how)
        assert trainer.wait() == 0, log(run)
    finished = read(run)[-1]
    assert isinstance(finished, events.RunFinished) and finished.reason == "stopped"
    assert newest(run).manifest["updates"] == finished.updates > 0
    records, _ = events.read_events(run.events_path)
    before = [record.event for record in records if record.mono < sent]
    done = max(event.update for event in before if isinstance(event, events.Metrics))
    assert finished.updates <= done + 4, "the one that ran, and few until it was heard"


@pytest.mark.parametrize("sync", ["true", "false"])
def test_a_paused_run_holds_still_saves_and_goes_on(
    server: Server, tmp_path: Path, sync: str
) -> None:
    often = "train.checkpoint_seconds=0.05"
    run = make_run(tmp_path, "train.steps=10_000_000", f"train.sync={sync}", often)
    with server.start(run, {"gauges_often": 0.1}) as trainer:
        trainer.wait_for(is_metrics)
        for command in ("pause", "pause", "checkpoint"):
            run.request(command)
        trainer.wait_for(is_answer_to_checkpoint)
        held = still(trainer)
        run.request("resume")
        trainer.wait_for(is_after(held))
        run.request("pause")
        run.request("stop")
        assert trainer.wait() == 0, log(run)
    seen = read(run)
    answers = [(e.command, e.answer) for e in seen if isinstance(e, events.Controlled)]
    assert answers[:4] == [
        ("pause", "done"), ("pause", "refused"), ("checkpoint", "accepted"), ("resume", "done"),
    ]  # fmt: skip
    asked, resumed = (
        seen.index(events.Controlled(command, answer))
        for command, answer in (("checkpoint", "accepted"), ("resume", "done"))
    )
    assert any(isinstance(e, events.Checkpointed) for e in seen[asked:resumed])
    phases = [e.phase for e in seen if isinstance(e, events.PhaseChanged)]
    assert phases[2:4] == ["paused", "training"]


def still(trainer: Started) -> int:
    """Wait for a run to come to rest, and check that it stays there; returns its updates.

    Neither steps nor updates nor saves; a run that is not paused never stands still for as many
    rounds of gauges.
    """
    positions: list[tuple[int, int, int]] = []
    while positions[-8:] != 8 * positions[-1:] or not positions:
        assert len(positions) < 2000, positions[-100:]
        trainer.wait_for(is_gauges, 1 + sum(map(is_gauges, read(trainer.run))))
        positions.append(position(trainer.run))
    return positions[-1][1]


def position(run: RunDir) -> tuple[int, int, int]:
    """Steps, updates and saves so far."""
    seen = read(run)
    gauges = next(e for e in reversed(seen) if isinstance(e, events.Gauges))
    saves = sum(isinstance(e, events.Checkpointed) for e in seen)
    return gauges.env_steps, gauges.updates, saves


def is_answer_to_checkpoint(event: events.Event) -> bool:
    return isinstance(event, events.Controlled) and event.command == "checkpoint"


def is_after(updates: int) -> Callable[[events.Event], bool]:
    def later(event: events.Event) -> bool:
        return isinstance(event, events.Metrics) and event.update > updates + 2

    return later


@pytest.mark.faults
def test_a_closed_terminal_saves_and_exits_cleanly(server: Server, tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.steps=10_000_000")
    master, slave = os.openpty()
    with server.start(run, {"terminal": os.ttyname(slave)}) as trainer:
        trainer.wait_for(is_metrics)
        os.close(slave)
        os.close(master)
        assert trainer.wait() == 0, log(run)
    finished = read(run)[-1]
    assert isinstance(finished, events.RunFinished) and finished.reason == "stopped"
    assert "SIGHUP" in finished.message
    assert newest(run).manifest["updates"] == finished.updates > 0
