"""Pools that draw in software: one at a time, and otherwise like any other pool."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dreamer_async.envs import needs
from dreamer_async.envs.drawing.turns import TurnPool
from dreamer_async.envs.pool import PoolEnv
from dreamer_async.envs.pool_task import PoolTask
from dreamer_async.envs.raw_pool import RawPool
from dreamer_async.envs.suite import Options
from tests.rollouts import streams

DRAWN = PoolTask("classic", "cartpole", "CartPole-v1", drawn=True)


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Sets whether this machine draws in software."""
    return lambda software: monkeypatch.setattr(needs, "require_drawing", lambda: software)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_rows_are_those_of_a_pool_that_does_not_wait(
    batch: int, draws: Callable[[bool], None]
) -> None:
    seen = []
    for software in (False, True):
        draws(software)
        with PoolEnv(DRAWN, Options(3, batch, 7, threads=2)) as env:
            assert isinstance(env._pool, TurnPool) == software
            assert env.pool.config["num_threads"] == (1 if software else 2)
            seen.append(streams(env, 60))
    assert seen[0] == seen[1]


def test_a_pool_can_be_closed_with_rows_in_flight(draws: Callable[[bool], None]) -> None:
    draws(True)
    env = PoolEnv(DRAWN, Options(4, 2, 0))
    env.start()
    env.recv()
    raw = env._pool
    env.close()
    assert raw.pool is None  # freed, in its turn


class Pool:
    """The C++ calls of a pool whose environments step from `_send` to `_recv`."""

    _state_keys = ("obs", "reward", "done", "trunc", "info:env_id", "elapsed_step")
    _action_keys = ("env_id", "players.env_id", "action")
    observation_space = SimpleNamespace()
    all_env_ids = np.arange(4, dtype=np.int32)

    def __init__(self, stepping: set[int], met: list[int]) -> None:
        self.stepping, self.met, self.sent = stepping, met, list[int]()

    def async_reset(self) -> None:
        self._reset(self.all_env_ids)

    def _reset(self, env_id: Any) -> None:
        self.sent += env_id.tolist()
        self.stepping.add(id(self))
        self.met.append(len(self.stepping))

    def _send(self, values: list[Any]) -> None:
        self._reset(values[0])

    def _recv(self) -> tuple[Any, ...]:
        time.sleep(2e-4)
        self.met.append(len(self.stepping))
        ids, self.sent = np.array(self.sent[:2], np.int32), self.sent[2:]
        if not self.sent:
            self.stepping.discard(id(self))
        return (*[np.zeros(2)] * 4, ids, np.zeros(2, np.int32))


def together(make: Callable[[Pool], RawPool]) -> int:
    """How many of two pools, each in a thread of its own, step at once at most."""
    stepping, met = set[int](), list[int]()

    def play(pool: RawPool) -> None:
        pool.async_reset()
        for _ in range(50):
            rows = pool.recv()
            pool.send(np.zeros(2, np.int32), rows.env_id)

    players = [threading.Thread(target=play, args=(make(Pool(stepping, met)),)) for _ in range(2)]
    for each in players:
        each.start()
    for each in players:
        each.join()
    return max(met)


def test_of_all_pools_that_draw_in_software_one_steps_at_a_time() -> None:
    assert together(lambda pool: TurnPool(pool, 2)) == 1
    assert together(RawPool) == 2  # or the test would not see it


EGL = """
#include <string.h>
typedef void *Device;
static const char *const kinds[] = {DEVICES};
static const int many = sizeof kinds / sizeof *kinds;
int query(int most, Device *devices, int *count) {
  for (*count = 0; *count < many && *count < most; ++*count)
    devices[*count] = (Device)kinds[*count];
  return 1;
}
const char *string(Device device, int name) {
  return strstr(device, "software") ? "EGL_MESA_device_software EGL_EXT_device" : "EGL_EXT_device";
}
Device display(int platform, Device device, const int *attributes) { return device; }
int eglInitialize(Device display, int *major, int *minor) { return !strstr(display, "broken"); }
void *eglGetProcAddress(const char *name) {
  if (NONE) return 0;
  if (!strcmp(name, "eglQueryDevicesEXT")) return query;
  return !strcmp(name, "eglQueryDeviceStringEXT") ? (void *)string : (void *)display;
}
"""
"""An EGL with devices of our choice."""


@pytest.mark.parametrize(
    ("devices", "chosen", "software"),
    [
        ('"card", "software"', "", False),
        ('"broken card", "card", "software"', "", False),
        ('"broken card", "software"', "", True),
        ('"card", "software"', "1", True),
        ('"software", "card"', "1", False),
        ('"broken card"', "", True),
        ("", "", True),
    ],
)
def test_the_device_that_envpool_will_take_is_asked(
    devices: str, chosen: str, software: bool, tmp_path: Path
) -> None:
    source = tmp_path / "egl.c"
    source.write_text(EGL.replace("DEVICES", devices or "0").replace("NONE", str(int(not devices))))
    library = tmp_path / "libEGL.so.1"
    subprocess.run(["cc", "-w", "-shared", "-fPIC", "-o", library, source], check=True)
    asked = subprocess.run(
        [
            sys.executable,
            "-c",
            "from dreamer_async.envs.drawing import egl; print(egl.draws_in_software())",
        ],
        env={"LD_LIBRARY_PATH": str(tmp_path), "MUJOCO_EGL_DEVICE_ID": chosen},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.strip() == str(software)


@pytest.mark.parametrize(("said", "software"), [("False", False), ("True", True), ("", True)])
def test_whoever_tried_to_draw_says_what_drew(
    said: str, software: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "_DRAW", f"print('a driver talks'); print('{said}')")
    assert needs.require_drawing.__wrapped__() is software
