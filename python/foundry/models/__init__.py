"""Model architectures: each file emits the graph of one family. ``architectures`` maps GGUF's names to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from foundry._core import Graph
from foundry.errors import ModelFormatError
from foundry.models import gemma3, llama, qwen2
from foundry.models.hyperparameters import Hyperparameters
from foundry.models.understood import refuse_other_kinds, refuse_parts, refuse_tensors

architectures: dict[str, Callable[[Graph, Hyperparameters], None]] = {
    "gemma3": gemma3.build,
    "llama": llama.build,
    "qwen2": qwen2.build,
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
    graph = Graph()
    hp = Hyperparameters.read(name, metadata, tensors)
    architectures[name](graph, hp)
    graph.verify()
    refuse_tensors(hp, graph.weight_names())
    return graph
