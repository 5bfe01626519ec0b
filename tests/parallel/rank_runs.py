"""Runs of several ranks, forked by `rank_server.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fault_runs import Forking

from dreamer_async.store.run_dir import RunDir


class RankServer(Forking):
    """Forks the ranks of one run after the other."""

    def __init__(self) -> None:
        super().__init__(Path(__file__).with_name("rank_server.py"))

    def train(
        self,
        run: RunDir,
        ranks: int = 2,
        *,
        resume: bool = False,
        inject: Mapping[int, Mapping[str, Any]] | None = None,
        kill: tuple[int, str, float] | None = None,
        signal: int | None = None,
    ) -> list[int]:
        """Run ranks to their end; their exit codes, or minus the signals."""
        request = {
            "run": str(run.path), "ranks": ranks, "resume": resume, "inject": inject or {},
            "kill": kill, "signal": signal,
        }  # fmt: skip
        answer = self.ask(request)
        self.seconds = answer["seconds"]
        return answer["codes"]
