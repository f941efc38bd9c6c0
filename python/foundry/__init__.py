"""Runs language models from local files, with context memory done right."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from foundry.capacity import CapacityDecision, CapacityPolicy
from foundry.errors import (
    CancelledError,
    ConsistencyError,
    ContextOverflowError,
    FoundryError,
    MemoryLimitError,
    ModelFormatError,
)
from foundry.generate import Completion, Piece, SamplingParams
from foundry.hub import pull
from foundry.memory import MemoryPlan
from foundry.model import CompiledModel
from foundry.session import Session

try:
    __version__ = version("foundry-llm")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0"

__all__ = [
    "CancelledError",
    "CapacityDecision",
    "CapacityPolicy",
    "CompiledModel",
    "Completion",
    "ConsistencyError",
    "ContextOverflowError",
    "FoundryError",
    "MemoryLimitError",
    "MemoryPlan",
    "ModelFormatError",
    "Piece",
    "SamplingParams",
    "Session",
    "pull",
]
