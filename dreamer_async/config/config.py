"""Configs: the presets they come from, overrides, and the JSON that a run keeps.

`resolve` builds a `Config` from a suite, a size and overrides; the run directory keeps it as
JSON. The dataclasses themselves are in `settings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from dreamer_async.config.schema import (
    SchemaError,
    decode,
    encode,
    field_types,
    nearest,
    parse,
    shown,
)
from dreamer_async.config.settings import (
    Config,
    ConfigError,
)


def _size(deter: int, hidden: int, classes: int, depth: int, units: int) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            "model.deter": deter,
            "model.hidden": hidden,
            "model.classes": classes,
            "model.depth": depth,
            "model.units": units,
        }
    )


SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tiny": _size(128, 32, 4, 4, 32),
        "toy": MappingProxyType({**_size(256, 128, 8, 8, 256), "model.stoch": 8}),
        "size1m": _size(512, 64, 4, 4, 64),
        "size12m": _size(2048, 256, 16, 16, 256),
        "size25m": _size(3072, 384, 24, 24, 384),
        "size50m": _size(4096, 512, 32, 32, 512),
        "size100m": _size(6144, 768, 48, 48, 768),
        "size200m": _size(8192, 1024, 64, 64, 1024),
        "size400m": _size(12288, 1536, 96, 96, 1536),
    }
)
"""Size presets. `tiny` is ours and for tests. `toy` is ours too: few latents and wide heads, since
at the fixed learning rate a wide layer needs fewer updates. The others are the official ones."""

SUITES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "atari": {"train.steps": 51_000_000, "train.train_ratio": 32.0, "env.num_envs": 16},
        "atari100k": {"train.steps": 110_000, "train.train_ratio": 256.0, "env.num_envs": 1},
        "dmc-proprio": {
            "size": "size1m",
            "train.steps": 1_100_000,
            "train.train_ratio": 1024.0,
            "env.num_envs": 16,
        },
        "dmc-vision": {"train.steps": 1_100_000, "train.train_ratio": 256.0, "env.num_envs": 16},
        "procgen": {"train.steps": 110_000_000, "train.train_ratio": 64.0, "env.num_envs": 16},
        "crafter": {"train.steps": 1_100_000, "train.train_ratio": 512.0, "env.num_envs": 1},
        "dmlab": {"train.steps": 26_000_000, "train.train_ratio": 32.0, "env.num_envs": 16},
        "minecraft": {"train.steps": 10**10, "train.train_ratio": 32.0, "env.num_envs": 16},
        "bsuite": {"train.steps": 10**10, "train.train_ratio": 1024.0, "env.num_envs": 1},
        "memory-maze": {"train.steps": 100_000_000, "train.train_ratio": 32.0, "env.num_envs": 16},
        "toy": {
            "size": "toy",
            "train.steps": 20_000,
            "train.train_ratio": 32.0,
            "train.batch_size": 8,
            "train.batch_length": 16,
            "env.num_envs": 16,
        },
        "classic": {  # its learning rate is not the paper's, as minigrid's: see docs/learning.md
            "size": "size1m",
            "train.steps": 20_000,
            "train.train_ratio": 64.0,
            "train.batch_size": 8,
            "train.batch_length": 32,
            "env.num_envs": 8,
            "optim.lr": 3e-4,
        },
        "minigrid": {
            "size": "size1m",
            "train.steps": 250_000,
            "train.train_ratio": 64.0,
            "train.batch_size": 8,
            "train.batch_length": 32,
            "env.num_envs": 8,
            "optim.lr": 3e-4,
        },
        "box2d": {"train.steps": 1_000_000, "train.train_ratio": 32.0, "env.num_envs": 16},
        "mujoco": {"train.steps": 1_000_000, "train.train_ratio": 512.0, "env.num_envs": 16},
        "metaworld": {"train.steps": 1_000_000, "train.train_ratio": 512.0, "env.num_envs": 16},
        "vizdoom": {"train.steps": 1_000_000, "train.train_ratio": 32.0, "env.num_envs": 16},
        "gym": {
            "size": "size1m",
            "train.steps": 1_000_000,
            "train.train_ratio": 32.0,
            "env.num_envs": 16,
        },
    }
)
"""Suite presets: what differs from the defaults; `size` is the one taken when none is asked for."""

PUBLISHED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "atari": {"size": "size200m"},
        "atari100k": {"size": "size200m"},
        "dmc-proprio": {
            "size": "size12m",
            "train.steps": 300_000,
            "train.train_ratio": 512.0,
            "env.repeat": 2,
            "env.num_envs": 8,
        },
        "dmc-vision": {
            "size": "size12m",
            "train.steps": 600_000,
            "train.train_ratio": 512.0,
            "env.repeat": 2,
            "env.num_envs": 8,
        },
    }
)
"""Suites of which curves were published that were made by a protocol of ours: what differs from
their presets in the official configuration of that time (2411f7d, April 2024).

