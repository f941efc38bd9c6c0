"""What is measured, a file for each job; and what the jobs share."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.context.engines import Engine
from bench.context.models import Config

Result = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One job for one engine.

    Attributes:
        load: opens a model's file with the engine.
        main: the model, its file and sizes; ``deep``, a small one for long histories; ``tiny``, one soon full.
        depth: no history is to be longer.
        quick: whether to look only that everything works.
        folder: for files.
    """

    load: Callable[[Path], Engine]
    main: tuple[Path, Config]
    deep: tuple[Path, Config]
    tiny: tuple[Path, Config]
    depth: int
    quick: bool
    folder: Path


def timed(step: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def trim() -> None:
    """Gives back what the allocator keeps of freed memory, so that a level taken now hides nothing taken later."""
    gc.collect()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: None)(0)


def private_bytes() -> int | None:
    """What this process alone has written in memory; pages that only mirror a file are the system's. None off Linux."""
    gc.collect()
    try:
        text = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return None
    found = re.search(r"Private_Dirty:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else None


def peak_bytes(step: Callable[[], object]) -> int | None:
    """By how much the process's memory went up at most while ``step`` ran. None off Linux."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high water mark is the level now
        level = _status("VmHWM")
        step()
        return _status("VmHWM") - level
    except OSError:
        return None


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def attempt(step: Callable[[], Result]) -> Result:
    """Its result, or what it ended with: one thing that a peer can't do doesn't hide the others."""
    try:
        return step()
    except Exception as error:
        return {"error": first_line(error)}
