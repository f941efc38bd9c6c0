"""Runs language models from local files, with context memory done right."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foundry.capacity import CapacityDecision, CapacityPolicy
    from foundry.errors import (
        CancelledError,
        ConsistencyError,
        ContextOverflowError,
        ForkedError,
        FoundryError,
        MemoryLimitError,
        ModelFormatError,
        NumericError,
    )
    from foundry.generate import Completion, Piece, TokenLogprobs
    from foundry.hardware import Device, devices
    from foundry.hub import pull
    from foundry.memory import MemoryPlan
    from foundry.model import CompiledModel
    from foundry.sampling import SamplingParams
    from foundry.session import Session

    __version__: str

__all__ = [
    "CancelledError",
    "CapacityDecision",
    "CapacityPolicy",
    "CompiledModel",
    "Completion",
    "ConsistencyError",
    "ContextOverflowError",
    "Device",
    "ForkedError",
    "FoundryError",
    "MemoryLimitError",
    "MemoryPlan",
    "ModelFormatError",
    "NumericError",
    "Piece",
    "SamplingParams",
    "Session",
    "TokenLogprobs",
    "devices",
    "pull",
]

# Modules load when a name of theirs is first used: the command line answers --help and Ctrl-C at once.
_MODULES = ("errors", "capacity", "generate", "hardware", "hub", "memory", "model", "sampling", "session")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in __all__:
        modules = (import_module(f"foundry.{module}") for module in _MODULES)
        value = next(getattr(module, name) for module in modules if hasattr(module, name))
    elif name in _MODULES:  # foundry.hub, and no import of it said
        value = import_module(f"foundry.{name}")
    else:
        raise AttributeError(f"module 'foundry' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("foundry-llm")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0"
