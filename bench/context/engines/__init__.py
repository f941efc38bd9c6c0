"""What the suite asks of an engine. Each adapter is one file; it uses the engine as its own documentation does."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Logits = npt.NDArray[np.float32]

CHUNK_TOKENS = 512  # prompts go in steps of this, with every engine

ENGINES = {  # the adapter's module, and the packages that it needs
    "foundry": ("foundry",),
    "llama_cpp": ("llama_cpp",),
    "transformers": ("transformers", "torch"),
    "mlx_lm": ("mlx_lm",),
}


class Context(Protocol):
    """One history and its K/V."""

    @property
    def position(self) -> int: ...

    def feed(self, ids: Ids) -> Logits:
        """Computes tokens, in steps of CHUNK_TOKENS; [vocab] of the last one."""

    def rewind(self, position: int) -> None:
        """Back to the first tokens, in the engine's way."""

    def fork(self) -> Context:
        """Another history with the same tokens, both to go on apart."""

    def save(self, path: Path) -> None: ...

    def load(self, path: Path) -> None:
        """What was saved, into this empty context."""

    def close(self) -> None: ...


class Engine(Protocol):
    """A loaded model. ``Engine(path, threads, dtype)``; dtype is for engines that run dequantised weights."""

    version: str
    weights: str  # the form in which they are computed with
    kv_dtype: str
    element_bytes: int  # of K and V
    grows_every: int  # tokens from one growth of the K/V to the next; 0: never
    regrows: bool  # rewinding gives memory back, so that it grows again
    computes_prompts: bool  # false where they'd take minutes: long ones are then filled with random K/V
    suffix: str  # of a saved history's file
    ways: dict[str, str]  # what is called to "fork", "rewind", "save"

    def open(self, n_tokens: int) -> Context:
        """A context made for so many tokens, where the engine lets one say."""

    def kv_bytes(self) -> int:
        """Of all open contexts together, by the engine's own account."""

    def update_seconds(self) -> float:
        """Spent in growing the K/V so far, where that can be seen from outside; else 0."""


def missing(name: str) -> list[str]:
    """The packages that this adapter needs and that are not installed."""
    return [package for package in ENGINES[name] if importlib.util.find_spec(package) is None]


def load(name: str, path: Path, threads: int, dtype: str) -> Engine:
    module = importlib.import_module(f"bench.context.engines.{name}")
    engine: Engine = module.Engine(path, threads, dtype)
    return engine


def fill(context: Context, engine: Engine, ids: Ids) -> None:
    """Tokens into a context, computed or, where that would take minutes, as random K/V by the cache's own path."""
    if engine.computes_prompts or ids.size <= CHUNK_TOKENS // 32:
        context.feed(ids)
    else:
        context.fill_random(ids.size)  # type: ignore[attr-defined]
