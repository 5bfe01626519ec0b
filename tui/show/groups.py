"""Which runs are one kind, as they differ in nothing but the seed, and how each is drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from dreamer_async.tui.draw.rows import Part, Row, fit_ends
from dreamer_async.tui.read import compare
from dreamer_async.tui.read.source import Source
from dreamer_async.tui.show.pictures import MARKS, OTHERS

LOOKS = ("line", *OTHERS)
"""One for each group; no more can be laid over each other."""
MOST_RUNS = 16
_SEED_ENDS = re.compile(r"[-_. ]*(seed|s)?[-_=]?$")


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one kind."""

    place: int
    sources: list[Source] = field(default_factory=list)

    @property
    def look(self) -> str:
        """How its mean is drawn."""
        return LOOKS[self.place]

    @property
    def mark(self) -> str:
        """What stands on its curve, for terminals with few colours; the first has none."""
        return MARKS.get(self.look, "")

    @property
    def key(self) -> Part:
        """How its curve looks, in a legend."""
        return Part(f"{self.mark or '━'} ", self.look)

    @property
    def label(self) -> str:
        """What its runs have in common in their names."""
        names = [source.label for source in self.sources]
        if len(names) == 1:
            return names[0]
        same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
        common = _SEED_ENDS.sub("", "".join(letters[0] for letters in same))
        return common if len(common) > 2 else names[0]

    @property
    def title(self) -> str:
        """The same, and how many they are."""
        count = len(self.sources)
        return f"{self.label} ({count} seeds)" if count > 1 else self.label

    def look_of(self, source: Source) -> str:
        """How one of its runs is drawn: paler than the first run of all, where that is one."""
        return "dots" if self.place == 0 and source is not self.sources[0] else self.look


def grouped(sources: Sequence[Source]) -> list[Group]:
    """All runs by what they are, in their order."""
    found: dict[int, Group] = {}
    for source, number in zip(
        sources, compare.groups([source.settings for source in sources]), strict=True
    ):
        place = min(number, len(LOOKS) - 1)  # a resume with other settings may make one too many
        found.setdefault(number, Group(place)).sources.append(source)
    return list(found.values())


def legend(groups: Sequence[Group], width: int) -> Row:
    """Which colour is which run, each name cut where all of them would not fit."""
    share = width // max(1, len(groups)) - len("━   ")
    row: list[Part] = []
    for group in groups:
        title = group.title if len(group.title) <= share else group.label
        row += [group.key, Part(fit_ends(title, min(len(title), share))), Part("  ")]
    return row


def refusal(sources: Sequence[Source]) -> str:
    """Why so many runs cannot be laid over each other; empty if they can."""
    if len(sources) > MOST_RUNS:
        return f"at most {MOST_RUNS} runs fit over each other"
    kinds = len(set(compare.groups([source.settings for source in sources])))
    if kinds > len(LOOKS):
        return f"at most {len(LOOKS)} kinds of runs, seeds not counted, fit over each other"
    return ""
