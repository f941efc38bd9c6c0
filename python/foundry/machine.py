"""What this process may use of its machine: the least of what hardware, containers and its own limits leave.

Containers are Linux's control groups, version 1 and 2 (kernel documentation, admin-guide/cgroup-v1 and cgroup-v2.rst):
a limit of the process's own group or of any group above it counts. Nothing here is cached, for limits may change.
``root`` is the folder that holds /proc and /sys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

try:
    import resource
except ImportError:  # a system without limits
    resource = None  # type: ignore[assignment]

ROOT = Path("/")
MOST_THREADS = 1024  # of the core's thread pool


def physical_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def container_bytes(root: Path = ROOT) -> int | None:
    """The least memory limit of the control groups above this process; None where there is none."""
    limits = [
        limit
        for folder in _groups(root, "memory")
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
        if (limit := _number(_read(folder / name))) is not None and limit > 0
    ]
    return min(limits, default=None)


def container_cpus(root: Path = ROOT) -> float | None:
    """Processors' time that the control groups above this process may take: 1.5 is one and a half; None: all of it."""
    quotas = []
    for folder in _groups(root, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        time, each = _number(quota), _number(period)
        if time is not None and each is not None and time > 0 and each > 0:
            quotas.append(time / each)
    return min(quotas, default=None)


def threads(root: Path = ROOT) -> int:
    """Threads that can run at once: the processors that this process may run on, and the container's share of them."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS; more processors than the call tells of
        allowed = os.cpu_count() or 1
    share = container_cpus(root)
    if share is not None:
        allowed = min(allowed, int(-(-share // 1)))
    return max(1, min(allowed, MOST_THREADS))


def private_bytes(root: Path = ROOT) -> int:
    """Memory that is this process's alone, in use or swapped out; files that it maps are not."""
    status = _status(root)
    return sum(status.get(name, 0) for name in ("RssAnon", "RssShmem", "VmSwap"))


def left_by_process_limits(root: Path = ROOT) -> int | None:
    """What `ulimit -v` and `ulimit -d` leave of address space; mapped files count in the first. None: no limit."""
    status = _status(root)
    if resource is None or not status:
        return None
    left = []
    for kind, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY and used in status:
            left.append(max(0, limit - status[used]))
    return min(left, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control groups that ``controller`` is in, each followed by those above it."""
    of = {}  # type of hierarchy -> this process's group in it; a line of the kernel's is number:controllers:group
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            of["cgroup2"] = group
        elif controller in controllers.split(","):
            of["cgroup"] = group
    for kind, options, mounted, at in _mounts(root):
        if kind not in of or (kind == "cgroup" and controller not in options):
            continue
        try:
            inside = PurePosixPath(of[kind]).relative_to(mounted)
        except ValueError:  # a group that is not below what is mounted: what is mounted is all that can be seen
            inside = PurePosixPath()
        parts = () if ".." in inside.parts else inside.parts
        for n in range(len(parts), -1, -1):
            yield (root / at.lstrip("/")).joinpath(*parts[:n])


def _mounts(root: Path) -> Iterator[tuple[str, list[str], str, str]]:
    """Mounted hierarchies of groups: type, options, the group that is mounted, where (proc(5), mountinfo)."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, more = before.split(" "), after.split(" ")
        if len(fields) > 4 and len(more) > 2 and more[0] in ("cgroup", "cgroup2"):
            yield more[0], more[2].split(","), _unescaped(fields[3]), _unescaped(fields[4])


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _status(root: Path) -> dict[str, int]:
    """Sizes of /proc/self/status, in bytes."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", _read(root / "proc/self/status"), re.MULTILINE)
    return {name: int(size) << 10 for name, size in found}


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(text: str) -> int | None:
    """None for "max", and for a file that is not there."""
    return int(text) if re.fullmatch(r"-?\d+", text) else None
