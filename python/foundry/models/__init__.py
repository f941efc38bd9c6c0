"""Model architectures: each file reads the keys of one family and emits its graph. ``architectures`` maps GGUF's names
to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from foundry._core import Graph
from foundry.errors import ModelFormatError
from foundry.models.exaone import Exaone
from foundry.models.gemma2 import Gemma2
from foundry.models.gemma3 import Gemma3
from foundry.models.glm4 import Glm4
from foundry.models.gptoss import GptOss
from foundry.models.granite import Granite
from foundry.models.granitemoe import GraniteMoe
from foundry.models.header import Header
from foundry.models.internlm2 import InternLM2
from foundry.models.lfm2 import Lfm2, Lfm2Moe
from foundry.models.llama import Llama
from foundry.models.mistral3 import Mistral3
from foundry.models.naming import Naming
from foundry.models.olmo2 import Olmo2
from foundry.models.phi3 import Phi3
from foundry.models.qwen2 import Qwen2
from foundry.models.qwen3 import Qwen3, Qwen3VL
from foundry.models.qwen3moe import Qwen3Moe
from foundry.models.qwen35 import Qwen35, Qwen35Moe
from foundry.models.smollm3 import SmolLM3
from foundry.models.starcoder2 import StarCoder2
from foundry.models.understood import refuse_keys, refuse_other_kinds, refuse_tensors


class Architecture(Protocol):
    """Made of a header, of which it reads every key that it needs (``architectures``)."""

    hub: Naming

    def build(self, graph: Graph) -> None:
        """Emits the graph; reads no more keys."""


architectures: dict[str, Callable[[Header], Architecture]] = {
    "exaone": Exaone,
    "gemma2": Gemma2,
    "gemma3": Gemma3,
    "glm4": Glm4,
    "gpt-oss": GptOss,
    "granite": Granite,
    "granitemoe": GraniteMoe,
    "internlm2": InternLM2,
    "lfm2": Lfm2,
    "lfm2moe": Lfm2Moe,
    "llama": Llama,
    "mistral3": Mistral3,
    "olmo2": Olmo2,
    "phi3": Phi3,
    "qwen2": Qwen2,
    "qwen3": Qwen3,
    "qwen35": Qwen35,
    "qwen35moe": Qwen35Moe,
    "qwen3moe": Qwen3Moe,
    "qwen3vl": Qwen3VL,
    "smollm3": SmolLM3,
    "starcoder2": StarCoder2,
}


def naming_of(architecture: str) -> Naming:
    """How Hugging Face's files name what an architecture reads."""
    naming: Naming = architectures[architecture].hub  # type: ignore[attr-defined]  # of the class
    return naming


def build_graph(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[int, int]],
    head_multiple: int = 8,
    tables: Mapping[str, Sequence[float]] | None = None,
    reordered: bool = True,
) -> Graph:
    """The graph of a model file.

    Args:
        metadata: GGUF keys and values.
        tensors: name -> (rows, cols).
        tables, reordered: see ``Header``.
        head_multiple: pages hold heads of K and V filled up to a multiple of this, itself one of 8.

    Raises:
        ModelFormatError: the architecture is not supported, a key is missing or makes no sense, a key or tensor asks
            for what the graph does not do, or the file is no model.
    """
    refuse_other_kinds(metadata)
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in architectures:
        raise ModelFormatError(f"general.architecture: expected one of {', '.join(architectures)}, found {name!r}")
    header = Header(name, metadata, tensors, head_multiple, tables, reordered)
    model = architectures[name](header)
    refuse_keys(header)
    graph = Graph()
    model.build(graph)
    graph.verify()
    refuse_tensors(header, graph)
    return graph
