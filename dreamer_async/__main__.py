"""`python -m dreamer_async` is `dreamer-async`."""

from __future__ import annotations

import sys

from dreamer_async.cli import main

sys.exit(main())
