"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's `mallopt`."""


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors for the next ones.

    By default glibc gives large blocks back to the system at once, and every step then pays for
    fresh pages again: with 16 worlds a quarter of the time. No effect where the allocator is
    another one (other systems, jemalloc), and none on a GPU's memory.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_TRIM_THRESHOLD, 2**30)
    # The largest that glibc takes; still larger blocks go back as before.
    mallopt(_MMAP_THRESHOLD, 2**25)
