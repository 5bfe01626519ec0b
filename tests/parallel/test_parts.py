"""Shares of a run, what torchrun says, the line between ranks and their one limiter; no torch."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_run import make_run

from dreamer_async import envs
from dreamer_async.config import Config, ConfigError, resolve
from dreamer_async.machine import signals
from dreamer_async.parallel.link import Hub, Message, RankFailed, RankLost, connect
from dreamer_async.parallel.shares import check, on_device, share
from dreamer_async.parallel.world import World, launch_id
from dreamer_async.replay.setup import open_replay
from dreamer_async.run import aio
from dreamer_async.run.aio import Stop
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.ranks.arithmetic import Arithmetic, common
from dreamer_async.run.ranks.lead import Lead
from dreamer_async.run.ranks.shared_ratio import LeadRatio, MirrorRatio
from dreamer_async.run.ranks.team import Team, of_all_ranks
from dreamer_async.run.resume import _elsewhere
from dreamer_async.store.summary import load_config
from dreamer_async.tui.draw.rows import cells
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show import ranks as shown_ranks
from dreamer_async.tui.widgets.lines import Caption


def config(*overrides: str) -> Config:
    given = "env.num_envs=8", "train.batch_size=16", "replay.capacity=8000"
    return resolve("toy", "catch", size="tiny", overrides=(*given, *overrides))


# -- shares ----------------------------------------------------------------------------------


def test_the_shares_of_all_ranks_are_the_whole_run() -> None:
    whole = config("env.batch_size=4")
    parts = [share(whole, World(rank, 4, rank, 4)) for rank in range(4)]
    assert sum(part.env.num_envs for part in parts) == 8
    assert sum(part.env.batch_size for part in parts) == 4
    assert sum(part.train.batch_size for part in parts) == 16
    assert sum(part.replay.capacity for part in parts) == 8000
    assert len({part.train.seed for part in parts}) == 4
    assert parts[0].train.seed == whole.train.seed
    assert share(whole, World()) is whole
    cores = len(os.sched_getaffinity(0))
    assert 1 <= parts[0].train.threads <= max(1, cores // 4)
    assert share(config("train.threads=3"), World(1, 4, 1, 4)).train.threads == 3


@pytest.mark.parametrize(
    ("override", "count", "words"),
    [
        ("env.num_envs=6", 4, "env.num_envs=6 .* 4 or 8 would work"),
        ("env.num_envs=1", 2, "env.num_envs=1 .* 2 would work"),
        ("env.batch_size=3", 2, "env.batch_size=3"),
        ("train.batch_size=9", 2, "train.batch_size=9 .* 8 or 10"),
        ("replay.capacity=8001", 2, "replay.capacity=8001"),
        ("train.device=cuda:1", 2, "CUDA_VISIBLE_DEVICES"),
        ("train.updates=5", 2, "one device"),
    ],
)
def test_what_cannot_be_shared_is_refused_with_what_would_work(
    override: str, count: int, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        check(config(override), count)
    check(config(override), 1)


def test_every_rank_of_a_machine_takes_another_gpu() -> None:
    places = [World(4 + n, 8, n, 4) for n in range(4)]
    parts = [on_device(config(), "cuda", world) for world in places]
    assert [part.train.device for part in parts] == [f"cuda:{n}" for n in range(4)]
    assert on_device(config(), "cpu", places[1]).train.device == "auto"
    assert on_device(config(), "cuda", World()).train.device == "auto"


# -- what torchrun says ------------------------------------------------------------------------

TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
    "TORCHELASTIC_RESTART_COUNT": "2", "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip


def test_a_rank_knows_its_place() -> None:
    assert World.here(TORCHRUN) == World(5, 8, 1, 4, 2)
    assert not World.here(TORCHRUN).leads
    assert World.here({"RANK": "5", "WORLD_SIZE": "8"}) == World(), "of Slurm or MPI"


def test_a_launch_is_known_by_its_name_or_by_its_process() -> None:
    assert launch_id({**TORCHRUN, "TORCHELASTIC_RUN_ID": "breakout"}) == "breakout"
    mine = launch_id(TORCHRUN)
    assert str(os.getppid()) in mine and mine == launch_id(TORCHRUN)


# -- the line between ranks ----------------------------------------------------------------------


class Ears:
    """What rank 0 has heard and lost."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, Message]] = []
        self.lost: list[int] = []
        self.hub = Hub(
            2, lambda rank, message: self.heard.append((rank, message)), self.lost.append
        )


