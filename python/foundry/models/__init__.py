"""Model architectures: each file emits the graph of one family. ``architectures`` maps GGUF's names to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from foundry._core import Graph
from foundry.errors import ModelFormatError
from foundry.models import gemma3, llama, qwen2
from foundry.models.hyperparameters import Hyperparameters

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
        ModelFormatError: the architecture is not supported, or a key is missing or makes no sense.
    """
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in architectures:
        raise ModelFormatError(f"general.architecture: expected one of {', '.join(architectures)}, found {name!r}")
    graph = Graph()
    architectures[name](graph, Hyperparameters.read(name, metadata, tensors))
    graph.verify()
    return graph
