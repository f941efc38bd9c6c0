"""What fetching has in common: sums, copies, and progress by the size of what grows."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

Progress = Callable[[int, int], None]  # (bytes so far, bytes in all)


def sha256_of(path: Path) -> str:
    return digest_of(path, hashlib.sha256())


def digest_of(path: Path, digest: hashlib._Hash) -> str:
    """In hexadecimal; ``digest`` may hold what is to come before the file."""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def copy(source: IO[bytes], target: IO[bytes], digest: hashlib._Hash) -> None:
    while chunk := source.read(1 << 20):
        digest.update(chunk)
        target.write(chunk)
    target.flush()
    os.fsync(target.fileno())


@contextmanager
def watched(size: Callable[[], int], total: int, progress: Progress | None) -> Iterator[None]:
    """Tells the size of what grows while the block runs, and all of it at its end."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            progress(min(size(), total), total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    progress(total, total)
