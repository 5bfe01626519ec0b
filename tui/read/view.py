"""What the dashboard knows about one run; `state.reduce` fills it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from dreamer_async.store.events import (
    Checkpointed,
    Clock,
    Controlled,
    Resumed,
    RunFinished,
    RunStarted,
)
from dreamer_async.tui.read.limits import Limits
from dreamer_async.tui.read.series import Series

_ROUNDED = 1e-6
"""S is written with the precision of its floor in float32."""

RECENT_GAUGES = 600
"""Gauges events that are kept: the last ten minutes."""


@dataclass(frozen=True)
class Alert:
    """A warning of the trainer and when it came (unix seconds)."""

    level: str
    message: str
    time: float


@dataclass(frozen=True)
class LogLine:
    """Something that happened, in words."""

    level: str
    """info, warning or error."""
    text: str
    time: float
    """Unix seconds."""


@dataclass(frozen=True)
class EpisodeRow:
    """A finished episode."""

    number: int
    """Counted from 1."""
    time: float
    """Unix seconds."""
    env_steps: int
    env_id: int
    score: float | None
    length: int


@dataclass(frozen=True)
class Evaluation:
    """Episodes that were played for their scores."""

    time: float
    """Unix seconds."""
    env_steps: int
    updates: int
    scores: tuple[float, ...]
    ran: float = 0.0
    """Seconds that the run had run."""

    @property
    def mean(self) -> float:
        """Mean score."""
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True)
class Recent:
    """One gauges event."""

    ran: float
    """Seconds of running."""
    phase: str
    env_steps: int
    updates: int
    values: Mapping[str, float | None]


@dataclass
class RunView:
    """Everything the dashboard knows about one run."""

    started: RunStarted | None = None
    started_at: float = 0.0
    """Unix seconds of the newest start."""
    phase: str = ""
    phase_since: float = 0.0
    """Unix seconds at which the phase began."""
    env_steps: int = 0
    updates: int = 0
    generation: int = 0
    """Newest generation seen; a resumed run raises it."""
    resumed_update: float = math.inf
    """Older generations count only up to this update."""
    resumed_steps: float = math.inf
    """Their episodes count only up to this step."""
    metrics: dict[str, Series] = field(default_factory=dict)
    metrics_seen: int = 0
    """Metrics events and resumes so far: the charts of metrics are as old as this number."""
    latest: dict[str, float | None] = field(default_factory=dict)
    """Newest value of every metric; None is a number that was not finite."""
    gauges: dict[str, float | None] = field(default_factory=dict)
    gauges_seen: int = 0
    recent: deque[Recent] = field(default_factory=lambda: deque(maxlen=RECENT_GAUGES))
    clock: Clock = field(default_factory=Clock)
    episodes: Series = field(default_factory=lambda: Series(limit=65_536))
    lengths: Series = field(default_factory=lambda: Series(limit=65_536))
    rows: deque[EpisodeRow] = field(default_factory=lambda: deque(maxlen=1000))
    episode_count: int = 0
    best_score: float | None = None
    last_length: int = 0
    evaluations: deque[Evaluation] = field(default_factory=lambda: deque(maxlen=1000))
    alerts: deque[Alert] = field(default_factory=lambda: deque(maxlen=200))
    log: deque[LogLine] = field(default_factory=lambda: deque(maxlen=2000))
    checkpoint: Checkpointed | None = None
    checkpoint_at: float = 0.0
    resumed: Resumed | None = None
    answer: Controlled | None = None
    finished: RunFinished | None = None
    last_time: float = 0.0
    """Unix seconds of the newest record."""
    records: int = 0
    """Records folded in so far."""
    limits: Limits = field(default_factory=Limits, compare=False)
    """Settings that charts draw; they are not in the stream, and whoever knows them sets them."""

    @property
    def at_floor(self) -> bool:
        """Tell whether the return scale S sits at its floor, where returns are not scaled."""
        scale = self.latest.get("return/S")
        return scale is not None and scale <= self.limits.return_floor * (1 + _ROUNDED)
