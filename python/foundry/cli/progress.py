"""Progress of downloads, loading and prefill: bars on stderr, where it is a terminal; they go when they are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TransferSpeedColumn,
)

Bar = AbstractContextManager[Callable[[float, float], None]]

stderr = Console(stderr=True, highlight=False)


@contextmanager
def bar(title: str, *columns: ProgressColumn) -> Iterator[Callable[[float, float], None]]:
    """Yields a function of (done, total); the bar is there once it is called."""
    progress = Progress(
        TextColumn(title), BarColumn(), *columns, console=stderr, transient=True, disable=not stderr.is_terminal
    )
    task = None

    def told(done: float, total: float) -> None:
        nonlocal task
        if task is None:
            progress.start()
            task = progress.add_task(title, total=None)
        progress.update(task, completed=done, total=total)

    try:
        yield told
    finally:
        progress.stop()


def downloading(title: str) -> Bar:
    return bar(title, DownloadColumn(), TransferSpeedColumn())


def loading() -> Bar:
    return bar("loading", TaskProgressColumn())


def prefilling() -> Bar:
    return bar("prefill", MofNCompleteColumn(), TextColumn("tokens"))
