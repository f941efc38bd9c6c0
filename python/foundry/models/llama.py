"""Llama 2 and 3 (arXiv:2307.09288, arXiv:2407.21783), Mistral (arXiv:2310.06825), SmolLM2 (arXiv:2502.02737)."""

from __future__ import annotations

from foundry._core import Graph
from foundry.models import decoder
from foundry.models.hyperparameters import Hyperparameters


def build(graph: Graph, hp: Hyperparameters) -> None:
    decoder.build(graph, hp, rope_style=decoder.INTERLEAVED)
