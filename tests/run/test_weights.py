"""Weights between the learner and the policy: nobody reads half of them or waits for an update.

The device is a model: each thread has a stream of operations that are done in order, whenever the
test lets them, and waits for marks of other streams.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamer_async.run.weights import SLOTS, PolicyWeights, _Slot

NAMES = ("one", "two")


@dataclass
class Operation:
    """Work on the device, which waits for others."""

    work: Callable[[], object] = lambda: None
    after: FakeEvent | None = None
    done: bool = False


class FakeEvent:
    """Stands for a CUDA event that was recorded on the stream in use."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.operation = device.enqueue(Operation())

    def query(self) -> bool:
        return self.operation.done

    def wait(self) -> None:
        self._device.enqueue(Operation(after=self))


@dataclass
class Device:
    """Streams by name; one of them is that of the thread that is on."""

    streams: dict[str, deque[Operation]] = field(default_factory=dict)
    current: str = "learner"
    waited: list[str] = field(default_factory=list)
    """Streams that had to wait for something that was not done yet."""

    def enqueue(self, operation: Operation) -> Operation:
        self.streams.setdefault(self.current, deque()).append(operation)
        if operation.after is not None and not operation.after.query():
            self.waited.append(self.current)
        return operation

    def run(self, stream: str) -> bool:
        """Do the next operation of a stream, if there is one and it need not wait."""
        queue = self.streams.get(stream)
        if not queue or (queue[0].after is not None and not queue[0].after.query()):
            return False
        operation = queue.popleft()
        operation.work()
        operation.done = True
        return True

    def finish(self) -> None:
        while any([self.run(stream) for stream in list(self.streams)]):
            pass
        assert not any(self.streams.values()), "streams wait for each other for ever"

    @contextmanager
    def on(self, stream: str) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def copy(self, own: list[Tensor], given: list[Tensor]) -> None:
        """Stands for `torch._foreach_copy_`: one operation a tensor, so that copies can be torn."""
        for here, there in zip(own, given, strict=True):
            self.enqueue(Operation(lambda here=here, there=there: here.copy_(there)))


class World:
    """A learner and readers around published weights, each number being the update it is from."""

    def __init__(self, slots: int, kind: type[PolicyWeights] = PolicyWeights) -> None:
        self.device = Device()
        self.live = {name: torch.zeros(()) for name in NAMES}
        self.slots = kind(self.live, slots, mark=lambda: FakeEvent(self.device))
        self.updates = 0
        self.have: dict[str, int] = {}
        self.updated: list[Operation] = []
        """The copies behind each update, which say whether it is complete."""
        self.wrong: list[str] = []
        self.ahead = 0
        """Most updates that were in flight at once."""
        self.publish()
        self.device.finish()

    def publish(self) -> None:
        version = self.updates

        def update() -> None:
            for tensor in self.live.values():
                tensor.fill_(version)

        with self.device.on("learner"):
            self.device.enqueue(Operation(update))
            with mock.patch.object(torch, "_foreach_copy_", self.device.copy):
                self.slots.publish(self.live, version)
            self.updated.append(self.device.enqueue(Operation()))
        self.updates += 1
        flying = sum(not operation.done for operation in self.updated)
        self.ahead = max(self.ahead, flying)

    def fetch(self, reader: str) -> int:
        taken: dict[str, Tensor] = {}

        def load(weights: Mapping[str, Tensor]) -> None:
            taken.update({name: torch.full((), -2.0) for name in weights})
            self.device.copy(list(taken.values()), list(weights.values()))
            self.device.enqueue(Operation(check))

        def check() -> None:
            values = {name: int(tensor) for name, tensor in taken.items()}
            if set(values.values()) != {version}:
                self.wrong.append(f"{reader} took {values} for version {version}")

        version = -1
        before = self.have.get(reader)
        with self.device.on(reader):
            version = self.slots.fetch(load, before)
        assert bool(taken) == (version != before), "what is there already is not loaded again"
        self.have[reader] = version
        return version

    def newest_complete(self) -> int:
        return max(i for i, operation in enumerate(self.updated) if operation.done)


