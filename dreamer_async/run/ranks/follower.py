"""Every rank but rank 0: it collects, learns when it is told to, and writes nothing but its replay.

What it has to say goes to rank 0. It ends when rank 0 says so, or is gone; what makes it fail it
tells rank 0 first, which saves and ends them all.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamer_async.agent.normalize import Ranks
from dreamer_async.agent.trainer import Trainer
from dreamer_async.config import from_dict
from dreamer_async.fast.cuda.capture import alone
from dreamer_async.fast.cuda.updates import Peers
from dreamer_async.machine.device import wait_for
from dreamer_async.parallel.group import copy_from_first
from dreamer_async.parallel.link import Line, Message, RankLost, connect
from dreamer_async.parallel.meeting import Lead, Meeting
from dreamer_async.run import aio
from dreamer_async.run.aio import Left, Stop
from dreamer_async.run.failures import describe, exit_code
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.parts import Parts, build
from dreamer_async.run.ranks.arithmetic import Arithmetic
from dreamer_async.run.ranks.lead import TICK, digest
from dreamer_async.run.ranks.shared_ratio import MirrorRatio
from dreamer_async.run.ranks.team import COLLECT, SAVE, UPDATE, Team
from dreamer_async.run.telemetry import Telemetry
from dreamer_async.store.checkpoint_layout import LEARNER_GENERATOR
from dreamer_async.store.events import Episode, Event, Gauges, Warned, encode_line
from dreamer_async.store.run_dir import RunDir

FIRST_ENV = "rank"


class News:
    """In place of an event stream: keeps what rank 0 wants to know until it is sent."""

    generation = 0
    dropped = 0

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.first_env = 0
        """Number of this rank's first environment among those of the whole run."""
        self.gauges: dict[str, float | None] = {}
        self.heeded = False
        """Whether warnings are passed on: what is said while a rank is made, rank 0 says, too."""

    def emit(self, event: Event) -> None:
        """Keep an event that is about this rank alone."""
        match event:
            case Episode():
                number = self.first_env + event.env_id
                event = Episode(event.env_steps, number, event.score, event.length, event.log)
            case Gauges():
                self.gauges = dict(event.values)
                return
            case Warned() if self.heeded:
                pass
            case _:
                return
        self.lines.append(encode_line(event, 0.0, 0.0, 0).decode())

    def take(self) -> list[str]:
        """All that was kept since the last call."""
        lines, self.lines = self.lines, []
        return lines

    def close(self) -> None:
        """Nothing is open."""