async def until(good: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not good():
            await asyncio.sleep(0.001)


def test_ranks_talk_and_rank_0_notices_who_is_gone() -> None:
    async def talk() -> None:
        ears = Ears()
        port = await ears.hub.listen("127.0.0.1")
        first, second = [await connect("127.0.0.1", port, n, ears.hub.token) for n in (1, 2)]
        await asyncio.wait_for(ears.hub.everybody(), 20)
        for number in range(100):
            first.send({"kind": "n", "number": number})
        await until(lambda: len(ears.heard) == 100)
        assert [message["number"] for _, message in ears.heard] == list(range(100))
        ears.hub.send({"kind": "all"})
        ears.hub.send({"kind": "one"}, to=2)
        assert [await second.receive() for _ in range(2)] == [{"kind": "all"}, {"kind": "one"}]
        assert await first.receive() == {"kind": "all"}
        await first.close()
        await until(lambda: ears.lost == [1])
        second.send({"kind": "still here"})
        await until(lambda: ears.heard[-1] == (2, {"kind": "still here"}))
        await ears.hub.close()
        assert await second.receive() is None

    asyncio.run(talk())


@pytest.mark.parametrize("hello", [(1, "wrong"), ("1", None), (None, None)])
def test_strangers_are_not_heard(hello: tuple[Any, str | None]) -> None:
    async def knock() -> None:
        ears = Ears()
        port = await ears.hub.listen("127.0.0.1")
        line = await connect("127.0.0.1", port, hello[0], hello[1] or ears.hub.token)
        line.send({"kind": "n"})
        assert await line.receive() is None
        assert not ears.heard and not ears.lost
        await ears.hub.close()

    asyncio.run(knock())


def test_nobody_there_is_said() -> None:
    with pytest.raises(RankLost, match="rank 0 does not answer"):
        asyncio.run(connect("127.0.0.1", 1, 1, ""))


def test_what_a_rank_has_told_counts_before_the_sum_that_it_left() -> None:
    """A failed sum is seen first or last; who has ended without a word is not waited for."""

    async def end(told: bool) -> BaseException:
        meeting: Any = SimpleNamespace(world=World(0, 2))
        nobody: Any = None
        lead = Lead(meeting, telemetry=nobody, stop=nobody)
        loop = asyncio.get_running_loop()
        message = {"kind": "failed", "code": 71, "message": "out of memory"}
        if told:
            loop.call_later(0.05, lead._heard, 1, message)
        loop.call_later(0.1, lead._lost, 1)
        other = ValueError()
        assert await lead.cause(other) is other
        return await lead.cause(RankLost("another rank does not answer any more"))

    found = asyncio.run(end(told=True))
    assert isinstance(found, RankFailed) and found.code == 71
    assert isinstance(asyncio.run(end(told=False)), RankLost)


@pytest.mark.parametrize(("echo", "ends"), [(aio.RANKS_ECHO, False), (None, True)])
def test_a_signal_that_torchrun_passes_on_later_is_not_a_second_one(
    monkeypatch: pytest.MonkeyPatch, echo: float | None, ends: bool
) -> None:
    """All processes of a job get a signal, ranks, too; one by itself takes two for two."""
    ended: list[int] = []
    now = iter([0.0, 3.0])
    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: next(now)))
    monkeypatch.setattr(aio, "os", SimpleNamespace(_exit=ended.append))

    async def signalled_twice() -> None:
        stop = Stop(60.0, echo)
        stop._signalled(signal.SIGTERM)
        stop._signalled(signal.SIGTERM)
        stop.close()

    asyncio.run(signalled_twice())
    assert ended == [128 + signal.SIGTERM] * ends


# -- what they compute with ----------------------------------------------------------------------

PREBUILT, BUILT = "kernels-x86-64-v4-0f", "kernels-1e"