def conduct(world: World, schedule: list[str]) -> None:
    """Let everything happen in an order, and check what was read.

    Names of streams let the device do one operation of theirs.
    """
    for move in schedule:
        if move == "publish":
            world.publish()
        elif move.startswith("fetch"):
            reader = move.split()[1]
            before = world.have.get(reader, -1)
            version = world.fetch(reader)
            assert version >= before, "weights never grow older"
            if world.ahead <= 2:  # as far as the real learner gets
                assert version >= world.newest_complete() - 1
        else:
            world.device.run(move)
    world.device.finish()
    assert not world.wrong, world.wrong[0]


MOVES = ["publish", "fetch policy", "learner", "learner", "learner", "policy", "policy"]
EVALUATING = [*MOVES, "fetch evaluation", "evaluation"]
schedules = lambda moves: st.lists(st.sampled_from(moves), max_size=120)  # noqa: E731


@given(schedule=schedules(MOVES))
def test_acting_and_learning_never_wait_for_each_other(schedule: list[str]) -> None:
    world = World(SLOTS)
    conduct(world, schedule)
    assert not world.device.waited


@given(schedule=schedules(EVALUATING))
def test_two_readers_get_whole_weights_and_never_wait(schedule: list[str]) -> None:
    world = World(SLOTS)
    conduct(world, schedule)
    assert set(world.device.waited) <= {"learner"}, "who has no slot left waits for a copy"


@given(schedule=schedules(EVALUATING))
def test_in_lockstep_the_newest_is_read(schedule: list[str]) -> None:
    world = World(1)
    conduct(world, schedule)
    assert world.fetch("policy") == world.updates - 1


def test_the_newest_complete_weights_are_taken_while_an_update_runs() -> None:
    world = World(SLOTS)
    world.publish()
    world.device.finish()
    world.publish()
    assert world.fetch("policy") == 1 and world.slots.version == 2
    assert not world.device.waited
    world.device.finish()
    assert world.fetch("policy") == 2


def test_control_with_one_slot_the_policy_waits_for_the_update() -> None:
    world = World(1)
    world.publish()
    assert world.fetch("policy") == 1
    assert world.device.waited == ["policy"]
    assert not world.device.run("policy"), "until the update is done"
    world.device.finish()
    assert not world.wrong


class Careless(PolicyWeights):
    """Takes the slot that was written first, whoever reads it."""

    def _writable(self) -> _Slot:
        slot = self._spare.pop() if self._spare else self._slots.pop(0)
        slot.reads = []
        return slot


def test_control_a_slot_that_is_read_must_not_be_written() -> None:
    world = World(SLOTS, Careless)
    world.fetch("policy")
    schedule = ["publish"] * SLOTS + ["learner"] * 40
    with pytest.raises(AssertionError, match="policy took"):
        conduct(world, schedule)


def test_what_is_complete_stays_however_far_the_learner_runs_ahead() -> None:
    world = World(SLOTS)
    for _ in range(10):
        world.publish()
        assert world.fetch("policy") == 0
    while world.newest_complete() < 1:
        assert world.device.run("learner")
    assert world.fetch("policy") == 1, "the update after it is not overwritten either"


def test_before_anything_is_complete_reading_waits_for_the_first() -> None:
    device = Device()
    live = {name: torch.zeros(()) for name in NAMES}
    kept = PolicyWeights(live, SLOTS, mark=lambda: FakeEvent(device))
    with mock.patch.object(torch, "_foreach_copy_", device.copy):
        for version in range(2):
            kept.publish(live, version)
    with device.on("policy"):
        assert kept.fetch(lambda weights: None) == 0
    assert device.waited == ["policy"]


def test_nothing_can_be_read_before_it_was_published() -> None:
    with pytest.raises(AssertionError, match="nothing was published"):
        PolicyWeights({"w": torch.ones(3)}).fetch(lambda weights: None)


def test_published_weights_are_copies_with_a_version() -> None:
    weights = {"w": torch.ones(3)}
    kept = PolicyWeights(weights)
    assert kept.version == -1
    weights["w"].fill_(2.0)
    kept.publish(weights, 7)
    weights["w"].fill_(3.0)
    taken: dict[str, torch.Tensor] = {}
    version = kept.fetch(lambda source: taken.update(w=source["w"].clone()))
    assert version == 7 and torch.equal(taken["w"], torch.full((3,), 2.0))
