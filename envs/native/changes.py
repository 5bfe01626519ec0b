"""What is another in an environment than it was when an agent learned in it.

This module imports gymnasium; only modules that are themselves imported late may import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dreamer_async.envs.native import space_json
from dreamer_async.envs.spec import EnvSpec, ObsSpec

LONGEST = 160
"""Characters of a space that are shown."""


def changes(before: EnvSpec, now: EnvSpec) -> Iterator[str]:
    """What an agent would see or decide otherwise, a few words each; nothing if it fits.

    The types in which the environment takes numbers make no difference, but their bounds do.
    """
    for key in dict.fromkeys([*before.obs, *now.obs]):
        had, has = before.obs.get(key), now.obs.get(key)
        if had != has:
            yield f"observation {key!r} is {_seen(has)}, not {_seen(had)}"
    (_, had), (_, has) = space_json.spaces_of(before), space_json.spaces_of(now)
    if before.action != now.action or _untyped(had) != _untyped(has):
        words = [f"{' '.join(str(space).split()):.{LONGEST}}" for space in (has, had)]
        same = words[0] == words[1]
        yield f"the action is {words[0]}" + (" with other bounds" if same else f", not {words[1]}")


def _seen(obs: ObsSpec | None) -> str:
    if obs is None:
        return "missing"
    return f"{obs.dtype} {list(obs.shape)}" + f" of {obs.classes} classes" * bool(obs.classes)


def _untyped(space: space_json.Space) -> Any:
    """A space as JSON, without types."""

    def strip(data: Any) -> Any:
        if isinstance(data, dict):
            return {name: strip(part) for name, part in data.items() if name != "dtype"}
        return [strip(part) for part in data] if isinstance(data, list) else data

    return strip(space_json.encode(space))
