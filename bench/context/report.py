"""What was measured as Markdown tables: engines are rows, and what an engine could not do is its error's first line."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]
Results = dict[str, dict[str, Result]]  # by engine and job
TITLES = {"foundry": "Foundry", "llama_cpp": "llama.cpp", "transformers": "transformers", "mlx_lm": "mlx-lm (CPU)"}
MIB = 2**20


def machine() -> str:
    """Cores and memory, as far as the system tells; the processor's family, for names are shared by generations."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    facts = {key: re.search(rf"^{key}\s*: (.*)$", text, re.MULTILINE) for key in ("model name", "cpu family", "flags")}
    if facts["model name"] and facts["cpu family"]:
        name = f"{facts['model name'][1]} (family {facts['cpu family'][1]}"
        name += ", AVX-512)" if facts["flags"] and "avx512f" in facts["flags"][1] else ")"
    return f"{os.cpu_count()} cores of {name}, {memory:.0f} GiB"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines) + "\n"


def mib(value: float | None) -> str:
    return "n/a" if value is None else f"{value / MIB:.1f}"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def each(results: Results, job: str, columns: int, row: Callable[[Result], Sequence[Sequence[str]]]) -> list[list[str]]:
    """An engine's rows, or one with its error."""
    rows = []
    for name, jobs in results.items():
        if job not in jobs:
            continue
        found = jobs[job]
        broken = found.get("error")
        for cells in [[broken] + [""] * (columns - 1)] if broken else row(found):
            rows.append([TITLES[name], *cells])
    return rows


