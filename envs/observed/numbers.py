"""What the numbers of tasks are called whose spaces give no names."""

from __future__ import annotations

from collections.abc import Mapping

from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.suites.classic import ENV_IDS

_CART = ("position", "velocity", "angle", "angular velocity")
_CAR = ("position", "velocity")
_ARM = ("cos angle", "sin angle", "angular velocity")
NUMBERS: Mapping[str, tuple[str, ...]] = {
    "CartPole-v0": _CART,
    "CartPole-v1": _CART,
    "MountainCar-v0": _CAR,
    "MountainCarContinuous-v0": _CAR,
    "Pendulum-v1": _ARM,
    "Acrobot-v1": (
        *(f"{name} {arm}" for arm in (1, 2) for name in _ARM[:2]),
        *(f"{_ARM[2]} {arm}" for arm in (1, 2)),
    ),
}
"""Of the one vector that Gymnasium's classic control observes, in its order."""


def of_vector(spec: EnvSpec, key: str) -> tuple[str, ...]:
    """Names of the numbers of an observation key; none where they are not known."""
    task = ENV_IDS.get(spec.task, "") if spec.suite == "classic" else spec.task
    known = NUMBERS.get(task, ()) if spec.suite in ("classic", "gym") else ()
    return known if len(spec.obs) == 1 and spec.obs[key].shape == (len(known),) else ()
