"""What was measured, as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from bench.context.report import table
from bench.machine import NOTICED
from bench.peers import rows as goals
from bench.peers.figures import OURS, Result, Spread, better, peers, ratio, series, share_of_limit
from bench.peers.rows import Row

TITLES = {"fa off": "llama.cpp, flash attention off", "fa on": "llama.cpp, flash attention on"}
Measured = list[tuple[Row, Result]]
MIB = 2**20
WIDTH = 120


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(of: Spread | None, text: Callable[[float], str] = number) -> str:
    return f"{text(of.median)} [{text(of.least)} to {text(of.most)}]" if of else "–"


def times(of: Spread | None) -> str:
    return spread(of, lambda value: f"{value:.2f}")


def verdict(reached: bool | None, goal: str) -> str:
    return "–" if reached is None else f"{goal}: {'met' if reached else '**missed**'}"


def engine_cell(result: Result, name: str, figure: str) -> str:
    if name in result["errors"]:
        return result["errors"][name].splitlines()[0][:80]
    return spread(Spread.of(series(result, name, figure)))


def rate_rows(measured: Measured) -> list[list[str]]:
    cells = []
    for row, result in measured:
        reached, share, goal = ratio(result, row.work), share_of_limit(row, result), goals.goal(row)
        enough = None if goal is None or reached is None else reached.median >= goal
        text = f"{goal}x" if goal else ""
        if goal and goal > 1 and row.work == "decode" and row.depth == 0:  # not to be behind has no other way
            text += f" or {goals.SHARE_GOAL:.0%}"
            enough = enough or (share or 0) >= goals.SHARE_GOAL
        cells.append(
            [row.model, row.kv, f"{row.depth:,}", row.work]
            + [engine_cell(result, name, row.work) for name in (OURS, *TITLES)]
            + [times(reached), verdict(enough, text), f"{share:.0%}" if share is not None else "–"]
            + [history(result), others(result)]
        )
    return cells


def history(result: Result) -> str:
    return "; ".join(dict.fromkeys(result["histories"].values()))


def others(result: Result) -> str:
    return f"{max(result['others'], default=0):.2f}"


def own_q8_0(measured: Measured) -> str:
    """Decode at 30,000 tokens with K/V in q8_0, beside f16 of the same run: both Foundry's."""
    found = {row.kv: result for row, result in measured if row.work == "decode" and row.depth == 30000}
    both = [Spread.of(series(found[kv], OURS, "decode")) for kv in ("q8_0", "f16") if kv in found]
    if len(both) != 2 or both[0] is None or both[1] is None:
        return ""
    reached = both[0].median / both[1].median
    goal = verdict(reached >= goals.OWN_Q8_0_GOAL, f"{goals.OWN_Q8_0_GOAL}x")
    return f"Foundry's own decode at 30,000 tokens, K/V in q8_0 over f16: {reached:.2f} ({goal}).\n\n"


def rates(measured: Measured) -> str:
    if not measured:
        return ""
    head = ["model", "K/V", "depth", "work", "Foundry", *TITLES.values()]
    head += ["ratio", "at least", "share of the limit", "history", "others"]
    text = (
        "Tokens a second, median [least to most] of the rounds. The ratio is that of each round to the better of "
        "llama.cpp's settings. A decode's limit is reading weights and K/V once from huge pages; a prefill's is its "
        "linear layers at the 8-bit peak (F16 and BF16: f32) and its attention at f32's. `others` are the cores that "
        "other processes had, in the worst round."
    )
    return f"## Decode, and prefill of {goals.PREFILL_TOKENS}\n\n{text}\n\n{table(head, rate_rows(measured))}\n" + (
        own_q8_0(measured)
    )


def limits(measured: Measured) -> str:
    """Of each setting, in the order in which they were measured."""
    seen: dict[str, list[str]] = {}
    for row, result in measured:
        found = result.get("limits")
        if found:
            where = f"{row.model}, {row.kv}, {row.depth:,}, {row.threads} threads"
            cells = [f"{found[name] / 1e9:,.0f}" for name in ("read_huge", "read_small", "f32", "int8")]
            seen.setdefault(where, [where, *cells, found["dot"] + ("" if found["huge_pages"] else "; no huge pages")])
    if not seen:
        return ""
    head = ["of", "read, huge pages, GB/s", "read, small pages", "f32, GFLOP/s", "8-bit, Gop/s", "by"]
    text = "The higher of the two, for a limit is what is reached undisturbed."
    return f"## The machine's limits, just before and after each\n\n{text}\n\n{table(head, list(seen.values()))}\n"


