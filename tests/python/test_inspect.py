"""``foundry inspect``: the tensors by type, and the graph with shapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import families
import pytest
from foundry import _core
from foundry.cli import main
from foundry.cli.graph import ops_of, ranges
from foundry.models import build_graph


def test_tensors_by_type(tiny_path: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tiny_path())
    assert main(["inspect", path, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    sizes: dict[str, list[int]] = {}
    for tensor in about["tensors"].values():
        sizes.setdefault(tensor["type"], []).append(tensor["bytes"])
    assert about["types"] == {kind: {"tensors": len(of), "bytes": sum(of)} for kind, of in sizes.items()}
    assert list(about["types"]) == ["Q8_0", "F32"] and "graph" not in about  # what takes most comes first
    assert main(["inspect", path]) == 0
    out = capsys.readouterr().out
    assert "  Q8_0       15 tensors" in out and "  F32         5 tensors     1.2 KiB" in out
    assert f"  in all     {len(about['tensors'])} tensors" in out


def test_the_graph_with_shapes(tiny_path: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny_path()), "--graph"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("graph: "))
    assert lines[at] == "graph: llama, 2 layers, 4 heads of 16, 2 of K and V, hidden 64, vocabulary 259, context 512"
    shown = [" ".join(line.split()) for line in lines[at + 2 :]]
    assert shown[:4] == [
        "embed embed -> [n, 64] token_embd.weight [259, 64]; scale 1",
        "layers 0-1",
        "rms_norm attn_norm [n, 64] -> [n, 64] attn_norm.weight [64]; eps 1e-05",
        "linear attn_q [n, 64] -> [n, 64] attn_q.weight [64, 64]",
    ]
    assert "attention attention [n, 64] -> [n, 64] heads 4, scale 0.25" in shown
    assert "swiglu swiglu [n, 96], [n, 96] -> [n, 96]" in shown
    assert shown[-1] == "linear output [m, 64] -> [m, 259] token_embd.weight [259, 64]"
    assert main(["inspect", str(tiny_path()), "--graph", "--json"]) == 0
    ops = json.loads(capsys.readouterr().out)["graph"]
    (first,) = [op for op in ops if op["name"] == "ffn_down" and op["layer"] == 1]
    assert first == {
        "kind": "linear",
        "name": "ffn_down",
        "layer": 1,
        "inputs": ["[n, 96]"],
        "outputs": ["[n, 64]"],
        "weights": [["blk.1.ffn_down.weight", "[64, 96]"]],
        "attributes": {},
    }


def test_layers_that_differ_are_told_apart(tiny_path: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_path(arch="gemma3", layers=7, window=16)
    assert main(["inspect", str(path), "--graph"]) == 0
    out = capsys.readouterr().out
    assert "\n  layers 0-1, 3-4, 6\n" in out and "\n  layers 2, 5\n" in out and out.count("window 16") == 2


@pytest.mark.parametrize("name", families.FAMILIES)
def test_every_familys_graph_is_read(name: str, tmp_path: Path) -> None:
    """Each op of it, with the shapes that its weights ask for."""
    file = _core.GgufFile(str(families.write(tmp_path / "x.gguf", families.FAMILIES[name])))
    graph = build_graph(file.metadata, {name: shape for name, (_, shape, _) in file.tensors.items()})
    ops = ops_of(graph)
    assert [op.kind for op in ops] == graph.op_names()
    used = {name for op in ops for name, _ in op.weights}
    assert set(graph.weight_names()) <= used
    for op in ops:
        if op.kind == "linear":
            rows, cols = op.outputs[0].split(", ")[1][:-1], op.inputs[0].split(", ")[1]
            assert op.weights[0][1] == (f"[{rows}, {cols}" if rows != "1" else f"[{cols}")  # a gate of all values


def test_ranges() -> None:
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8" and ranges([3]) == "3"
