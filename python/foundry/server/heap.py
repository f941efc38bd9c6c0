"""The C library's heap in a process that serves."""

from __future__ import annotations

import ctypes
import os
import sys

_M_ARENA_MAX = -8  # mallopt(3)
ARENAS = 2


def share_arenas() -> bool:
    """Lets all threads from now on allocate from ``ARENAS`` heaps; whether the C library could be told.

    glibc gives each thread a heap of its own, up to eight a core, and each keeps what it once needed: after a crowd has
    gone, tens of MiB that nothing uses. Threads of a server wait for one another anyway. Who sets MALLOC_ARENA_MAX
    knows better, and other C libraries have nothing to be told.
    """
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, ARENAS) == 1
