"""Runs of several ranks, forked by `rank_server.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamer_async.store.run_dir import RunDir


class RankServer:
    """Forks the ranks of one run after the other."""

    def __init__(self) -> None:
        words = [sys.executable, str(Path(__file__).with_name("rank_server.py"))]
        tests = str(Path(__file__).parents[1])
        self.seconds = 0.0
        """How long the last ranks lived."""
        self._process = subprocess.Popen(
            ["/usr/bin/env", f"PYTHONPATH={tests}:{Path(tests).parent}", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

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
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        self.seconds = answer["seconds"]
        return answer["codes"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
