"""`dreamer-async settings`: what can be set, and what it means."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from dreamer_async.cli.options import Json
from dreamer_async.config import ConfigError, manual


def settings(
    word: Annotated[
        str,
        typer.Argument(metavar="[WORD]", help="Only settings whose name or meaning contains this."),
    ] = "",
    as_json: Json = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the documentation page.")
    ] = False,
) -> int:
    """List the settings that `-s` takes, with their defaults and meanings."""
    if markdown:
        if word or as_json:
            raise ConfigError("--markdown prints the whole page: leave out WORD and --json")
        print(manual.markdown(), end="")
        return 0
    found = manual.find(word)
    if not found:
        raise ConfigError(f"no setting has {word!r} in its name or meaning")
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in found]))
    else:
        print("\n".join(manual.lines(found)))
    return 0
