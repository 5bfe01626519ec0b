"""Measure one part in a process of its own: {config, part, seconds} on stdin, JSON on stdout."""

from __future__ import annotations

import json
import sys

from dreamer_async.bench import measure
from dreamer_async.config import from_dict
from dreamer_async.machine import process


def main() -> None:
    process.before_torch()
    process.prepare()
    given = json.load(sys.stdin)
    print(json.dumps(measure(from_dict(given["config"]), given["part"], given["seconds"])))


if __name__ == "__main__":
    main()
