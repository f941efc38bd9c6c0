"""The figures as plots, small PNGs; none where matplotlib isn't installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.context.report import MIB, TITLES, Results

COLOURS = {"foundry": "#c1440e", "llama_cpp": "#2d6a4f", "transformers": "#8a6d00", "mlx_lm": "#1d4e89"}


def lines(results: Results, job: str, key: str, x: str, y: str, axes: Any) -> bool:
    """One line for each engine that has the figures; whether there was one."""
    drawn = False
    for name, jobs in results.items():
        rows = [row for row in jobs.get(job, {}).get(key, []) if y in row]
        if rows:
            xs, ys = [row[x] for row in rows], [row[y] for row in rows]
            axes.plot(xs, ys, marker="o", label=TITLES[name], color=COLOURS[name])
            drawn = True
    return drawn


def held(results: Results, axes: Any) -> bool:
    axes.set(title="K/V bytes held over the ideal", xlabel="tokens", ylabel="times", xscale="log", yscale="log")
    drawn = lines(results, "keeping", "lengths", "length", "ratio", axes)
    axes.axhline(1, color="grey", linewidth=0.8)
    return drawn


def decode(results: Results, axes: Any) -> bool:
    axes.set(title="Decode by depth, shortest times", xlabel="tokens of history", ylabel="tokens/s", yscale="log")
    return lines(results, "decode", "rows", "depth", "best_per_s", axes)


def growth(results: Results, axes: Any) -> bool:
    axes.set(title="Token at a growth boundary, over its neighbours", ylabel="times", yscale="log")
    boxes = []
    for name, jobs in results.items():
        for row in jobs.get("growth", {}).get("rows", []):
            if "ratios" in row:
                boxes.append((f"{TITLES[name]}\n{row['model']} {row['depth']:,}", row["ratios"], COLOURS[name]))
    if boxes:
        drawn = axes.boxplot([b[1] for b in boxes], whis=(0, 100), patch_artist=True, medianprops={"color": "black"})
        for patch, box in zip(drawn["boxes"], boxes, strict=True):
            patch.set_facecolor(box[2])
        axes.set_xticks(range(1, len(boxes) + 1), [b[0] for b in boxes], rotation=60, ha="right", fontsize=7)
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    return bool(boxes)


def footprint(results: Results, axes: Any) -> bool:
    steps = ("opened", "full", "rewound", "closed")
    axes.set(title="Private memory above that before the context", ylabel="MiB")
    drawn = 0
    for name, jobs in results.items():
        memory = jobs.get("keeping", {}).get("memory", {})
        if memory.get("before") is not None:
            above = [(memory[step] - memory["before"]) / MIB for step in steps]
            axes.bar([i + 0.2 * drawn for i in range(4)], above, 0.18, label=TITLES[name], color=COLOURS[name])
            drawn += 1
    axes.set_xticks([i + 0.3 for i in range(4)], ["opened", "full", "rewound to none", "closed"])
    return drawn > 0


def draw(results: Results, folder: Path) -> list[str]:
    """The files' names."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = []
    for plot in (held, growth, footprint, decode):
        figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
        if plot(results, axes):
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=8)
            names.append(f"{plot.__name__}.png")
            figure.savefig(folder / names[-1], dpi=110)
        pyplot.close(figure)
    return names
