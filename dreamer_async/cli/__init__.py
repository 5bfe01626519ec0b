"""The command line: a module each for a group of commands, and what they share."""

from __future__ import annotations

from dreamer_async.cli.entry import main as main