def section(title: str, text: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"## {title}\n\n{text}\n\n{table(['engine', *head], rows)}\n" if rows else ""


def limits(results: Results) -> str:
    found = next((j["limits"] for j in results.values() if "half" in j.get("limits", {})), None)
    if not found:
        return ""
    half, limit, past = found["half"], found["limit"], found["past"]

    def sized(r: Result) -> list[list[str]]:
        return [[r["past_capacity"], " → ".join(f"{b / 1024:,.0f}" for b in r["held"])]]

    def ended(r: Result) -> list[list[str]]:
        return [[r["past_limit"], r["afterwards"], r["long_prompt"], r["oversized"]]]

    text = (
        f"A model of {limit} positions. A context made for {half} tokens is given them, then {past} more, one by one."
    )
    held = "K/V held, KiB: opened → full → now"
    first = section("Tokens past the initial capacity", text, [f"{past} more", held], each(results, "limits", 2, sized))
    text = f"The same model. Its last position is {limit - 1}; what happens behind it?"
    head = [f"{limit} held, {past} more, one by one", f"then back to {half}, one more"]
    head += [f"a prompt of {limit + past}", f"the same, in a context made for {2 * limit}"]
    return first + section("At the limit", text, head, each(results, "limits", 4, ended))


def held(results: Results) -> str:
    found = next((j["keeping"] for j in results.values() if "lengths" in j.get("keeping", {})), None)
    if not found:
        return ""
    marks = [row["length"] for row in found["lengths"]]
    text = (
        "Most K/V bytes held so far, by the engine's own account, over layers x 2 x K/V heads x head size x tokens; "
        f"in a context that may take {found['n_ctx']:,} tokens."
    )
    rows = each(results, "keeping", len(marks), lambda r: [[f"{row['ratio']:.2f}" for row in r["lengths"]]])
    first = section("Held over ideal, by length in tokens", text, [f"{m:,}" for m in marks], rows)

    def footprint(r: Result) -> list[list[str]]:
        m, base = r["memory"], r["memory"]["before"]
        steps = ("opened", "full", "rewound", "closed", "settled")
        above = [mib(None if base is None else m[step] - base) for step in steps]
        return [[r["ways"]["rewind"], mib(r["lengths"][-1]["ideal"]), *above, mib(r["kv_rewound"])]]

    text = (
        "MiB of private memory (`Private_Dirty` of smaps_rollup) above what there was before the context was opened, "
        "with the model loaded and warmed up. What `malloc_trim` then gives back was freed, but kept by the C library. "
        "The last column is the K/V held after the rewind by the engine's own account."
    )
    head = [
        "rewinds by",
        "ideal K/V",
        "opened",
        f"with {marks[-1]:,} tokens",
        "rewound to none",
        "closed",
        "malloc_trim",
        "K/V after the rewind",
    ]
    return first + section("Footprint", text, head, each(results, "keeping", len(head), footprint))


def growth(results: Results) -> str:
    def rows(r: Result) -> list[list[str]]:
        lines = []
        for row in r["rows"]:
            model, depth = row["model"], f"{row['depth']:,}"
            if "error" in row:
                lines.append([model, depth, row["error"], "", "", "", "", ""])
            elif "share_p50" in row:
                share = f"growing is {row['share_p50']:.0%} of each token's time (p99 {row['share_p99']:.0%})"
                lines.append([model, depth, "every token", share, "", "", f"{row['extra_ms']:.2f}", "n/a"])
            else:
                every = f"every {row['every']}; {row['allocated']} allocated" if row["every"] else "never (noise)"
                ratios = [f"{row[key]:.2f}" for key in ("p50", "p99", "worst")]
                extra = [f"{row['extra_ms']:.2f}", mib(row["transient_bytes"])]
                lines.append([model, depth, every, *ratios, *extra])
        return lines

    text = (
        "Time of the token at which K/V grow over the median of its 8 neighbours', 50 growths at each depth. An "
        "engine that never grows is timed where one that does would, to show the noise. `deep` is a llama of two "
        "layers with random weights and 40,960 positions. The last column: by how much more resident memory rises at "
        "its peak while the token is computed than while its neighbour is."
    )
    head = ["model", "depth", "grows", "p50", "p99", "worst", "ms more (median)", "MiB for a moment"]
    return section("The token at which it grows", text, head, each(results, "growth", len(head), rows))


def shared(results: Results) -> str:
    found = next((j["keeping"] for j in results.values() if "tokens" in j.get("keeping", {})), None)
    if not found:
        return ""
    n = f"{found['tokens']:,}"

    def fork(r: Result) -> list[list[str]]:
        f = r["fork"]
        if "error" in f:
            return [[r["ways"]["fork"], f["error"], "", "", ""]]
        figures = [mib(f[k]) for k in ("kv_bytes", "kv_bytes_after_token", "private_bytes_after_token")]
        return [[r["ways"]["fork"], number(f["ms"]), *figures]]

    def restore(r: Result) -> list[list[str]]:
        s = r["restore"]
        if "error" in s:
            return [[r["ways"]["save"], s["error"], "", "", "", "", "", ""]]
        computed = r["compute_s"]
        many = f"{computed:.1f} s" if computed else f"not computed ({r['sample_tokens']} take {r['sample_s']:.1f} s)"
        times = f"{computed * 1000 / s['first_token_ms']:.0f}" if computed else "n/a"
        same = "same bits" if s["same_bits"] else f"differ by {s['difference']:.2g}"
        figures = [mib(s["file_bytes"]), *(number(s[k]) for k in ("save_ms", "load_ms", "first_token_ms"))]
        return [[r["ways"]["save"], *figures, many, times, same]]

    head = ["by", "ms (median of 5)", "K/V MiB added", "with one more token", "private MiB added then"]
    first = section(f"A fork of {n} tokens", "Two histories that go on apart.", head, each(results, "keeping", 5, fork))
    head = ["by", "file, MiB", "save, ms", "load, ms", "load and one token, ms", f"computing {n}", "times as long"]
    text = (
        f"{n} tokens to a file and into a context of the same process that is open and empty; the file is in the "
        "system's cache. `Times as long` is computing over loading and one token."
    )
    head.append("next logits")
    return first + section("Restoring against computing", text, head, each(results, "keeping", len(head), restore))


def decode(results: Results) -> str:
    found = next((j["decode"] for j in results.values() if "rows" in j.get("decode", {})), None)
    if not found:
        return ""
    depths = [row["depth"] for row in found["rows"]]
    text = (
        "Tokens a second, one at a time, by the median time (and by the shortest: noise is what lies between them). "
        "Weights differ, so speeds of different engines tell of them too: engines that don't run the file's quantised "
        "ones have them in float32, faster here than bfloat16."
    )
    head = ["weights", *(f"{d:,}" for d in depths), f"shortest, {depths[-1]:,} over 0"]

    def row(r: Result) -> list[list[str]]:
        speeds = [line["best_per_s"] for line in r["rows"]]
        cells = [f"{line['per_s']:.1f} ({line['best_per_s']:.1f})" for line in r["rows"]]
        return [[r["weights"], *cells, f"{speeds[-1] / speeds[0]:.2f}"]]

    return section("Decode by depth", text, head, each(results, "decode", len(head), row))


def markdown(saved: dict[str, Any], images: Sequence[str]) -> str:
    results: Results = saved["engines"]
    rows = each(
        results, "probe", 4, lambda r: [[r["version"], r["weights"], r["kv_dtype"], f"{r['token']} ({r['logit']:.2f})"]]
    )
    busy = [
        [TITLES[name], *(f"{found[job]['others']:.0%}" if "others" in found.get(job, {}) else "" for job in found)]
        for name, found in results.items()
        if any("others" in result for result in found.values())
    ]
    jobs = next(iter(results.values()), {})
    return (
        f"# What engines do with context memory\n\n{saved['machine']}; {saved['date']}; "
        + " then ".join(f"`{command}` ({minutes:.0f} minutes)" for command, minutes in saved["runs"])
        + ". Figures of different jobs and runs don't compare.\n\n"
        + "".join(f"![{image}]({image})\n" for image in images)
        + ("\n" if images else "")
        + section(
            "Engines",
            "The last column is the most likely token (and its logit) after the same 64: the weights are the same "
            "ones, rounded differently.",
            ["version", "weights", "K/V", "next token"],
            rows,
        )
        + limits(results)
        + held(results)
        + growth(results)
        + shared(results)
        + decode(results)
        + section("Noise", "Share of the machine that other processes used during each job.", list(jobs), busy)
    ).rstrip() + "\n"
