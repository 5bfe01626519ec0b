"""Values of Python as the words of settings, so that both are checked by the same rules."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamer_async.cli.paths import runs_root
from dreamer_async.config import ConfigError

RUNS = "DREAMER_RUNS_DIR"


def as_words(settings: Mapping[str, Any]) -> list[str]:
    """`key=value` of every setting that is given; None means not given."""
    return [f"{key}={_word(key, v)}" for key, v in settings.items() if v is not None]


def _word(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        try:
            return json.dumps(dict(value), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{key} must be what JSON can hold: {error}") from None
    if isinstance(value, (list, tuple)):
        return ",".join(_word(key, each) for each in value)
    return str(value)


def root_of(runs_dir: str | Path | None) -> Path:
    """The directory of all runs: the one given, DREAMER_RUNS_DIR, or runs."""
    return runs_root(str(runs_dir) if runs_dir is not None else os.environ.get(RUNS) or "runs")
