"""Settings of a run: presets and overrides, the dataclasses, and the values they take.

The public names of `config` and `settings` can be imported from here. They come on first use: what
needs `schema` alone, such as `watch`, starts without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamer_async.config.config import (
        DEFAULT_SIZES,
        ON_A_CPU,
        PUBLISHED,
        SIZES,
        SUITES,
        changed,
        changed_shapes,
        find_setting,
        find_size,
        from_dict,
        known_settings,
        override,
        parse_overrides,
        resolve,
        to_dict,
    )
    from dreamer_async.config.settings import (
        Config,
        ConfigError,
        EnvConfig,
        LossConfig,
        ModelConfig,
        OptimConfig,
        ReplayConfig,
        TrainConfig,
    )

__all__ = [
    "DEFAULT_SIZES",
    "ON_A_CPU",
    "PUBLISHED",
    "SIZES",
    "SUITES",
    "Config",
    "ConfigError",
    "EnvConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "ReplayConfig",
    "TrainConfig",
    "changed",
    "changed_shapes",
    "find_setting",
    "find_size",
    "from_dict",
    "known_settings",
    "override",
    "parse_overrides",
    "resolve",
    "to_dict",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dreamer_async.config import config, settings

    return getattr(config if hasattr(config, name) else settings, name)
