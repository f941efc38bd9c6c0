"""Opens whatever a model is kept in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from foundry import _core
from foundry.files import split

Tensors = Mapping[str, tuple[str, tuple[int, int], int]]


@dataclass(frozen=True)
class ModelFiles:
    """Files of a model, opened and checked.

    Attributes:
        kind: "GGUF version 3", "GGUF version 3 in 2 parts".
        weights: all tensors, for the core.
        metadata: GGUF's keys and values.
        tensors: name -> (type, (rows, cols), bytes), as GGUF names them.
        version: of GGUF.
    """

    kind: str
    weights: _core.WeightSource
    metadata: Mapping[str, Any]
    tensors: Tensors = field(repr=False)
    version: int | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        return {name: shape for name, (_, shape, _) in self.tensors.items()}


def open_model(path: str, header_only: bool = False) -> ModelFiles:
    """The model that a GGUF file is, or a part of.

    Args:
        path: the file; any part of a split model.
        header_only: for plans: weights have no bytes, and it takes as long for a file of any size.

    Raises:
        OSError: the system refused to open or read it.
        ModelFormatError: it is damaged, or its parts are not those of one model.
    """
    file = _core.GgufFile(path, header_only)
    parts = split.parts_of(file, header_only)
    kind = f"GGUF version {file.version}"
    if len(parts) == 1:
        return ModelFiles(kind, file, file.metadata, file.tensors, file.version)
    weights = _core.JoinedFiles(parts)  # it refuses a tensor that is in two of them
    tensors = {name: about for part in parts for name, about in part.tensors.items()}
    return ModelFiles(
        f"{kind} in {len(parts)} parts", weights, split.without_keys(parts[0].metadata), tensors, file.version
    )
