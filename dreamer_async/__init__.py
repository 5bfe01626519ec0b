"""DreamerV3 on real environments, collecting and learning at the same time.

`agent = dreamer_async.load(path)` loads a trained agent; everything else starts from the
command line (`dreamer-async --help`). Importing this package is cheap: torch comes with `load`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamer_async.run.evaluate import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import `load` on first use."""
    if name == "load":
        from dreamer_async.run.evaluate import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