def arithmetic(library: str = BUILT, **changed: str) -> Arithmetic:
    usual = Arithmetic("2.13.0", "cpu", "float32", "float32", library, "" if library else "no g++")
    return replace(usual, **changed)


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ((BUILT, BUILT), ""),
        ((BUILT, ""), "rank 2 has none: no g++"),
        ((PREBUILT, ""), "rank 2 has none: no g++"),
        ((BUILT, PREBUILT), "rank 2 has others than rank 0 (prebuilt for x86-64-v4, not built "),
        ((BUILT, "kernels-2a"), "rank 2 has others than rank 0 (their processors or compilers"),
    ],
)
def test_native_functions_that_not_all_ranks_have_none_of_them_uses(
    others: tuple[str, ...], reason: str
) -> None:
    ranks = dict(enumerate(map(arithmetic, (BUILT, *others))))
    assert common(ranks).startswith(reason) and bool(common(ranks)) == bool(reason)
    nobody = dict.fromkeys(range(3), arithmetic(""))
    assert common(nobody) == "", "each says it of itself"


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (arithmetic(torch="2.12.1"), "rank 1 has PyTorch 2.12.1, rank 0 has PyTorch 2.13.0; inst"),
        (arithmetic(device="cuda"), "rank 1 has a cuda device, rank 0 has a cpu device; --device"),
        (arithmetic(precision="mixed"), "rank 1 has precision mixed, .* -s train.precision=float"),
        (arithmetic("", plain="mixed"), "rank 1 has precision mixed, .* -s train.precision=float"),
    ],
)
def test_ranks_that_cannot_compute_alike_are_told_so(other: Arithmetic, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        common({0: arithmetic(), 1: other})
    assert common({0: other, 1: other}) == "", "together they can"


def test_a_precision_that_is_not_used_may_differ() -> None:
    assert common({0: arithmetic(), 1: arithmetic(plain="mixed")}) == ""


# -- one limiter ---------------------------------------------------------------------------------


def test_updates_are_those_of_one_process_that_saw_all_steps() -> None:
    alone, lead = TrainRatio(8.0, 32), LeadRatio(8.0, 32, 1)
    lead.open(0)
    for ratio in (alone, lead):
        ratio.insert(4)
    alone.insert(4)
    lead.hear(1, 4, ready=False)
    alone.start()
    lead.start()
    assert not lead.started, "the other rank has not its share yet"
    lead.hear(1, 4, ready=True)
    assert lead.started
    counts = []
    for ratio in (alone, lead):
        updates = 0
        for step in range(1, 101):
            if ratio is lead:
                lead.insert(1)
                lead.hear(1, 4 + step, ready=True)
            else:
                alone.insert(2)
            while ratio.due:
                ratio.sample()
                updates += 1
        counts.append((updates, ratio.debt, ratio.inserted))
    assert counts[0] == counts[1] and counts[0][0] == 1 + 200 * 8 // 32


def test_a_resumed_debt_is_forgiven_what_the_rings_are_ahead() -> None:
    lead = LeadRatio(8.0, 32, 1)
    lead.inserted = 100
    lead.start(5.0)
    lead.hear(1, 0, ready=True)
    assert not lead.started, "ranks are not back yet"
    lead.open(50)
    assert lead.started and lead.debt == 5.0 and lead.inserted == 150


def test_a_mirror_shows_rank_0_and_its_own_steps_since() -> None:
    lead, mirror = LeadRatio(8.0, 32, 1), MirrorRatio(8.0, 32)
    lead.open(0)
    lead.start()
    mirror.insert(3)
    lead.hear(1, mirror.own, ready=True)
    lead.insert(7)
    mirror.insert(2)
    mirror.mirror(lead.counts(), lead.heard[1])
    assert mirror.inserted == 12 and mirror.started
    assert mirror.debt == lead.debt + 2 * 8.0


def test_replays_of_ranks_in_another_directory_are_found_again(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    run = make_run(tmp_path, f"replay.directory={elsewhere}")
    config = load_config(run)
    for number in range(2):
        with open_replay(config, envs.spec_of(config.env), run.rank(number), resume=False) as ring:
            ring.claim()
    assert len(list(elsewhere.iterdir())) == 4 and len(run.ranks()) == 2
    (told,) = _elsewhere(run, config)
    assert all(str(path) in told for path in elsewhere.glob("*.ring"))
    assert run.free_replay(str(elsewhere)) > 0 and not list(elsewhere.iterdir())


def test_gauges_of_all_ranks() -> None:
    one = {"replay/steps": 10.0, "replay/fill": 0.5, "policy/lag": 1.0, "stage/learner_wait": 0.25}
    two = {"replay/steps": 30.0, "replay/fill": 0.1, "policy/lag": 2.0, "rate/own_steps": 7.0}
    one |= {"replay/sample_age": 5.0, "replay/sampled": 64.0}  # half of its own 10 steps
    two |= {"replay/sample_age": 15.0, "replay/sampled": 64.0}
    merged = of_all_ranks({0: one, 1: two})
    assert merged["replay/sample_age"] == 20.0, "half of all 40"
    assert merged["replay/sampled"] == 128.0
    assert merged["replay/steps"] == 40.0 and merged["replay/fill"] == pytest.approx(0.3)
    assert merged["rank/0/busy"] == 0.75 and merged["rank/1/env_steps"] == 7.0
    assert "rank/1/busy" not in merged, "it has not said how long it waits"
    assert Team().gauges(one) == {}, "one process shows what it has"


# -- the dashboard's row -------------------------------------------------------------------------


def test_ranks_have_a_row_and_one_process_has_none() -> None:
    view = RunView()
    assert shown_ranks.rows(view) == ((),)
    waits = {"stage/learner_wait": 0.6}
    view.gauges |= of_all_ranks({n: {"rate/own_steps": 10.0 * n} | waits for n in range(2)})
    full, brief = ("".join(part.text for part in row) for row in shown_ranks.rows(view))
    assert full.startswith("2 ranks  steps/s 0 10") and "busy % 40 40" in full
    assert brief == "2 ranks  steps/s 0–10.0  busy % 40  lag 0"
    view.gauges |= of_all_ranks({n: {"rate/own_steps": 10.0 * n} for n in range(64)})
    (only,) = shown_ranks.rows(view)
    assert cells(only) < 60


def test_the_row_of_ranks_is_whole_beside_its_title_at_80_columns() -> None:
    view = RunView()
    gauges = {"rate/own_steps": 812.5, "stage/learner_wait": 0.03, "policy/lag": 1.25}
    view.gauges |= of_all_ranks(
        {n: {k: v * (1 + n / 9) for k, v in gauges.items()} for n in range(8)}
    )
    caption = Caption("the last ten minutes")
    caption.show(*shown_ranks.rows(view))
    for width, ranks in ((78, "lag 1.25–2.22"), (198, "lag 1.25 1.39")):
        (row,) = caption.paint(width, 1)
        text = "".join(part.text for part in row)
        assert text.startswith("the last ten minutes ") and ranks in text and "…" not in text
