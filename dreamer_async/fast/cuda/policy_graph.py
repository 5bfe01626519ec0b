"""Acting on a GPU as one launch: copy the inputs, look the carries up, act, copy the results back.

An acting step is more than a hundred small kernels, which are started one by one from Python more
slowly than they run. So a step for a number of rows is recorded as a CUDA graph, copies included,
like an update (`capture`): it reads a buffer of the host, leaves its results in another, and the
host waits once. The carries stay on the device, where the step reads and writes its rows of them.

Legend: N rows, E environments, D deter, S stoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dreamer_async.agent.policy import Acted, Policy, PolicyCarry, PolicyNoise
from dreamer_async.fast.cuda.capture import RECORDING, Recorder, Relaunch, cuda_graph
from dreamer_async.fast.cuda.parcel import Field, Parcel
from dreamer_async.machine.device_errors import first_line, raise_if_fatal

OBS, NOISE = "obs/", "noise/"
"""How names of inputs begin; the keys of observations are free."""


class PolicyGraph:
    """Acts for environments whose carries [E, ...] it keeps up to date in place."""

    def __init__(self, policy: Policy, carry: PolicyCarry, record: Recorder | None = None) -> None:
        self._policy, self._carry = policy, carry
        self._record = record or partial(cuda_graph, device=policy.device)
        self._steps: dict[int, _Step] = {}
        self._refused = not policy.config.train.capture
        """Whether recording is not wanted, or was tried in vain."""
        self._notices: list[str] = []

    def warm_up(self, rows: int) -> None:
        """Record before anything has to be acted on; no carry changes.

        While updates are compiled, a thread that only replays disturbs nothing: PyTorch wraps the
        calls of all modules of a process while it traces some.
        """
        self._step(rows)

    def act(
        self,
        env_id: NDArray[np.integer],
        obs: Mapping[str, NDArray[Any]],
        is_first: NDArray[np.bool_],
        noise: PolicyNoise,
    ) -> Acted:
        """Act for the environments env_id [N], all different, with noise from the host."""
        step = self._step(len(env_id))
        step.put(env_id, obs, is_first, noise)
        (step.relaunch or step.work)()
        return step.results()

    def recorded(self, rows: int) -> bool:
        """Whether steps of so many rows are replayed."""
        return rows in self._steps and self._steps[rows].relaunch is not None

    def notices(self) -> list[str]:
        """What people should know that was not said before."""
        notices, self._notices = self._notices, []
        return notices

    def _step(self, rows: int) -> _Step:
        """The step for so many rows, recorded if possible."""
        if rows not in self._steps:
            self._steps[rows] = _Step(self._policy, self._carry, rows)
        step = self._steps[rows]
        if step.relaunch is None and not self._refused:
            self._try_to_record(step)
        return step

    def _try_to_record(self, step: _Step) -> None:
        """Record unless another thread is at it; then a later step is early enough.

        Recording takes some steps, which the carries must not show.
        """
        if not RECORDING.acquire(blocking=False):
            return
        before = [part.clone() for part in self._carry]
        try:
            step.relaunch = self._record(step.work)
        except RuntimeError as error:
            raise_if_fatal(error)
            if self._policy.device.type == "cuda":  # steps that were begun change the carries, too
                torch.cuda.synchronize(self._policy.device)
            self._refused = True
            self._notices.append(
                f"acting is not recorded as a CUDA graph and slower: {first_line(error)}"
            )
        finally:
            for part, old in zip(self._carry, before, strict=True):
                part.copy_(old)
            RECORDING.release()


class _Step:
    """A fixed list of operations on fixed buffers: one acting step for N rows."""

    def __init__(self, policy: Policy, carry: PolicyCarry, rows: int) -> None:
        self._policy, self._carry = policy, carry
        self._given = Parcel(_given(policy, rows), policy.device)
        self._taken = Parcel(_taken(policy, rows), policy.device)
        self._done: torch.cuda.Event | None = None
        if policy.device.type == "cuda":
            self._done = torch.cuda.Event(blocking=True)  # waiting for it takes no processor
        self.relaunch: Relaunch | None = None

    def put(
        self,
        env_id: NDArray[np.integer],
        obs: Mapping[str, NDArray[Any]],
        is_first: NDArray[np.bool_],
        noise: PolicyNoise,
    ) -> None:
        """Lay the inputs ready; the step before must be done."""
        values: dict[str, Any] = {OBS + name: obs[name] for name in self._policy.spec.obs}
        values |= {"env_id": env_id, "is_first": is_first}
        assert all(numbers.dtype == torch.float32 for numbers in noise), "noise cannot be forced"
        values |= {NOISE + name: numbers for name, numbers in noise._asdict().items()}
        for name, own in self._given.here.items():
            value = torch.as_tensor(values[name])
            assert own.shape == value.shape, (name, own.shape, value.shape)
            own.copy_(value)

    @torch.no_grad()
    def work(self) -> None:
        """Everything that happens on the device."""
        self._given.send()
        given, taken = self._given.there, self._taken.there
        rows = given["env_id"]
        before = PolicyCarry(*(part.index_select(0, rows) for part in self._carry))
        obs = {name: given[OBS + name] for name in self._policy.spec.obs}
        noise = PolicyNoise(*(given[NOISE + name] for name in PolicyNoise._fields))
        after = self._policy.step(obs, given["is_first"], before, noise)
        for part, new in zip(self._carry, after, strict=True):
            part.index_copy_(0, rows, new)
        taken["action"].copy_(after.action)
        taken["deter"].copy_(after.deter)
        taken["stoch"].copy_(after.stoch.argmax(-1))
        self._taken.bring()

    def results(self) -> Acted:
        """Wait for the step, and only for it."""
        if self._done is not None:
            self._done.record()
            self._done.synchronize()
        here = self._taken.here
        return Acted(*(here[name].numpy().copy() for name in Acted._fields))


def _given(policy: Policy, rows: int) -> dict[str, Field]:
    spec = policy.spec
    fields = {
        OBS + name: Field((rows, *obs.shape), getattr(torch, obs.dtype))
        for name, obs in spec.obs.items()
    }
    return fields | {
        "env_id": Field((rows,), torch.int64),
        "is_first": Field((rows,), torch.bool),
        NOISE + "posterior": Field((rows, policy.config.model.stoch), torch.float32),
        NOISE + "action": Field((rows, *spec.action.shape), torch.float32),
    }


def _taken(policy: Policy, rows: int) -> dict[str, Field]:
    model, action = policy.config.model, policy.spec.action
    return {
        "action": Field((rows, *action.shape), getattr(torch, action.dtype)),
        "deter": Field((rows, model.deter), torch.float16),
        "stoch": Field((rows, model.stoch), torch.uint8),
    }
