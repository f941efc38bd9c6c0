"""Opens whatever a model is kept in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foundry import _core
from foundry.files import directory, sentence_transformers, split
from foundry.models.pooling import key_of

Tensors = Mapping[str, tuple[str, tuple[int, int], int]]


@dataclass(frozen=True)
class ModelFiles:
    """Files of a model, opened and checked.

    Attributes:
        kind: "GGUF version 3", "GGUF version 3 in 2 parts", "Hugging Face directory"; also what is left out of one.
        weights: all tensors, for the core.
        metadata: GGUF's keys and values.
        tensors: name -> (type, (rows, cols), bytes), as GGUF names them.
        version: of GGUF.
        folder: where tokenizer.json is; None of GGUF files, whose metadata has the tokenizer.
        tables, reordered: see ``models.header.Header``.
        normalises: embeddings are made 1 long where the caller does not say.
        makes_text: there are weights for logits.
    """

    kind: str
    weights: _core.WeightSource
    metadata: Mapping[str, Any]
    tensors: Tensors = field(repr=False)
    version: int | None = None
    folder: str | None = None
    tables: Mapping[str, Sequence[float]] = field(default_factory=dict)
    reordered: bool = True
    normalises: bool = True
    makes_text: bool = True

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        return {name: shape for name, (_, shape, _) in self.tensors.items()}


def open_model(path: str, header_only: bool = False) -> ModelFiles:
    """The model that a GGUF file is, or a part of; or that a directory in Hugging Face's form is.

    Args:
        path: the file, any part of a split model, or the directory.
        header_only: for plans: weights have no bytes, and it takes as long for a file of any size.

    Raises:
        OSError: the system refused to open or read it.
        ModelFormatError: it is damaged, or its parts are not those of one model.
    """
    if os.path.isdir(path):
        return _directory(path, header_only)
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


def _directory(path: str, header_only: bool) -> ModelFiles:
    config = directory.read_config(path)
    modules = sentence_transformers.read_modules(path)
    weights, tensors, n_of_images = directory.open_weights(path, config, header_only, modules is not None)
    left_out = f", without its {n_of_images} weights that see images" if n_of_images else ""
    metadata = {"general.name": os.path.basename(os.path.abspath(path)), **config.metadata}
    if modules is not None:
        metadata[key_of(metadata)] = modules.pooling
    return ModelFiles(
        f"Hugging Face directory{left_out}",
        weights,
        metadata,
        tensors,
        folder=path,
        tables=config.tables,
        reordered=False,
        normalises=modules is None or modules.normalises,
        makes_text=config.tied or "output.weight" in tensors,
    )
