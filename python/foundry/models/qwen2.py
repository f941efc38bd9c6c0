"""Qwen2 and Qwen2.5 (arXiv:2407.10671): biases on Q, K and V, half-rotated rope."""

from __future__ import annotations

from foundry._core import Graph
from foundry.models import decoder
from foundry.models.hyperparameters import Hyperparameters


def build(graph: Graph, hp: Hyperparameters) -> None:
    decoder.build(graph, hp, rope_style=decoder.HALF_ROTATED)