That has 16 environments for DMC, but each of its 197 published curves of vision has eight episodes,
and again eight every 8,016 frames: eight environments with 500 decisions and a reset, twice each.
Those of proprio begin before 10,000 frames, so they cannot have had 16 either."""

ON_A_CPU: Mapping[str, str] = MappingProxyType({"atari": "atari100k"})
"""Suites whose own plan takes weeks without a GPU, and the suite whose plan takes hours."""

SESSION: Mapping[str, Any] = MappingProxyType(
    {"size": "size1m", "train.steps": 10**10, "train.train_ratio": 32.0, "env.num_envs": 1}
)
"""The preset of runs that a program of the user's steps, of a suite that no command can name."""

DEFAULT_SIZES: Mapping[str, str] = MappingProxyType({"cuda": "size12m", "cpu": "size1m"})
"""Size preset by kind of device, for suites that name none."""


def known_settings() -> Mapping[str, Any]:
    """Every setting that `-s` reaches, as dotted key -> annotation."""
    return {
        f"{part}.{name}": kind
        for part, cls in field_types(Config).items()
        if is_dataclass(cls) and isinstance(cls, type)
        for name, kind in field_types(cls).items()
    }


_OWN_FLAG: Mapping[str, str] = MappingProxyType(
    {
        "env.suite": "env.suite is set by the first word after train, not by -s",
        "env.task": "env.task is set by --task, not by -s",
        "size": "size is set by --size, not by -s",
    }
)
_KEPT: Mapping[str, str] = MappingProxyType(
    {key: f"{key} is fixed for the life of a run; start a new run" for key in _OWN_FLAG}
)


def find_setting(name: str) -> str:
    """The dotted key that a name means: itself, or the one key that ends in it; ConfigError."""
    known = known_settings()
    if name in known or name in _OWN_FLAG:
        return name
    ending = [key for key in known if key.partition(".")[2] == name]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise ConfigError(f"{shown(name)} could be {' or '.join(ending)}")
    endings = {key.partition(".")[2]: key for key in known}
    hint = nearest(name, known) or nearest(name, endings, endings) or nearest(name, SIZES)
    raise ConfigError(f"unknown setting {shown(name)}{hint}")


def parse_overrides(
    overrides: Iterable[str], refused: Mapping[str, str] = _OWN_FLAG
) -> dict[str, Any]:
    """Read 'train.batch_size=8' and the like into typed values; later ones win.

    A name without its part, such as batch_length, is enough where only one setting has it.
    `refused` has a reason for keys that cannot be set so.
    """
    known, values = known_settings(), {}
    for text in overrides:
        name, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"expected key=value, such as train.batch_size=8, got {shown(text)}")
        key = find_setting(name.strip())
        if key in refused:
            raise ConfigError(refused[key])
        try:
            values[key] = parse(known[key], value, key)
        except SchemaError as error:
            raise ConfigError(str(error)) from None
    return values


def resolve(
    suite: str,
    task: str,
    *,
    size: str | None = None,
    overrides: Iterable[str] = (),
    device: str = "cpu",
    published: bool = False,
    plan: str = "",
) -> Config:
    """Build a config: defaults < suite preset < PUBLISHED if wanted < size preset < overrides.

    `device` is the kind of device (cpu or cuda) that the default size is chosen for. `plan` names
    another suite whose preset (steps, ratio, environments) replaces that of this one.
    """
    if suite not in SUITES and suite != "session":
        choices = nearest(suite, SUITES) or f" (known: {', '.join(SUITES)})"
        raise ConfigError(f"unknown suite {shown(suite)}{choices}")
    preset = {**SUITES.get(plan or suite, SESSION), **(_published(suite) if published else {})}
    default = preset.pop("size", DEFAULT_SIZES[device])
    chosen = default if size is None else find_size(size)
    values = {**preset, **SIZES[chosen], **parse_overrides(overrides)}
    return _build({"size": chosen, "env.suite": suite, "env.task": task, **values})


def _published(suite: str) -> Mapping[str, Any]:
    if suite not in PUBLISHED:
        raise ConfigError(
            f"there is no published curve for {suite} with the protocol used here "
            f"(there are some for {', '.join(PUBLISHED)})"
        )
    return PUBLISHED[suite]


def find_size(word: str) -> str:
    """The size preset that a word means: size12m is also SIZE12M, 12m and 12M; ConfigError."""
    name = word.lower()
    found = next((size for size in (name, f"size{name}") if size in SIZES), None)
    if found is None:
        known = f" (known: {', '.join(SIZES)})"
        close = nearest(name, SIZES) or (name and nearest(f"size{name}", SIZES)) or known
        raise ConfigError(f"unknown size {shown(word)}{close}")
    return found


def _check_size(size: str) -> None:
    """Refuse what is not the very name of a size."""
    if size not in SIZES:
        raise ConfigError(f"unknown size {shown(size)}{nearest(size, SIZES)}")


