"""DreamerV3 on real environments, collecting and learning at the same time.

`agent = dreamer_async.load("last")` loads a trained agent and `dreamer_async.evaluate("last")`
scores it; training starts from the command line (`dreamer-async --help`). Importing this package
is cheap: torch comes with what needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamer_async.run.evaluate import evaluate as evaluate
    from dreamer_async.run.saved_agent import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "load"]

_HOMES = {"evaluate": "dreamer_async.run.evaluate", "load": "dreamer_async.run.saved_agent"}
"""Modules of the public functions."""


def __getattr__(name: str) -> Any:
    """Import a public function on first use."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
