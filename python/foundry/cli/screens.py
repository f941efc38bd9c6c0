"""Memory as people read it: figures with bars, of a plan and of a session."""

from __future__ import annotations

from collections.abc import Sequence

from rich.bar import Bar
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from foundry.contexts import ContextPlan, largest_that_fits
from foundry.memory import MemoryPlan, format_bytes
from foundry.session import Session

_WIDTH = 24


class _Share:
    """A bar as long as the share of ``n`` in ``whole``; of plain characters where the stream has no others."""

    def __init__(self, n: int, whole: int) -> None:
        self._n, self._whole = n, max(whole, n, 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.ascii_only:
            yield Text("#" * (_WIDTH * self._n // self._whole))
        else:
            yield Bar(self._whole, 0, self._n, width=_WIDTH, color="blue")


def _bars(rows: Sequence[tuple[str, int]], whole: int) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for name, n in rows:
        table.add_row(Text(name), format_bytes(n), _Share(n, whole))
    return table


def plan_screen(
    title: str, plan: MemoryPlan, contexts: Sequence[ContextPlan], chosen: tuple[str, str]
) -> RenderableType:
    """``chosen``: the types of K and V that ``plan`` is of."""
    taken, most = plan.total + plan.estimated, contexts[0].max_seq_len
    limit = plan.available + plan.estimated
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("K/V in", "a token", f"{most} tokens", "largest that fits"):
        table.add_column(name, justify="left" if name == "K/V in" else "right", no_wrap=True)
    table.add_column()
    for one in contexts:
        name = one.k_type if one.k_type == one.v_type else f"{one.k_type},{one.v_type}"
        table.add_row(
            Text(name),
            format_bytes(one.token_bytes),
            format_bytes(one.kv),
            f"{one.largest} tokens",
            _Share(one.largest, most),
            style="bold" if (one.k_type, one.v_type) == chosen else "",
        )
    found = _bars([("needed", taken), ("of a limit of", limit)], limit)
    return Group(Text(title), "", _bars(plan.rows(), taken), "", found, Text(plan.verdict()), "", table)


def session_screen(session: Session) -> RenderableType:
    """What the model and a session of it hold, and how much more fits."""
    model, held = session.model, session.model.memory()
    most = model.arch.max_seq_len
    rows = [
        ("weights", held["weights_mapped"] + held["weights_private"]),
        ("K/V of all conversations", held["kv"]),
        ("page tables", held["page_tables"]),
        ("workspace, logits, sampling", held["workspace"] + held["logits"] + held["sampling"]),
        ("estimated beside it", held["estimated"]),
        *([("limit", held["limit"])] if held["limit"] else []),
    ]
    further = largest_that_fits(lambda n: model.plan(0, n).fits, most)
    shared = f", {format_bytes(session.shared_bytes)} of them shared" if session.shared_bytes else ""
    lines = [
        f"this conversation: {session.position} of {most} tokens, {format_bytes(session.kv_bytes)} of K/V{shared};"
        f" {session.reserved_tokens} tokens promised",
        f"beside it another one of up to {further} tokens fits",
    ]
    return Group(_bars(rows, held["limit"] or sum(n for _, n in rows)), *map(Text, lines))