def override(config: Config, overrides: Iterable[str]) -> Config:
    """Return a copy with some settings changed, as `resume -s` does."""
    return _build({**_flat(config), **parse_overrides(overrides, _KEPT)})


def _build(values: Mapping[str, Any]) -> Config:
    """Build a config from dotted keys, each part in one go so that it is checked as a whole."""
    parts: dict[str, Any] = {}
    for key, value in values.items():
        part, _, name = key.partition(".")
        if name:
            parts.setdefault(part, {})[name] = value
    kinds = field_types(Config)
    return Config(size=values["size"], **{p: kinds[p](**v) for p, v in parts.items()})


def _flat(config: Config) -> dict[str, Any]:
    """Flatten a config to dotted keys."""
    flat: dict[str, Any] = {"size": config.size}
    for part in fields(config):
        value = getattr(config, part.name)
        if is_dataclass(value):
            flat |= {f"{part.name}.{f.name}": getattr(value, f.name) for f in fields(value)}
    return flat


def to_dict(config: Config) -> dict[str, Any]:
    """Turn a config into JSON values."""
    return encode(config)


LATER = frozenset(
    {"train.backend", "train.native", "train.capture", "train.fused_filtering", "env.resize"}
    | {"env.args", "env.kinds", "env.image", "env.repeat"}
    | {"train.fused_imagination", "train.dependent_launch"}
    | {"train.updates", "train.init", "train.init_parts", "replay.source", "replay.source_actions"}
)
"""Settings that runs of earlier versions lack; those get the defaults."""
GONE = frozenset({"train.eager_start"})
"""Settings that runs of earlier versions have and that mean nothing any more."""
RENAMED: Mapping[str, Mapping[Any, Any]] = {"train.precision": {"amx": "bfloat16-dense"}}
"""Values that runs of earlier versions have, and what they are called now."""


def from_dict(data: Any) -> Config:
    """Read `to_dict`'s result back; every key must be there, known and of the right type.

    Only settings that came later (LATER) may be missing; those that are GONE are passed over.
    """
    try:
        for name, names in RENAMED.items():
            data = _at(data, name.split("."), partial(_renamed, names))
        for name in GONE:
            data = _at(data, name.split("."), _without)
        for name in ("size", *known_settings()):
            if name not in LATER:
                _present(data, name)
        config = decode(Config, data)
        _check_size(config.size)
        return config
    except SchemaError as error:
        raise ConfigError(f"bad config: {error}") from None


def _at(data: Any, path: list[str], change: Callable[[Mapping[str, Any], str], Any]) -> Any:
    """The same with the object around the end of a path changed, if all of the path is there."""
    if not isinstance(data, Mapping) or path[0] not in data:
        return data
    if len(path) == 1:
        return change(data, path[0])
    return {**data, path[0]: _at(data[path[0]], path[1:], change)}


def _without(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != key}


def _renamed(names: Mapping[Any, Any], data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data[key]
    return {**data, key: names.get(value, value) if isinstance(value, str) else value}


def _present(data: Any, key: str) -> None:
    for name in key.split("."):
        if not isinstance(data, Mapping):
            raise SchemaError(f"{key}: expected an object around it, got {shown(data)}")
        if name not in data:
            raise SchemaError(f"missing key {key}")
        data = data[name]


def changed(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, as dotted key -> (old, new)."""
    before, after = _flat(old), _flat(new)
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


_RING_KEYS = (
    "env.num_envs",
    "replay.capacity",
    "replay.capacity_gb",
    "replay.directory",
    "train.batch_length",
)
"""Settings that lay out the replay file."""


def changed_shapes(old: Config, new: Config, *, drop_replay: bool = False) -> dict[str, str]:
    """Settings that a resume must refuse, each with the reason.

    The networks and the task are fixed for the life of a run; what lays out the replay ring may
    change only when the replay is dropped; everything else (steps, ratio, losses, ...) is free.
    """
    refused = {}
    for key in changed(old, new):
        if key == "size" or key.startswith("model."):
            refused[key] = "the checkpoint holds networks of another shape; start a new run"
        elif key in ("env.suite", "env.task"):
            refused[key] = "a run belongs to one task; start a new run"
        elif key in ("env.kinds", "env.image"):
            refused[key] = "the checkpoint holds networks for what it saw; start a new run"
        elif key == "env.repeat":
            refused[key] = "what was learned is about steps of that length; start a new run"
        elif key.startswith("train.init"):
            refused[key] = "a run begins with other weights once; start a new run with --init"
        elif key.startswith("replay.source"):
            refused[key] = "its replay holds what it learns from; `learn` makes a new run"
        elif key in _RING_KEYS and not drop_replay:
            refused[key] = "the replay ring is laid out for it; add --drop-replay to start afresh"
    return refused
