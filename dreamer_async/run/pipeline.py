"""One run from start to end: build, restore, warm up, overlap, save.

The trainer process is one asyncio loop with a few owned threads (env, policy, learner,
checkpoint writer). The collector and the learner meet in two places only: the replay ring
and the train-ratio limiter.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from dreamer_async import __version__
from dreamer_async.config import Config, from_dict, override, to_dict
from dreamer_async.fast.cuda.capture import alone
from dreamer_async.machine import process
from dreamer_async.machine.device import wait_for
from dreamer_async.parallel.meeting import Meeting
from dreamer_async.parallel.shares import check
from dreamer_async.parallel.world import World
from dreamer_async.replay.capacity import available_memory, paging_warning
from dreamer_async.run import aio
from dreamer_async.run.aio import Left, OwnedThread, Stop, innermost
from dreamer_async.run.failures import answer, describe, exit_code
from dreamer_async.run.learner import learn, learn_once, study
from dreamer_async.run.output import Output
from dreamer_async.run.parts import Parts, build
from dreamer_async.run.ranks.follower import follow
from dreamer_async.run.ranks.lead import Lead
from dreamer_async.run.ranks.team import COLLECT, Team
from dreamer_async.run.resume import begin_with, drop_other_layout, go_on
from dreamer_async.run.telemetry import PlainLog, Telemetry
from dreamer_async.run.trackers import Trackers
from dreamer_async.store import checkpoint, exit_codes
from dreamer_async.store.events import EventWriter, RunFinished, RunStarted, next_generation
from dreamer_async.store.json_file import read_json, write_json_atomic
from dreamer_async.store.run_dir import RunDir


def main(run_dir: RunDir, *, plain: bool, resume: bool, overrides: Sequence[str] = ()) -> int:
    """Run the trainer in this process and return its exit code.

    `overrides` change the settings of a resumed run, for good once it has been restored. As one of
    several ranks this process leads or follows; ranks that were started anew resume.
    """
    world = World.here()
    if not world.leads:
        return follow_main()
    process.prepare()
    try:
        meeting = Meeting(world) if world.size > 1 else None
        config = override(from_dict(read_json(run_dir.config_path)), overrides)
        resume = resume or world.restarts > 0
        with run_dir.lock():
            code = aio.run(run(config, run_dir, plain=plain, resume=resume, meeting=meeting))
    except Exception as error:
        code = _said(error, run_dir)
    return _ended(code)


def follow_main() -> int:
    """Follow rank 0 in this process, whatever run it leads, and return the exit code."""
    process.prepare()
    try:
        meeting = Meeting(World.here())
        code = aio.run(follow(meeting, meeting.find()))
    except Exception as error:
        code = _said(error, None)
    return _ended(code)


def _said(error: Exception, run_dir: RunDir | None) -> int:
    code = exit_code(error)
    if not aio.in_time(answer, error, run_dir):
        os._exit(code)
    return code


def _ended(code: int) -> int:
    if aio.hanging():
        os._exit(code)
    return code


async def run(
    config: Config, run_dir: RunDir, *, plain: bool, resume: bool, meeting: Meeting | None = None
) -> int:
    """Train until the planned steps or a stop; raises what made it fail.

    With a meeting this is rank 0 of several.
    """
    stop = Stop(config.train.grace_seconds, aio.RANKS_ECHO if meeting else None)
    stop.on_signals()
    writer = EventWriter(run_dir.events_path, next_generation(run_dir.events_path))
    outputs = [Output(sys.stdout)] if plain and sys.stdout else []
    trackers = Trackers(run_dir, config)
    telemetry = Telemetry(writer, *map(PlainLog, outputs), *trackers.listeners)
    trackers.follow(telemetry.warn)
    begun = not resume
    team = Team() if meeting is None else Lead(meeting, telemetry, stop)
    code, words = exit_codes.STUCK, ""
    try:
        with ExitStack() as stack:
            building = gather(config, run_dir, telemetry, stop, stack, resume=resume, team=team)
            parts = await aio.first(building, stop.interrupt(), team.failed())
            if parts is not None:
                await begin(parts, resume=resume)
                begun = True
                await train(parts, stop)
            if begun:
                reason = "stopped" if stop.requested else "completed"
                _finish(telemetry, reason, 0, stop.reason)
            else:
                for output in outputs:
                    output.write(f"stopped ({stop.reason}) before {run_dir.name} continued\n")
            code, words = 0, stop.reason
            stop.succeeded()
            if parts is not None:  # in a thread: a second signal is heard meanwhile
                await parts.writer_thread.run(parts.env.close)
    except BaseException as error:
        error = await team.cause(innermost(error))
        code, words = exit_code(error), describe(error, run_dir)
        if begun:  # a resume that cannot restore leaves the run's stream as it was
            _finish(telemetry, "failed", code, words)
        raise error
    finally:
        await team.end(code, words)
        stop.close()
        with aio.OwnedThread("trackers") as thread:  # as above, a second signal is heard
            lost = await thread.run(trackers.close)
        for said in lost:
            for output in outputs:
                output.write(f"{said}\n")
        for each in (writer, *outputs):
            each.close()
    return 0


async def gather(
    config: Config,
    run_dir: RunDir,
    telemetry: Telemetry,
    stop: Stop,
    stack: ExitStack,
    *,
    resume: bool,
    team: Team,
) -> Parts:
    """Make every part, after all ranks have met and the replay is as so many can use it."""
    check(config, team.world.size)
    if resume and (dropped := drop_other_layout(run_dir, config, team.world.size)):
        telemetry.warn(dropped)
    await team.meet(config, run_dir, resume=resume)
    return await build(config, run_dir, telemetry, stop, stack, resume=resume, team=team)


async def begin(parts: Parts, *, resume: bool) -> None:
    """Restore a resumed run; only then take over its replay, its config and its stream."""
    config, run_dir, telemetry = parts.config, parts.run_dir, parts.telemetry
    resumption = None
    await parts.learner_thread.run(parts.learner.publish)
    if resume:
        resumption = await parts.learner_thread.run(go_on, run_dir, config, parts.state)
    begun_with: list[str] = []
    if config.train.init and not (resumption and resumption.resumed.checkpoint):
        place, what = Path(config.train.init), config.train.init_parts
        begun_with = await parts.learner_thread.run(begin_with, place, what, parts.learner)
    learner = parts.learner
    ahead = await parts.team.begin(parts.state.others, learner.updates, learner.skipped)
    if resumption is not None:
        resumption = resumption.ahead(ahead, ahead * parts.ratio.ratio / parts.ratio.cost)
    await parts.learner_thread.run(parts.team.same_weights, learner.trainer)
    parts.replay.claim()
    if to_dict(config) != read_json(run_dir.config_path):
        write_json_atomic(run_dir.config_path, to_dict(config))
    checkpoint.sweep(run_dir.checkpoints)
    telemetry.emit(_started(parts))
    for line in begun_with:
        telemetry.warn(line, "info")
    if warning := paging_warning(parts.replay.bytes, available_memory()):
        telemetry.warn(warning)
    if resumption is not None:
        parts.saver.kept(resumption.resumed.checkpoint, resumption.resumed.updates)
        telemetry.emit(resumption.resumed)
        for message in resumption.warnings:
            telemetry.warn(message)
        recall, steps = parts.collector.suite_scores.recall, resumption.resumed.env_steps
        await parts.writer_thread.run(recall, run_dir.events_path, steps)


async def train(parts: Parts, stop: Stop) -> None:
    """Work until all steps are done, somebody asks for a stop or something fails, and save.

    Environments that do not answer are left behind first: they have nothing that is worth a
    wait. What is raised is what failed, whether it could be saved or not.
    """
    try:
        await work(parts, stop)
        if parts.learner.failure is not None:  # of an update that nobody waited for any more
            raise parts.learner.failure
    except Exception as error:
        stop.bound()
        trouble = await _save_after_failure(parts)
        if trouble is not None and isinstance(innermost(error), OSError):
            raise trouble from error  # the disk: this says what is lost
        raise
    parts.monitor.report()
    if parts.collector.inspection is not None:  # a short run saw less than it takes to say so
        parts.collector.report(parts.collector.inspection.finish())
    await parts.saver.save_last(
        parts.learner_thread, parts.writer_thread, exact=not parts.env_thread.left
    )


async def _save_after_failure(parts: Parts) -> Exception | None:
    """Save what was learned; trouble with it is a warning, as the first failure counts."""
    if not parts.ratio.inserted and not parts.learner.updates:
        return None  # nothing was done yet
    try:
        await parts.saver.save_last(parts.learner_thread, parts.writer_thread, exact=False)
    except Exception as error:
        parts.telemetry.warn(describe(error, parts.run_dir), "error")
        return error
    return None


async def work(parts: Parts, stop: Stop) -> None:
    """Collect and learn side by side (or in lockstep), or learn from what was recorded.

    Compiling is the learner's first work; in lockstep it comes before everything.
    """
    train = parts.config.train
    if train.updates:
        await learn_recorded(parts, stop)
        return
    parts.ratio.compiling = parts.learner.compiles
    parts.telemetry.enter(parts.ratio.phase)
    await parts.policy_thread.run(parts.player.warm_up, parts.env.batch_size)
    if train.sync:
        await aio.first(compile_updates(parts), stop.interrupt())
        if parts.learner_thread.left:  # a device that is recorded must not be waited for
            return
    wait_for(parts.learner.trainer.device)  # what one stream restored, another one uses
    if not parts.collector.running:
        parts.env.start()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(parts.team.watch()),
            group.create_task(parts.monitor.report_every(1.0)),
            group.create_task(parts.filmer.film_every(parts.learner_thread, parts.writer_thread)),
            group.create_task(parts.evaluator.serve(parts.evaluation_thread)),
        ]
        if train.sync:
            tasks += [group.create_task(_leave_when_overdue(parts.env_thread, stop))]
            with suppress(Left):
                await lockstep(parts, stop)
        else:
            threads = parts.learner_thread, parts.writer_thread
            tasks += [
                group.create_task(parts.collector.collect(parts.env_thread, parts.policy_thread)),
                group.create_task(compile_and_learn(parts)),
                group.create_task(parts.saver.save_every(train.checkpoint_seconds, *threads)),
            ]
            await aio.first(stop.wait(), parts.ratio.reached(train.steps))
        parts.telemetry.enter("stopping")
        for task in tasks:  # each ends at its next await; an update that runs is waited for
            task.cancel()


async def learn_recorded(parts: Parts, stop: Stop) -> None:
    """Update from what the replay holds, until the planned updates; no environment steps."""
    train, thread = parts.config.train, parts.learner_thread
    parts.ratio.start(0.0)
    parts.ratio.compiling = parts.learner.compiles
    parts.telemetry.enter(parts.ratio.phase)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(parts.monitor.report_every(1.0)),
            group.create_task(parts.filmer.film_every(thread, parts.writer_thread)),
            group.create_task(parts.evaluator.serve(parts.evaluation_thread)),
            group.create_task(
                parts.saver.save_every(train.checkpoint_seconds, thread, parts.writer_thread)
            ),
        ]
        await aio.first(stop.interrupt(), compile_and_study(parts))
        parts.telemetry.enter("stopping")
        for task in tasks:
            task.cancel()


async def compile_and_study(parts: Parts) -> None:
    """Warm the learner up, where that is worth it, and do the planned updates."""
    await compile_updates(parts)
    updates = parts.config.train.updates
    await study(parts.learner, parts.ratio, parts.learner_thread, parts.telemetry, updates)


async def _leave_when_overdue(env_thread: OwnedThread, stop: Stop) -> None:
    await stop.overdue()
    env_thread.leave()


async def compile_and_learn(parts: Parts) -> None:
    """Update until cancelled; environments fill the replay while the update is compiled."""
    await compile_updates(parts)
    await learn(parts.learner, parts.ratio, parts.learner_thread, parts.telemetry)


async def compile_updates(parts: Parts) -> None:
    """Warm the learner up, where that is worth it, and say what it could not do."""
    if parts.ratio.compiling:
        warm_up = partial(alone, parts.learner.warm_up)
        if problem := await parts.learner_thread.run_or_leave(warm_up):
            parts.telemetry.warn(problem)
        parts.ratio.compiling = False
        parts.telemetry.enter(parts.ratio.phase)
        await parts.ratio.notify()


async def lockstep(parts: Parts, stop: Stop) -> None:
    """Collect one batch, do every update that is due, repeat: deterministic given the seed."""
    collector = parts.collector
    save_if_due = partial(
        parts.saver.save_if_due,
        parts.config.train.checkpoint_seconds,
        parts.learner_thread,
        parts.writer_thread,
    )
    while not stop.requested and parts.ratio.inserted < parts.config.train.steps:
        if parts.ratio.paused:
            await aio.first(stop.wait(), parts.ratio.running(), parts.saver.asked())
            await save_if_due()
            continue
        parts.team.tell(COLLECT)
        step = await parts.env_thread.run_or_leave(parts.env.recv)
        acted = await parts.policy_thread.run(collector.act, step)
        collector.store(step, acted)
        parts.env.send(acted.action, step.env_id)
        await parts.team.stored()
        while parts.ratio.due:
            await learn_once(parts.learner, parts.ratio, parts.learner_thread, parts.telemetry)
        await save_if_due()


def _finish(telemetry: Telemetry, reason: str, code: int, message: str) -> None:
    telemetry.enter("finished")
    telemetry.emit(RunFinished(reason, *telemetry.position, code, message))


def _started(parts: Parts) -> RunStarted:
    config, spec = parts.config, parts.env.spec
    ring = parts.replay
    return RunStarted(
        run=parts.run_dir.name,
        suite=config.env.suite,
        task=config.env.task,
        size=config.size,
        parameters=parts.learner.trainer.optim.size,
        device=str(parts.place.device),
        precision=parts.place.precision,
        num_envs=config.env.num_envs,
        ranks=parts.team.world.size,
        steps=config.train.steps,
        frames_per_step=spec.frames_per_step,
        train_ratio=config.train.train_ratio,
        seed=config.train.seed,
        sync=config.train.sync,
        compiled=parts.learner.compiles or bool(parts.place.library),
        replay_capacity=ring.spec.capacity * ring.spec.num_envs * parts.team.world.size,
        replay_bytes=ring.bytes * parts.team.world.size,
        pid=os.getpid(),
        version=__version__,
        updates=config.train.updates,
        native=parts.place.library,
    )
