"""The walls between architectures: each reads its own keys, by readers that name what is wrong."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foundry.models
import pytest
from foundry import ModelFormatError, _core
from foundry._core import Graph
from foundry.models import architectures, build_graph
from foundry.models.decoder import Decoder
from foundry.models.header import Header
from foundry.models.hyperparameters import HALF_ROTATED

Tiny = Callable[..., Path]
SOURCES = Path(foundry.models.__file__).parent
MISSING: Any = object()


def header(key: Any = MISSING) -> Header:
    return Header("plain", {} if key is MISSING else {"plain.key": key}, {})


@pytest.mark.parametrize("value", [MISSING, "4", 4.0, True, [4], -1, 0, 9, 1 << 40])
def test_a_whole_number_is_read_within_its_bounds(value: Any) -> None:
    found = "None" if value is MISSING else repr(value)
    with pytest.raises(ModelFormatError) as caught:
        header(key=value).integer("key", least=1, most=9)
    assert str(caught.value) == f"plain.key: expected a whole number from 1 below 9, found {found}"
    assert header(key=8).integer("key", least=1, most=9) == 8
    assert header().integer("key", 3) == 3


@pytest.mark.parametrize("value", [MISSING, "1.5", True, [1.5], 0, -2.0, float("nan"), float("inf"), 1e30])
def test_a_number_is_read_within_its_bounds(value: Any) -> None:
    found = "None" if value is MISSING else repr(value)
    with pytest.raises(ModelFormatError) as caught:
        header(key=value).real("key")
    assert str(caught.value) == f"plain.key: expected a number above 0, found {found}"
    assert (header(key=2).real("key"), header(key=0.5).real("key"), header().real("key", 7)) == (2.0, 0.5, 7.0)


@pytest.mark.parametrize("value", ["yarn", 1, ["linear"]])
def test_a_word_is_one_of_those_allowed(value: Any) -> None:
    with pytest.raises(ModelFormatError) as caught:
        header(key=value).choice("key", "none", ("none", "linear"))
    assert str(caught.value) == f"plain.key: expected 'none' or 'linear', found {value!r}"
    assert header(key="linear").choice("key", "none", ("none", "linear")) == "linear"
    assert header().choice("key", "none", ("none", "linear")) == "none"


@pytest.mark.parametrize("value", [2, [0, 2], "x", 0.50001, True])
def test_a_key_may_ask_for_what_is_done_anyway_alone(value: Any) -> None:
    with pytest.raises(ModelFormatError, match=r"^plain\.key: expected 0 or 0\.5, found .*, which is not supported$"):
        header(key=value).expect("key", 0, 0.5)
    for fine in (0, 0.5, 0.50000001, [0, 0.5], MISSING):
        header(key=fine).expect("key", 0, 0.5)


def test_a_header_knows_what_it_was_asked_for() -> None:
    read = Header("plain", {"plain.a": 1, "plain.b": 2}, {})
    read.integer("a"), read.real("c", 1.0), read.choice("d", "x", ("x",)), read.expect("e", 1), read.ignore("f", "g")
    assert read.keys_read == {f"plain.{key}" for key in "acdefg"}
    assert "b" in read and "c" not in read


class Scaled(Decoder):
    """A family of a test's own: it has a key that the others refuse."""

    rope_style = HALF_ROTATED

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self.residual_scale = header.real("residual_scale")

    def build(self, graph: Graph) -> None:
        super().build(graph)
        graph.arch.name = f"scaled by {self.residual_scale}"


def test_a_new_architecture_reads_a_key_of_its_own(tiny_path: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(architectures, "scaled", Scaled)
    file = _core.GgufFile(str(tiny_path()))
    tensors = {name: shape for name, (_, shape, _) in file.tensors.items()}
    metadata = {name.replace("llama.", "scaled."): value for name, value in file.metadata.items()}
    metadata["general.architecture"] = "scaled"
    with pytest.raises(ModelFormatError, match=r"scaled\.residual_scale: expected a number above 0, found None"):
        build_graph(metadata, tensors)
    graph = build_graph({**metadata, "scaled.residual_scale": 0.25}, tensors)
    assert graph.arch.name == "scaled by 0.25"
    with pytest.raises(ModelFormatError, match=r"scaled\.logit_scale: expected 0 or 1, found 2"):
        build_graph({**metadata, "scaled.residual_scale": 0.25, "scaled.logit_scale": 2.0}, tensors)
    with pytest.raises(ModelFormatError, match=r"llama\.residual_scale: expected 0 or 1, found 0\.25"):
        build_graph({**file.metadata, "llama.residual_scale": 0.25}, tensors)


@pytest.mark.parametrize("module", ["header", "hyperparameters", "decoder", "understood"])
def test_shared_code_asks_for_no_name(module: str) -> None:
    tree = ast.parse((SOURCES / f"{module}.py").read_text(encoding="utf-8"))
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not words & architectures.keys()


def test_layers_of_one_window_share_a_group(tiny_path: Tiny) -> None:
    file = _core.GgufFile(str(tiny_path(arch="gemma3", window=16, layers=7)))
    graph = build_graph(file.metadata, {name: shape for name, (_, shape, _) in file.tensors.items()})
    groups = [line for line in graph.serialize().splitlines() if line.startswith("group ")]
    assert groups == [
        "group layers 2 kv_heads 2 head_dim 16 window 0",  # layers 2 and 5
        "group layers 5 kv_heads 2 head_dim 16 window 16",
    ]
    with pytest.raises(ValueError, match="a fused graph is a device's"):
        graph.fused().serialize()
    assert "fused_linear" in graph.fused().op_names() and "fused_linear" not in graph.op_names()