def eight(measured: Measured) -> str:
    if not measured:
        return ""
    head = ["model", "K/V", "Foundry", *TITLES.values(), "ratio", "at least", "history", "others"]
    cells = []
    for row, result in measured:
        reached = ratio(result, "decode")
        goal = verdict(None if reached is None else reached.median >= (goals.goal(row) or 0), f"{goals.goal(row)}x")
        figures = [engine_cell(result, name, "decode") for name in (OURS, *TITLES)]
        cells.append([row.model, row.kv, *figures, times(reached), goal, history(result), others(result)])
    title = f"## Eight sequences decoding together, {measured[0][0].depth:,} tokens each"
    return f"{title}\n\nTokens a second of all together, one step for a token of each.\n\n{table(head, cells)}\n"


def busy(measured: Measured) -> str:
    if not measured:
        return ""
    cells = []
    for row, result in measured:
        for name in (OURS, *TITLES):
            alone, beside = (series(result, name, figure) for figure in ("alone", "beside"))
            share = Spread.of([b / a for a, b in zip(alone, beside, strict=True)])
            goal = verdict(share.median >= goals.BUSY_GOAL, f"{goals.BUSY_GOAL:.0%}") if share and name == OURS else ""
            title = TITLES.get(name, "Foundry")
            figures = [spread(Spread.of(alone)), spread(Spread.of(beside))]
            cells.append([row.model, title, *figures, spread(share, lambda v: f"{v:.1%}"), goal])
    head = ["model", "engine", "alone", "beside", "share of its own", "at least"]
    text = "Decode in tokens a second, alone and beside a process that never waits, at the same priority on one core."
    return f"## Another process busy on one core\n\n{text}\n\n{table(head, cells)}\n"


def loads(measured: Measured) -> str:
    if not measured:
        return ""
    cells = []
    for row, result in measured:
        ours = [Spread.of(series(result, OURS, figure)) for figure in ("load_s", "peak")]
        for name in {name for turn in result["rounds"] for name in turn}:
            taken, all_of_it = (Spread.of(series(result, name, figure)) for figure in ("load_s", "start_s"))
            peak, before = (Spread.of(series(result, name, figure)) for figure in ("peak", "imports"))
            beside = [""] * 2
            if name != OURS and taken and peak and ours[0] and ours[1]:
                time, memory = ours[0].median / taken.median, ours[1].median / peak.median
                beside = [
                    f"{time:.2f} ({verdict(time <= goals.LOAD_GOAL, f'{goals.LOAD_GOAL}')})",
                    f"{memory:.2f} ({verdict(memory <= goals.MEMORY_GOAL, f'{goals.MEMORY_GOAL}')})",
                ]
            sizes = [f"{of.median / MIB:,.0f}" if of else "–" for of in (peak, before)]
            cells.append([row.model, name, spread(taken), spread(all_of_it), *sizes, *beside])
    cells.sort()
    head = ["model", "engine", "load to first token, s", "with the interpreter's start", "peak memory, MiB"]
    head += ["of it before the load", "Foundry's time over it", "Foundry's memory over it"]
    text = (
        "Each in a process of its own, the file in the page cache. A prompt is tokenised and computed. llama.cpp's "
        "context is made for 2,048 tokens, or 32,768; Foundry's needs no such figure. The peak is VmHWM, pages of the "
        "mapped file that were touched included."
    )
    return f"## Load to first token, peak memory\n\n{text}\n\n{table(head, cells)}\n"


