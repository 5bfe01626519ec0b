"""Rank 0 of several: it decides, and keeps what the others tell it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dreamer_async.agent.normalize import Ranks
from dreamer_async.agent.trainer import Trainer
from dreamer_async.config import Config, to_dict
from dreamer_async.fast.cuda.updates import Peers
from dreamer_async.parallel.group import copy_from_first
from dreamer_async.parallel.link import Hub, Message, RankFailed, RankLost, RanksDiffer
from dreamer_async.parallel.meeting import Lead as Address
from dreamer_async.parallel.meeting import Meeting
from dreamer_async.run.aio import OwnedThread, Stop
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.ranks.arithmetic import Arithmetic, common
from dreamer_async.run.ranks.shared_ratio import LeadRatio
from dreamer_async.run.ranks.team import SAVE, Notes, Team, of_all_ranks
from dreamer_async.run.telemetry import Telemetry
from dreamer_async.store.checkpoint_layout import TRAINER
from dreamer_async.store.events import Episode, Warned, decode_line
from dreamer_async.store.run_dir import RunDir

TICK = 0.01
"""Seconds between two words about counters."""
LAST_WORDS = 5.0
"""Seconds for which a rank that fails in a sum is waited for; its connection ends with it."""


class Counted(NamedTuple):
    """Where a run stood when a copy of its state was ordered."""

    own: int
    """Steps without those that other ranks have told of in their present processes."""
    all: int
    """Steps as far as they were known."""
    debt: float


class Lead(Team):
    """Rank 0's view of the others."""

    def __init__(self, meeting: Meeting, telemetry: Telemetry, stop: Stop) -> None:
        self.world = meeting.world
        self._meeting, self._telemetry, self._stop = meeting, telemetry, stop
        self._hub = Hub(self.world.size - 1, self._heard, self._lost)
        self._ratio: LeadRatio | None = None
        self._notes: Notes | None = None
        self._answers: dict[tuple[str, int], dict[int, Message]] = {}
        self._changed = asyncio.Event()
        self._trouble: Exception | None = None
        self._orders = 0
        self._rounds = dict.fromkeys(range(1, self.world.size), 0)
        self._round = 0
        self._gauges: dict[int, dict[str, float]] = {}
        self._told: dict[str, Any] = {}
        self._over = self._gone = False
        self._at_save = Counted(0, 0, 0.0)

    # -- beginning ---------------------------------------------------------------------------

    async def meet(self, config: Config, run_dir: RunDir, *, resume: bool) -> None:
        """Say where this rank listens, wait for all others, and tell them what to run."""
        port = await self._hub.listen(self._meeting.host)
        self._meeting.announce(Address(self._meeting.host, port, self._hub.token))
        await self._hub.everybody()
        self._send("welcome", config=to_dict(config), path=str(run_dir.path), resume=resume)

    def replay_home(self, run_dir: RunDir) -> RunDir:
        return run_dir.rank(0)

    def ratio(self, ratio: float, cost: int, *, waits: bool) -> TrainRatio:
        self._ratio = LeadRatio(ratio, cost, self.world.size - 1)
        return self._ratio

    async def room(self, steps: int) -> int:
        self._send("room", steps=steps // self.world.size)
        return steps // self.world.size

    async def common(self, arithmetic: Arithmetic) -> str:
        told = await self._all("arithmetic", 0)
        others = {rank: Arithmetic(**told[rank]["values"]) for rank in sorted(told)}
        reason = common({0: arithmetic} | others)
        self._send("common", reason=reason)
        return reason

    def exchange(self, device: torch.device) -> Ranks:
        group = self._meeting.join(device)
        self.peers = Peers(group.apart, partial(group.able, device=device))
        return group.ranks

    def same_weights(self, trainer: Trainer) -> None:
        copy_from_first(trainer.state_dict().values())

    async def begin(self, others: list[Mapping[str, Any]], updates: int, skipped: int) -> int:
        for rank in self._rounds:
            known = others[rank - 1] if len(others) == len(self._rounds) else None
            message = {"kind": "begin", "known": known, "updates": updates, "skipped": skipped}
            self._hub.send(message, to=rank)
        answers = await self._all("begun", 0)
        steps = sum(answer["steps"] for answer in answers.values())
        assert self._ratio is not None
        for rank, answer in answers.items():
            self._ratio.hear(rank, 0, ready=answer["ready"])
        self._ratio.open(steps)
        return steps

    # -- working -----------------------------------------------------------------------------

    def tell(self, order: str) -> int:
        self._orders += 1
        if order == SAVE:
            self._at_save = self._counted()
        self._send(order, number=self._orders, **self._counts())
        return self._orders

    async def stored(self) -> None:
        self._round += 1
        await self._until(lambda: min(self._rounds.values()) >= self._round)

    async def others(
        self, number: int, own: Mapping[str, Tensor], thread: OwnedThread
    ) -> dict[str, Any]:
        """Raises RanksDiffer if not all hold the same state."""
        then, mine = self._at_save, await thread.run(digest, own)
        answers = await self._all("saved", number)
        different = [rank for rank, answer in answers.items() if answer["digest"] != mine]
        if different:
            raise RanksDiffer(
                f"rank {', '.join(map(str, sorted(different)))} has other weights than rank 0 "
                "after the same updates; nothing is saved, the last checkpoint is intact"
            )
        steps = then.own + sum(answer["inserted"] for answer in answers.values())
        assert self._ratio is not None
        late = (steps - then.all) * self._ratio.ratio if self._ratio.started else 0.0
        kept = [answers[rank]["kept"] for rank in sorted(answers)]
        return {"env_steps": steps, "ratio_debt": then.debt + late, "ranks": kept}

    async def failed(self) -> None:
        while self._trouble is None:
            self._changed.clear()
            await self._changed.wait()
        raise self._trouble

    async def cause(self, error: BaseException) -> BaseException:
        """A sum fails, and a rank's last words arrive, in either order."""
        if isinstance(error, RankLost):
            try:
                await asyncio.wait_for(self.failed(), LAST_WORDS)
            except RankFailed as told:
                return told
            except (TimeoutError, RankLost, RanksDiffer):
                pass
        return error

    async def watch(self) -> None:
        """Tell the others the counters as they change, until one of them fails."""
        while self._trouble is None:
            counts = self._counts()
            if counts != self._told:
                self._told = counts
                self._send("counts", **counts)
            await asyncio.sleep(TICK)
        raise self._trouble

    def gauges(self, own: Mapping[str, float]) -> Mapping[str, float]:
        return of_all_ranks({0: own, **self._gauges})

    def take_notes(self, notes: Notes) -> None:
        self._notes = notes

    async def end(self, code: int, reason: str) -> None:
        self._over = True
        self._send("end", code=code, reason=reason)
        await self._hub.close()

    @property
    def broken(self) -> bool:
        return self._gone or isinstance(self._trouble, RanksDiffer)

    # -- listening ---------------------------------------------------------------------------

    def _heard(self, rank: int, message: Message) -> None:
        match message["kind"]:
            case "news":
                self._news(rank, message)
            case "gauges":
                self._gauges[rank] = message["values"]
            case "stop":
                self._stop.request(f"rank {rank}: {message['reason']}")
            case "failed":
                error = RankFailed(rank, message["code"], message["message"])
                self._trouble = self._trouble or error
            case kind:
                self._answers.setdefault((kind, message["number"]), {})[rank] = message
        self._changed.set()

    def _news(self, rank: int, message: Message) -> None:
        """Steps of a rank, which its ring holds by now, and what it has to say."""
        if self._ratio is not None:
            started = self._ratio.started
            self._ratio.hear(rank, message["inserted"], ready=message["ready"])
            if self._ratio.started and not started:
                self._telemetry.enter(self._ratio.phase)
            _keep(asyncio.ensure_future(self._ratio.notify()))
        self._rounds[rank] = max(self._rounds[rank], message["round"])
        for line in message["events"]:
            event = decode_line(line.encode()).event
            if isinstance(event, Episode) and self._notes is not None:
                self._notes.finished(event)
            elif isinstance(event, Warned):
                self._telemetry.warn(f"rank {rank}: {event.message}", event.level)

    def _lost(self, rank: int) -> None:
        if not self._over:
            self._gone = True
            self._trouble = self._trouble or RankLost(f"rank {rank} ended without a message")
            self._changed.set()

    # -- helpers -----------------------------------------------------------------------------

    def _send(self, kind: str, **values: Any) -> None:
        self._hub.send({"kind": kind, **values})

    def _counted(self) -> Counted:
        assert self._ratio is not None
        all_steps = self._ratio.inserted
        own = all_steps - sum(self._ratio.heard.values())
        return Counted(own, all_steps, self._ratio.debt)

    def _counts(self) -> dict[str, Any]:
        assert self._ratio is not None
        return self._ratio.counts() | {"heard": {str(r): n for r, n in self._ratio.heard.items()}}

    async def _all(self, kind: str, number: int) -> dict[int, Message]:
        answers = self._answers.setdefault((kind, number), {})
        await self._until(lambda: len(answers) == len(self._rounds))
        del self._answers[kind, number]
        return answers

    async def _until(self, ready: Any) -> None:
        """Wait for what the others say; raises RankLost if one of them is gone."""
        while not ready():
            if self._gone and self._trouble is not None:
                raise self._trouble
            self._changed.clear()
            await self._changed.wait()


def digest(tensors: Mapping[str, Tensor]) -> str:
    """What tells states of a trainer apart, to the last bit."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        if name.startswith(TRAINER):
            found.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _keep(task: asyncio.Task[None]) -> None:
    """Keep a task alive until it is done."""
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


_tasks: set[asyncio.Task[None]] = set()
