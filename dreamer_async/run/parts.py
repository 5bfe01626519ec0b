"""What one run is made of, and making it, in an order that fails early and cheaply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dreamer_async import envs
from dreamer_async.agent.policy import Policy
from dreamer_async.config import Config, ConfigError, EnvConfig
from dreamer_async.envs.findings import Inspection
from dreamer_async.envs.session.server import Server
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.suites import session
from dreamer_async.envs.vector import Absent, VectorEnv
from dreamer_async.fast import copies
from dreamer_async.fast.place import Place, take_place
from dreamer_async.machine import process
from dreamer_async.machine.device import choose_device, cpu_threads, use_cpu_threads, use_own_stream
from dreamer_async.parallel.shares import on_device, share, with_room
from dreamer_async.replay.recorded import fill
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.setup import open_replay, prefill_windows, room_of
from dreamer_async.run.aio import OwnedThread, Stop
from dreamer_async.run.collector import Collector, Player
from dreamer_async.run.evaluate import Evaluator
from dreamer_async.run.films.film import Filmer
from dreamer_async.run.gauges import RunGauges
from dreamer_async.run.learner import Learner
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.monitor import Monitor
from dreamer_async.run.ranks.arithmetic import Arithmetic
from dreamer_async.run.ranks.team import Team
from dreamer_async.run.run_state import RunState
from dreamer_async.run.saver import Saver
from dreamer_async.run.slow_step import slow_step
from dreamer_async.run.telemetry import Telemetry
from dreamer_async.store.run_dir import RunDir


@dataclass
class Parts:
    """Everything that one run is made of."""

    config: Config
    run_dir: RunDir
    place: Place
    telemetry: Telemetry
    env: VectorEnv
    replay: Replay
    ratio: TrainRatio
    learner: Learner
    player: Player
    collector: Collector
    state: RunState
    saver: Saver
    filmer: Filmer
    evaluator: Evaluator
    monitor: Monitor
    learner_thread: OwnedThread
    policy_thread: OwnedThread
    env_thread: OwnedThread
    writer_thread: OwnedThread
    evaluation_thread: OwnedThread
    team: Team
    gauges: RunGauges


async def build(
    config: Config,
    run_dir: RunDir,
    telemetry: Telemetry,
    stop: Stop,
    stack: ExitStack,
    *,
    resume: bool,
    team: Team,
) -> Parts:
    """Make every part, in an order that fails early and cheaply; `stack` releases them.

    Nothing that the run has on disk is changed here. `config` is that of the whole run; with other
    ranks in the `team`, parts are made for a share of it.
    """
    whole, kind = config, choose_device(config.train.device).type
    config = on_device(share(config, team.world), kind, team.world)
    train, env = config.train, config.env
    device = choose_device(train.device)
    threads = cpu_threads(config)
    builder = stack.enter_context(OwnedThread("builder"))
    with slow_step("looking at the environment"):
        spec = await builder.run_or_leave(envs.spec_of, env)
    home = stack.enter_context(run_dir.held())
    with slow_step("checking the replay" if resume else "reserving room for the replay"):
        config = await _with_room(config, whole, spec, run_dir, team, resume=resume)
        ring = team.replay_home(run_dir)
        replay = stack.enter_context(open_replay(config, spec, ring, resume=resume))
    if train.updates and not replay.steps:
        with slow_step("filling the replay with recorded steps"):
            telemetry.warn(await builder.run_or_leave(fill, replay, config, spec), "info")
    called = env.suite == session.NAME and not train.updates
    modest = process.give_way if called else _nothing
    if called:
        process.answer_quickly()
    learner_thread = _thread(stack, "learner", threads, modest, partial(use_own_stream, device))
    policy_thread = _thread(stack, "policy", 1, partial(use_own_stream, device, urgent=True))
    place = await _place(config, learner_thread, telemetry, team)
    with slow_step("making the networks"):
        ranks = await learner_thread.run_or_leave(team.exchange, place.device)
        learner = await learner_thread.run(Learner, spec, config, replay, place, team, ranks)
    policy = await policy_thread.run(
        Policy, spec, config, place.device, place.precision, place.backend
    )
    seed = seed_from(train.seed, replay.steps)
    player = await policy_thread.run(Player, policy, env.num_envs, seed + 2)
    with slow_step(f"starting {env.num_envs} environments"):
        if train.updates:
            pool = Absent(spec, env.num_envs)
        elif called:
            pool = serve(config, spec, run_dir, stop)
        else:
            pool = await builder.run_or_leave(make_env, config, seed)
        stack.enter_context(pool)
    cost = whole.train.batch_size * train.batch_length
    ratio = team.ratio(train.train_ratio, cost, waits=not called)
    collector = Collector(
        pool,
        player,
        learner.weights,
        replay,
        ratio,
        telemetry,
        prefill=prefill_windows(config),
        inspection=None
        if resume or train.updates or _is_known(env)
        else Inspection(spec, env.num_envs),
        awaited=called,
    )
    state = RunState(
        *(learner, replay, ratio, pool, player, collector),
        lockstep=train.sync and team.world.size == 1,
        recorded=bool(config.replay.source),
        only_learns=bool(train.updates),
    )
    telemetry.follow(lambda: state.position)
    team.take_notes(collector)
    saver = Saver(home, whole, learner, ratio, state, telemetry, run_dir.path, spec, team)
    filmer = Filmer(home.film_path, learner, telemetry)
    evaluator = Evaluator(spec, config, place, learner.weights, telemetry)
    if called:
        process.keep_for_good()
    gauges = RunGauges(home.path, pool, player, replay, ratio, learner, collector.stages)
    return Parts(
        config=whole,
        run_dir=run_dir,
        place=place,
        telemetry=telemetry,
        env=pool,
        replay=replay,
        ratio=ratio,
        learner=learner,
        player=player,
        collector=collector,
        state=state,
        saver=saver,
        filmer=filmer,
        evaluator=evaluator,
        monitor=Monitor(home, telemetry, gauges, ratio, saver, filmer, evaluator, stop, team),
        learner_thread=learner_thread,
        policy_thread=policy_thread,
        env_thread=_thread(stack, "env", 1),
        writer_thread=_thread(stack, "checkpoint", 1, modest),
        evaluation_thread=_thread(stack, "evaluation", 1, partial(use_own_stream, device)),
        team=team,
        gauges=gauges,
    )


async def _with_room(
    config: Config, whole: Config, spec: EnvSpec, run_dir: RunDir, team: Team, *, resume: bool
) -> Config:
    """Give the replay of this rank its share of the room that the leader finds on the disk."""
    if team.world.size == 1:
        return config
    found = (
        room_of(whole, spec, team.replay_home(run_dir), resume=resume) if team.world.leads else 0
    )
    return with_room(config, await team.room(found))


async def _place(
    config: Config, learner_thread: OwnedThread, telemetry: Telemetry, team: Team
) -> Place:
    """Choose who computes, the same on all ranks, and say what makes it slow or inexact."""
    train = config.train
    on_cpu = choose_device(train.device).type == "cpu"
    with slow_step("building native functions" if on_cpu else "preparing the GPU"):
        place = await learner_thread.run_or_leave(take_place, train)
    if lacking := await team.common(Arithmetic.of(place, train)):
        plain = replace(train, native=False)
        place = await learner_thread.run_or_leave(take_place, plain)
        place = place._replace(problem=lacking)
    if place.problem:
        telemetry.warn(f"updates are slower without native functions: {place.problem}")
    gaps = place.backend.gaps(config.model)
    for known in (place.emulated, place.replaced, gaps, copies.edited(place.backend)):
        if known:
            telemetry.warn(known)
    return place


def _is_known(env: EnvConfig) -> bool:
    """Tell whether a task is one of a benchmark, just as the benchmark has it."""
    return bool(envs.tasks(env.suite)) and envs.View.of(env) == envs.View()


def seed_from(seed: int, steps: int) -> int:
    """The seed of acting and of environments in a run that has made so many steps already.

    What is not restored begins anew, and would else see and draw again what it did before.
    """
    return int(np.random.SeedSequence([seed, steps]).generate_state(1)[0] >> 1) if steps else seed


def make_env(config: Config, seed: int | None = None) -> VectorEnv:
    """Open the environments: all in one batch in lockstep, else half of them per batch."""
    env = config.env
    batch = env.num_envs if config.train.sync else env.batch_size or max(1, env.num_envs // 2)
    return envs.make(
        env.suite,
        env.task,
        num_envs=env.num_envs,
        batch_size=batch,
        seed=config.train.seed if seed is None else seed,
        threads=env.threads,
        resize=env.resize,
        view=envs.View.of(env),
    )


def serve(config: Config, spec: EnvSpec, run_dir: RunDir, stop: Stop) -> VectorEnv:
    """Listen for the program that steps a session; the run ends with the one that began it."""
    if config.train.sync:
        raise ConfigError("a session cannot run in lockstep (train.sync): its caller would wait")
    ask = partial(stop.request, "the program that stepped the session has gone")
    gone = partial(asyncio.get_running_loop().call_soon_threadsafe, ask)
    return Server(spec, config.env.num_envs, run_dir.control, gone)


def _nothing() -> None:
    """Leave the calling thread as it is."""


def _thread(stack: ExitStack, name: str, threads: int, *also: Callable[[], None]) -> OwnedThread:
    def setup() -> None:
        use_cpu_threads(threads)
        for each in also:
            each()

    return stack.enter_context(OwnedThread(name, setup))