class Ended(Exception):
    """Rank 0 has ended the run before this rank was made."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


class Follower(Team):
    """What a rank hears from rank 0, and tells it."""

    def __init__(self, meeting: Meeting, line: Line, news: News) -> None:
        self.world = meeting.world
        self._meeting, self._line, self._news = meeting, line, news
        self._ratio: MirrorRatio | None = None
        self._orders: asyncio.Queue[Message] = asyncio.Queue()
        self._first: asyncio.Queue[Message] = asyncio.Queue()
        self._collect = asyncio.Event()
        self._end: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._round = 0
        self._listening = asyncio.create_task(self._listen())

    # -- what parts of a run ask ---------------------------------------------------------------

    def replay_home(self, run_dir: RunDir) -> RunDir:
        return run_dir.rank(self.world.rank)

    def ratio(self, ratio: float, cost: int, *, waits: bool) -> TrainRatio:
        self._ratio = MirrorRatio(ratio, cost)
        return self._ratio

    async def room(self, steps: int) -> int:
        return (await self.first())["steps"]

    async def common(self, arithmetic: Arithmetic) -> str:
        self.send("arithmetic", number=0, values=arithmetic.encode())
        return (await self.first())["reason"]

    def exchange(self, device: torch.device) -> Ranks:
        group = self._meeting.join(device)
        self.peers = Peers(group.apart, partial(group.able, device=device))
        return group.ranks

    def same_weights(self, trainer: Trainer) -> None:
        copy_from_first(trainer.state_dict().values())

    async def wanted(self) -> None:
        """In lockstep, wait until rank 0 wants the next steps."""
        await self._collect.wait()
        self._collect.clear()

    async def stored(self) -> None:
        """In lockstep, report what was collected."""
        self._round += 1
        self.report()

    # -- hearing ---------------------------------------------------------------------------------

    async def first(self) -> Message:
        """The next message of those that come before a run begins.

        Raises Ended where rank 0 has ended the run instead, and RankLost if it is gone.
        """
        waiting = asyncio.ensure_future(self._first.get())
        await asyncio.wait([waiting, self._end], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            raise Ended(int((await self.ended())["code"]))
        return waiting.result()

    async def ended(self) -> Message:
        """Wait until rank 0 says that the run ends; raises RankLost if it is gone."""
        message = await asyncio.shield(self._end)
        if message["kind"] != "end":
            raise RankLost(message["reason"])
        return message

    async def order(self) -> Message:
        """What the learner's thread is to do next."""
        return await self._orders.get()

    def collect(self) -> None:
        """In lockstep, let the next steps be collected."""
        self._collect.set()

    async def _listen(self) -> None:
        while (message := await self._line.receive()) is not None:
            kind = message["kind"]
            if "sampled" in message:
                self._mirror(message)
            if kind in (UPDATE, SAVE, COLLECT):
                self._orders.put_nowait(message)
            elif kind == "end":
                self._end.set_result(message)
                return
            elif kind != "counts":
                self._first.put_nowait(message)
        self._end.set_result({"kind": "gone", "reason": "rank 0 ended without a message"})

    def _mirror(self, message: Message) -> None:
        assert self._ratio is not None
        self._ratio.mirror(message, message["heard"][str(self.world.rank)])
        asyncio.ensure_future(self._ratio.notify()).add_done_callback(lambda _: None)

    # -- telling ---------------------------------------------------------------------------------

    def send(self, kind: str, **values: Any) -> None:
        """Tell rank 0 something."""
        self._line.send({"kind": kind, **values})

    def report(self) -> None:
        """Tell rank 0 what was collected."""
        assert self._ratio is not None
        own, ready = self._ratio.own, self._ratio.ready
        self.send("news", inserted=own, ready=ready, round=self._round, events=self._news.take())

    async def report_every(self, seconds: float) -> None:
        """Report what changed until cancelled."""
        told, assert_ratio = (-1, False), self._ratio
        assert assert_ratio is not None
        while True:
            now = assert_ratio.own, assert_ratio.ready
            if now != told or self._news.lines:
                told = now
                self.report()
            if self._news.gauges:
                self.send("gauges", values=self._news.gauges)
                self._news.gauges = {}
            await asyncio.sleep(seconds)

    async def pass_on(self, stop: Stop) -> None:
        """Tell rank 0 that somebody wants a stop."""
        self.send("stop", reason=await stop.wait())

    async def close(self) -> None:
        """Send what is left."""
        self._listening.cancel()
        await self._line.close()


async def follow(meeting: Meeting, at: Lead) -> int:
    """Do this rank's part of a run until rank 0, which is there, ends it; the exit code."""
    news = News()
    team = Follower(meeting, await connect(at.host, at.port, meeting.world.rank, at.token), news)
    try:
        welcome = await team.first()
    except Ended as ended:
        return ended.code
    config, run_dir = from_dict(welcome["config"]), RunDir(Path(welcome["path"]))
    stop = Stop(config.train.grace_seconds, aio.RANKS_ECHO)
    stop.on_signals()
    telemetry = Telemetry(news)
    try:
        with ExitStack() as stack:
            making = build(
                config, run_dir, telemetry, stop, stack, resume=welcome["resume"], team=team
            )
            parts = await aio.first(making, _gone(team))
            assert parts is not None
            news.first_env = meeting.world.rank * parts.env.num_envs
            await begin(parts, team)
            news.heeded = True
            end = await _work(parts, team, stop)
            stop.succeeded()
            await parts.writer_thread.run(parts.env.close)
        return int(end["code"])
    except Ended as ended:
        return ended.code
    except Exception as error:
        stop.bound()
        team.send("failed", code=exit_code(error), message=describe(error))
        raise
    finally:
        stop.close()
        await team.close()


async def _gone(team: Follower) -> Parts | None:
    """Raise once rank 0 wants nothing of this rank."""
    raise Ended(int((await team.ended())["code"]))


