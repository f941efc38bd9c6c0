"""A model's graph as people read it: its ops with shapes, layers that are alike once.

It is read from the text that ``Graph.serialize`` writes (``cpp/graph/serialize.cpp``), which has a line for each thing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from foundry import _core

_LAYER = re.compile(r"layer (\d+) (.*)")
_BLOCK = re.compile(r"^blk\.\d+\.")
_ROWS = {"tokens": "n", "selected": "m"}


@dataclass(frozen=True)
class GraphOp:
    """An op. A shape's rows are "n", those of a step, or "m", those of them whose logits are wanted.

    Attributes:
        layer: None for what is of no layer.
        inputs, outputs: shapes.
        weights: (name, shape); a part of a tensor has its own shape.
        attributes: numbers by name, as ops.h has them; of attention and kv_append also the window, 0 for none.
    """

    kind: str
    name: str
    layer: int | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[tuple[str, str], ...]
    attributes: dict[str, float]

    def like(self) -> tuple[Any, ...]:
        """What ops of layers that are alike have in common."""
        weights = tuple((_BLOCK.sub("", name), shape) for name, shape in self.weights)
        attributes = tuple((name, value) for name, value in self.attributes.items() if name != "layer")
        return (self.kind, self.name, self.inputs, self.outputs, weights, attributes)


def ops_of(graph: _core.Graph) -> list[GraphOp]:
    """In the order in which they run."""
    values: list[str] = []
    weights: list[tuple[str, str]] = []
    windows: list[int] = []
    ops = []
    for line in graph.serialize().splitlines():
        kind, *words = shlex.split(line)
        if kind == "value":
            values.append(f"[{_ROWS[words[2]]}, {words[1]}]")
        elif kind == "group":
            windows.append(int(words[words.index("window") + 1]))
        elif kind == "weight":
            name, _, rows, _, cols = words[:5]
            shape = [cols] if rows == "1" else [rows, cols]
            if "experts" in words:
                shape.insert(0, words[words.index("experts") + 1])
            weights.append((name, f"[{', '.join(shape)}]"))
        elif kind == "op":
            ops.append(_op(words, values, weights, windows))
    return ops


def _op(words: list[str], values: list[str], weights: list[tuple[str, str]], windows: list[int]) -> GraphOp:
    kind, name, *rest = words
    out, w = rest.index("out"), rest.index("w")
    ids = [list(map(int, part)) for part in (rest[1:out], rest[out + 1 : w])]
    end = next((i for i, word in enumerate(rest) if i > w and not word.lstrip("-").isdigit()), len(rest))
    used = tuple(weights[int(i)] for i in rest[w + 1 : end] if int(i) >= 0)
    pairs = zip(rest[end::2], rest[end + 1 :: 2], strict=True)
    attributes = {key: float.fromhex(value) if "x" in value else float(value) for key, value in pairs}
    if "group" in attributes:
        attributes["window"] = windows[int(attributes["group"])]
    found = _LAYER.fullmatch(name)
    return GraphOp(
        kind,
        name if found is None else found[2],
        None if found is None else int(found[1]),
        tuple(values[i] for i in ids[0]),
        tuple(values[i] for i in ids[1]),
        used,
        attributes,
    )


def as_json(ops: list[GraphOp]) -> list[dict[str, Any]]:
    return [asdict(op) for op in ops]


def lines(graph: _core.Graph) -> Iterator[str]:
    """A line an op."""
    arch, ops = graph.arch, ops_of(graph)
    yield (
        f"graph: {arch.name}, {arch.n_layers} layers, {arch.n_heads} heads of {arch.head_dim}, {arch.n_kv_heads} of K"
        f" and V, hidden {arch.hidden_size}, vocabulary {arch.vocab_size}, context {arch.max_seq_len}"
    )
    yield f"  {len(ops)} ops; n: the rows of a step, m: those whose logits are wanted"
    kinds: dict[tuple[Any, ...], list[int]] = {}  # what a layer does -> the layers that do it
    parts = [(layer, list(of_it)) for layer, of_it in groupby(ops, lambda op: op.layer)]
    for layer, of_it in parts:
        if layer is not None:
            kinds.setdefault(tuple(op.like() for op in of_it), []).append(layer)
    for layer, of_it in parts:
        alike = kinds[tuple(op.like() for op in of_it)] if layer is not None else []
        if alike and alike[0] != layer:
            continue  # it has been told
        if alike:
            yield f"  layer{'s' if len(alike) > 1 else ''} {ranges(alike)}"
        for op in of_it:
            yield ("    " if alike else "  ") + _told(op)


def _told(op: GraphOp) -> str:
    flow = f"{', '.join(op.inputs)} -> {', '.join(op.outputs)}".strip()
    weights = ", ".join(f"{_BLOCK.sub('', name)} {shape}" for name, shape in op.weights)
    shown = {key: value for key, value in op.attributes.items() if key not in ("group", "layer")}
    attributes = ", ".join(f"{key} {value:.6g}" for key, value in shown.items() if (key, value) != ("window", 0))
    return f"{op.kind:<14}{op.name:<20}{flow:<36}{'; '.join(filter(None, (weights, attributes)))}".rstrip()


def ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2, 5"."""
    runs = [list(run) for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else str(run[0][1]) for run in runs)
