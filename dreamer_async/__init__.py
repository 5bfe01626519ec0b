"""DreamerV3 on real environments, collecting and learning at the same time.

`dreamer-async --help` is the command line. From a program `train` starts a run as the command does,
`learn` starts one from what was recorded, `Run` follows one, `Session` is a run whose environment
is the program itself, `agent = load("last")` is a trained agent and `evaluate("last")` scores it.
Importing this package is cheap: what it gives out is imported on first use, and torch comes with
what needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamer_async.config import ConfigError as ConfigError
    from dreamer_async.python.run import Run as Run
    from dreamer_async.python.run import RunFailed as RunFailed
    from dreamer_async.python.session import Session as Session
    from dreamer_async.python.train import learn as learn
    from dreamer_async.python.train import train as train
    from dreamer_async.run.evaluate import evaluate as evaluate
    from dreamer_async.run.saved_agent import load as load

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "Run",
    "RunFailed",
    "Session",
    "__version__",
    "evaluate",
    "learn",
    "load",
    "train",
]

_HOMES = {
    "ConfigError": "config",
    "Run": "python.run",
    "RunFailed": "python.run",
    "Session": "python.session",
    "evaluate": "run.evaluate",
    "learn": "python.train",
    "load": "run.saved_agent",
    "train": "python.train",
}
"""Name -> the module of ours that it is imported from on first use."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