async def begin(parts: Parts, team: Follower) -> None:
    """Take up what a checkpoint holds of this rank, and the weights of rank 0."""
    message = await team.first()
    known: Mapping[str, Any] | None = message["known"]
    learner, replay = parts.learner, parts.replay
    learner.updates, learner.skipped = message["updates"], message["skipped"]
    beyond = replay.steps
    if known is not None:
        generator = torch.from_numpy(
            np.frombuffer(base64.b64decode(known["generator"]), np.uint8).copy()
        )
        await parts.learner_thread.run(learner.restore_generator, generator)
        beyond = parts.state.load_replay(known)
    elif learner.updates:
        await parts.learner_thread.run(learner.restore_generator, torch.empty(0))
    replay.claim()
    ready = replay.windows >= parts.collector.prefill
    if ready:
        parts.ratio.start()
    team.send("begun", number=0, steps=max(0, beyond), ready=ready)
    await parts.learner_thread.run(team.same_weights, learner.trainer)
    await parts.learner_thread.run(learner.publish)


async def _work(parts: Parts, team: Follower, stop: Stop) -> Message:
    """Collect and learn until rank 0 ends the run; what fails here is told before it is raised."""
    try:
        return await work(parts, team, stop)
    except BaseExceptionGroup as group:
        error = aio.innermost(group)
        stop.bound()
        if isinstance(error, RankLost) or parts.learner.failure is not None:
            raise error from None
        team.send("failed", code=exit_code(error), message=describe(error))
        await aio.first(team.ended(), obey(parts, team))
        raise error from None


async def work(parts: Parts, team: Follower, stop: Stop) -> Message:
    """Collect and obey until rank 0 ends the run."""
    await parts.policy_thread.run(parts.player.warm_up, parts.env.batch_size)
    wait_for(parts.learner.trainer.device)
    parts.env.start()
    async with asyncio.TaskGroup() as group:
        collecting = (
            lockstep(parts, team)
            if parts.config.train.sync
            else parts.collector.collect(parts.env_thread, parts.policy_thread)
        )
        tasks = [
            group.create_task(team.report_every(TICK)),
            group.create_task(_gauge_every(parts, 1.0)),
            group.create_task(team.pass_on(stop)),
            group.create_task(collecting),
            group.create_task(compile_and_obey(parts, team)),
        ]
        end = await team.ended()
        team.report()
        for task in tasks:
            task.cancel()
    return end


async def _gauge_every(parts: Parts, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        parts.telemetry.emit(Gauges(*parts.telemetry.position, parts.gauges.read()))


async def compile_and_obey(parts: Parts, team: Follower) -> None:
    """Warm the learner up, as rank 0 does at the same time, and do what it says."""
    if parts.learner.compiles:
        warm_up = partial(alone, parts.learner.warm_up)
        if problem := await parts.learner_thread.run_or_leave(warm_up):
            parts.telemetry.warn(problem)
    await obey(parts, team)


async def obey(parts: Parts, team: Follower) -> Any:
    """Do what rank 0 says, in its order, until cancelled."""
    while True:
        with parts.learner.stages.measure("learner_wait"):
            order = await team.order()
        if order["kind"] == UPDATE:
            await parts.learner_thread.run(parts.learner.step)
        elif order["kind"] == COLLECT:
            team.collect()
        else:
            await answer(parts, team, order["number"])


async def answer(parts: Parts, team: Follower, number: int) -> None:
    """Say what rank 0 has to compare, and to keep, of this rank."""
    tensors, _ = await parts.learner_thread.run(parts.state.learned)
    found = await parts.writer_thread.run(digest, tensors)
    generator = base64.b64encode(tensors[LEARNER_GENERATOR].numpy().tobytes()).decode()
    ratio = parts.ratio
    assert isinstance(ratio, MirrorRatio)
    kept = parts.state.kept_of_replay() | {"generator": generator}
    team.send("saved", number=number, digest=found, inserted=ratio.own, kept=kept)


async def lockstep(parts: Parts, team: Follower) -> None:
    """Collect one batch whenever rank 0 says so, until cancelled."""
    collector = parts.collector
    with suppress(Left):
        while True:
            await team.wanted()
            step = await parts.env_thread.run_or_leave(parts.env.recv)
            acted = await parts.policy_thread.run(collector.act, step)
            collector.store(step, acted)
            parts.env.send(acted.action, step.env_id)
            await team.stored()
