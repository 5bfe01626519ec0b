"""docs/metrics.md: how to read the numbers, from the texts that the dashboard shows.

`python -m dreamer_async.tui.show.metrics_page` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from dreamer_async.tui.show.glossary import FILE, meanings

FAMILIES = {
    "loss": "Losses",
    "return": "Imagined returns and their scale",
    "adv": "Advantages",
    "value": "Values",
    "imagine": "Imagined steps",
    "policy": "The policy",
    "rssm": "Latent states",
    "opt": "The optimiser",
    "episode": "Episodes",
    "evaluation": "Evaluations",
    "rate": "Speed",
    "ratio": "The train ratio",
    "replay": "The replay",
    "stage": "Stages of the pipeline",
    "cpu": "The processor",
    "memory": "Memory",
    "gpu": "The GPU",
    "disk": "The disk",
}
"""First part of a name -> heading."""

_HEAD = FILE.with_name("reading.md")
"""What stands above them: the signs of a run that learns."""


def markdown() -> str:
    """The whole of docs/metrics.md."""
    head = _HEAD.read_text(encoding="utf-8").rstrip()
    return "\n\n".join([head, *_sections()]) + "\n"


def _sections() -> Iterator[str]:
    """One for each family, in the order of the texts."""
    for family, names in groupby(meanings(), key=lambda name: name.partition("/")[0]):
        yield f"## {FAMILIES[family]}"
        for name in names:
            unit, text = meanings()[name]
            yield f"### `{name}`\n\n*{unit}.* {text}"


if __name__ == "__main__":
    print(markdown(), end="")
