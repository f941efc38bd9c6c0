"""Model architectures: each file reads the keys of one family and emits its graph. ``architectures`` maps GGUF's names
to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from foundry._core import Graph
from foundry.errors import ModelFormatError
from foundry.models.gemma3 import Gemma3
from foundry.models.header import Header
from foundry.models.llama import Llama
from foundry.models.qwen2 import Qwen2
from foundry.models.understood import refuse_keys, refuse_other_kinds, refuse_parts, refuse_tensors


class Architecture(Protocol):
    """Made of a header, of which it reads every key that it needs (``architectures``)."""

    def build(self, graph: Graph) -> None:
        """Emits the graph; reads no more keys."""


architectures: dict[str, Callable[[Header], Architecture]] = {
    "gemma3": Gemma3,
    "llama": Llama,
    "qwen2": Qwen2,
}


def build_graph(metadata: Mapping[str, Any], tensors: Mapping[str, tuple[int, int]]) -> Graph:
    """The graph of a model file.

    Args:
        metadata: GGUF keys and values.
        tensors: name -> (rows, cols).

    Raises:
        ModelFormatError: the architecture is not supported, a key is missing or makes no sense, a key or tensor asks
            for what the graph does not do, or the file is a part of a model.
    """
    refuse_parts(metadata)
    refuse_other_kinds(metadata)
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in architectures:
        raise ModelFormatError(f"general.architecture: expected one of {', '.join(architectures)}, found {name!r}")
    header = Header(name, metadata, tensors)
    model = architectures[name](header)
    refuse_keys(header)
    graph = Graph()
    model.build(graph)
    graph.verify()
    refuse_tensors(header, graph)
    return graph