def threads(measured: Measured) -> str:
    if not measured:
        return ""
    cells, last = [], {}
    for row, result in sorted(measured, key=lambda pair: pair[0].threads):
        for figure in ("prefill", "decode"):
            cell = [str(row.threads), figure, *(engine_cell(result, name, figure) for name in (OURS, *TITLES))]
            now = Spread.of(series(result, OURS, figure))
            doubled, goal = "", ""
            if now and last.get(figure):
                factor = now.median / last[figure]
                least = goals.DOUBLING_GOAL if figure == "prefill" else 1.0
                doubled, goal = f"{factor:.2f}", verdict(factor >= least, f"{least}x")
            last[figure] = now.median if now else 0
            cells.append([*cell, times(ratio(result, figure)), doubled, goal])
    head = ["threads", "work", "Foundry", *TITLES.values(), "ratio", "Foundry over half the threads", "at least"]
    return f"## Threads\n\nThe model of {measured[0][0].model}, depth 0.\n\n{table(head, cells)}\n"


def not_run(left: Sequence[Row]) -> str:
    if not left:
        return "Every row of the comparison was run.\n"
    lines = [f"- {r.work}: {r.model}, K/V {r.kv}, depth {r.depth:,}, {r.threads} threads" for r in left]
    return "## Not run\n\n" + "\n".join(lines) + "\n"


def noise(measured: Measured) -> str:
    loud = [row for row, result in measured if max(result["others"], default=0) > NOTICED]
    if not loud:
        return "Nothing else of note ran on the machine."
    return (
        f"**Other processes ran beside {len(loud)} of {len(measured)} rows** (more than {NOTICED:.0%} of a core in "
        "some round; the column `others` says how much): their figures are noisier and lower than the machine's own, "
        "and llama.cpp's more so, whose threads spin where another process has a core (see the busy core below)."
    )


def markdown(saved: dict[str, Any], left: Sequence[Row]) -> str:
    every: Measured = [(Row(**entry["row"]), entry) for entry in saved["rows"].values()]
    of = {work: [pair for pair in every if pair[0].work == work] for work in goals.WORKS}
    runs = "\n".join(
        f"- {run['date']}: `{run['command']}`, {run['minutes']:.0f} minutes, {run['rounds']} rounds; Foundry "
        f"{run['revision']}; {', '.join(f'{k} {v}' for k, v in run['versions'].items())}; {run['group']}"
        for run in saved["runs"]
    )
    parts = [
        "# Foundry beside llama.cpp\n",
        f"{saved['machine']}; {saved['compiler']}. Made by `python -m bench.peers`; weights are random, files are "
        "those that llama.cpp's own quantiser would lay out. Both engines read the same file and take turns within "
        "each round, each in a process that stays, in one scheduling group of their own. Figures of different rows "
        f"don't compare: machines drift. {noise(every)}\n",
        f"Runs:\n\n{runs}\n",
        "Of histories: `computed` tokens went through the model; `tiled` ones are the K/V of the first 2,048 tokens "
        "over again, restored into the engine, so that every byte is there and is read.\n",
        rates(of["decode"] + of["prefill"]),
        eight(of["eight"]),
        busy(of["busy"]),
        loads(of["load"]),
        threads(of["threads"]),
        limits(every),
        not_run(left),
    ]
    return "\n".join(map(wrapped, "\n".join(part for part in parts if part).split("\n")))


def wrapped(text: str) -> str:
    """A line of prose in lines that can be read; a table's row as it is."""
    if text.startswith("|") or len(text) <= WIDTH:
        return text
    behind = "  " if text.startswith("- ") else ""
    return textwrap.fill(text, WIDTH, subsequent_indent=behind, break_long_words=False, break_on_hyphens=False)


def line(row: Row, result: Result) -> str:
    """For the terminal, as soon as a row is measured."""
    figures = {"eight": ["decode"], "threads": ["decode", "prefill"], "busy": ["alone", "beside"]}
    told = []
    for figure in figures.get(row.work, [] if row.work == "load" else [row.work]):
        cells = [f"{name} {engine_cell(result, name, figure)}" for name in (OURS, *peers(result))]
        told.append(
            f"{figure}: {', '.join(cells)} tokens/s, ratio {times(ratio(result, figure))} to {better(result, figure)}"
        )
    if row.work == "load":
        names = {name for turn in result["rounds"] for name in turn}
        told += [f"{name} {spread(Spread.of(series(result, name, 'load_s')))} s" for name in sorted(names)]
    if max(result["others"], default=0) > NOTICED:
        told.append(f"others had up to {others(result)} cores")
    told += [f"{name}: {error}" for name, error in result["errors"].items()]
    return f"{row.name}: {'; '.join(told)}"
