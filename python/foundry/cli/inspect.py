"""``foundry inspect``: what a model file says and holds."""

from __future__ import annotations

import argparse
import json
from typing import Any

from foundry import _core
from foundry.cli import graph as graphs
from foundry.cli.opening import path_of
from foundry.files import ModelFiles, open_model
from foundry.hub import telling_how_to_mend
from foundry.memory import format_bytes
from foundry.model import existing
from foundry.models import build_graph


def inspect(arguments: argparse.Namespace) -> int:
    path = path_of(arguments.model)
    with telling_how_to_mend(path):
        file = open_model(existing(path), header_only=True)
        graph = None
        if arguments.graph:
            graph = build_graph(file.metadata, file.shapes, tables=file.tables, reordered=file.reordered)
    types = _types(file)
    if arguments.json:
        about: dict[str, Any] = {"path": str(path), "kind": file.kind, "version": file.version}
        about["metadata"] = {
            key: value.to_list() if isinstance(value, _core.MetadataArray) else value
            for key, value in file.metadata.items()
        }
        about["tensors"] = {
            name: {"type": kind, "shape": list(shape), "bytes": n} for name, (kind, shape, n) in file.tensors.items()
        }
        about["types"] = {kind: {"tensors": count, "bytes": n} for kind, (count, n) in types.items()}
        if graph is not None:
            about["graph"] = graphs.as_json(graphs.ops_of(graph))
        print(json.dumps(about, default=str))
        return 0
    print(f"{path}: {file.kind}, {len(file.tensors)} tensors")
    for key, value in sorted(file.metadata.items()):
        if isinstance(value, _core.MetadataArray):
            value = value.to_list() if len(value) <= 8 else f"{len(value)} entries"
        shown = str(value)
        print(f"  {key:<44}{shown if len(shown) < 100 else shown[:97].replace(chr(10), ' ') + '...'}")
    whole = sum(n for _, n in types.values())
    for kind, (count, n) in types.items():
        print(f"  {kind:<8}{count:>5} tensors{format_bytes(n):>12}{100 * n / max(whole, 1):>7.1f}%")
    print(f"  {'in all':<8}{len(file.tensors):>5} tensors{format_bytes(whole):>12}")
    if arguments.tensors:
        for name, (kind, shape, n) in file.tensors.items():
            print(f"  {name:<44}{kind:<8}{' x '.join(map(str, shape)):<16}{format_bytes(n):>12}")
    if graph is not None:
        print(*graphs.lines(graph), sep="\n")
    return 0


def _types(file: ModelFiles) -> dict[str, tuple[int, int]]:
    """Type -> (tensors, bytes), what takes most first."""
    types: dict[str, tuple[int, int]] = {}
    for kind, _, n in file.tensors.values():
        count, size = types.get(kind, (0, 0))
        types[kind] = (count + 1, size + n)
    return dict(sorted(types.items(), key=lambda item: -item[1][1]))
