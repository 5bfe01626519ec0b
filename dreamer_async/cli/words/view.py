"""What `--env-arg` and `--as` say of a task: how it is built, and what its keys are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dreamer_async.config.schema import ConfigError, SchemaError, parse

OPTIONS = {"env.args": "--env-arg", "env.kinds": "--as"}
"""Settings of the view of an environment, and the options that give them."""


def as_view(args: list[str] | None, kinds: list[str] | None) -> list[str]:
    """Turn what was given by --env-arg and --as into settings.

    Without a `;`, which would stand between the values of a sweep: JSON has another word for it.
    """
    given = {"env.args": _pairs("--env-arg", args or []), "env.kinds": _pairs("--as", kinds or [])}
    texts = {
        key: json.dumps(pairs).replace(";", "\\u003b") for key, pairs in given.items() if pairs
    }
    return [f"{key}={text}" for key, text in texts.items()]


def with_view(
    args: list[str] | None, kinds: list[str] | None, others: list[str] | None
) -> list[str]:
    """What --env-arg and --as set, and all other settings; ConfigError for one given twice."""
    view = as_view(args, kinds)
    refuse_twice(view, others or [])
    return view + (others or [])


def refuse_twice(view: Sequence[str], others: Sequence[str]) -> None:
    """Refuse arguments and kinds given both by an option and by -s, which would replace them."""
    for key in (word.partition("=")[0] for word in view):
        for name in (word.partition("=")[0] for word in others):
            if key in (name, f"env.{name}"):
                raise ConfigError(f"-s {name} would replace what {OPTIONS[key]} gives: take one")


def _pairs(flag: str, given: list[str]) -> dict[str, Any]:
    """Typed values of key=value; ConfigError for anything else."""
    pairs: dict[str, Any] = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not (key and sign):
            raise ConfigError(f"{flag} expects key=value, got {text!r}")
        if key in pairs:
            raise ConfigError(f"{flag} gives {key} twice")
        kind = str if flag == "--as" else Any
        try:
            pairs[key] = parse(kind, value, f"{flag} {key}")
        except SchemaError as error:
            raise ConfigError(str(error)) from None
    return pairs


def shown_args(args: Mapping[str, Any]) -> str:
    """Arguments as they are given on the command line."""
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in args.items()}
    return " ".join(f"{key}={text}" for key, text in texts.items())
