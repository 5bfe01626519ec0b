"""Exit codes of commands and of trainers, for scripts; docs/cli.md explains them."""

from __future__ import annotations

import errno

UNEXPECTED = 1
"""Nobody foresaw the error: it is printed with its traceback."""
WRONG_INPUT = 2
STOPPED_BY_OWNER = 10
"""Of the dashboard's process alone: its user asked for a stop and saw it happen."""
UNUSABLE = 65
"""No checkpoint verifies, or the replay belongs to other settings."""
ENVIRONMENT = 69
DIVERGED = 70
MEMORY = 71
CANNOT = 73
"""The run is in use, or files are not accessible."""
DISK = 74
STUCK = 75
DASHBOARD = 76
"""The dashboard failed; a run that it showed goes on."""
RANK = 77
"""One of several processes that learn as one has ended, or holds other weights than the others."""
INTERRUPTED = 130

_INACCESSIBLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENXIO),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}


def of_system(error: OSError) -> int:
    """CANNOT where a path cannot be used like that, DISK where the disk is full or broken.

    MEMORY where there is no room to map a file.
    """
    if error.errno == errno.ENOMEM:
        return MEMORY
    return CANNOT if error.errno in _INACCESSIBLE else DISK
