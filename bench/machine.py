"""The machine beside a measurement: processors' time, whose it was, and a scheduling group of one's own.

Linux alone tells all of it; elsewhere what can't be read is 0.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

NOTICED = 0.05  # of a core: other processes' load from which a measurement is marked


def busy_seconds() -> float:
    """Of all cores since boot; 0 where /proc isn't."""
    fields = _processor_ticks()
    if not fields:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, *_ = fields
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def stolen_seconds() -> float:
    """That the machine below took from this virtual one since boot."""
    fields = _processor_ticks()
    return fields[7] / os.sysconf("SC_CLK_TCK") if len(fields) > 7 else 0.0


def own_seconds() -> float:
    """Of this process and of its children that have ended."""
    times = os.times()
    return times.children_user + times.children_system + times.user + times.system


def session_seconds() -> float:
    """Of all living processes of this process's session, and of their children that have ended."""
    own, ticks = os.getsid(0), 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == own:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Watch:
    """Who else had the processors from its making until ``others`` is asked for."""

    def __init__(self) -> None:
        self._began, self._busy, self._stolen = time.monotonic(), busy_seconds(), stolen_seconds()
        self._own = session_seconds()

    def others(self) -> float:
        """Cores that were busy with other sessions' processes or stolen, on average."""
        wall = time.monotonic() - self._began
        foreign = busy_seconds() - self._busy - (session_seconds() - self._own)
        return max(0.0, foreign + stolen_seconds() - self._stolen) / wall if wall else 0.0


def autogroup() -> str:
    """The scheduler's group of this session, "/autogroup-25 nice 0" (Linux, sched(7)); "" where there is none."""
    try:
        return Path("/proc/self/autogroup").read_text().strip()
    except OSError:
        return ""


def enter_own_session() -> None:
    """From here on this process leads a session, and so has a scheduling group of its own: the kernel shares the
    processors between groups first, so that what else runs in the caller's terminal is no part of what is measured.

    A leader of a process group can't; its child goes on then, and the caller ends as that does.
    """
    if os.getpid() == os.getsid(0):
        return
    try:
        os.setsid()
        return
    except PermissionError:
        child = os.fork()
    if child == 0:
        os.setsid()
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: os.killpg(child, received))
    _, status = os.waitpid(child, 0)
    sys.stdout.flush()
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def peak_bytes(process: int | str = "self") -> int | None:
    """The most memory that a process has had resident (VmHWM); None off Linux."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return None
    return int(found[1]) << 10 if found else None


def _processor_ticks() -> list[int]:
    try:
        return [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return []
