"""What is asked of an engine; each is one file. It runs in a worker's process, and imports that engine alone."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]

SEED_TOKENS = 2048  # computed for a long history; what is behind them is their K/V over again
CHUNK_TOKENS = 512  # prompts go in steps of this, with every engine


@dataclass(frozen=True)
class Setup:
    """What is opened: a model's file, and so many histories of so many tokens, with room for more behind them."""

    path: str
    kv: str = "f16"
    depth: int = 0
    threads: int = 1
    sequences: int = 1
    room: int = 640
    n_ctx: int = 0  # tokens that a context is made for, where an engine makes it so; 0: what is needed
    flash_attention: bool = True  # of llama.cpp
    gpu: bool = False
    whole: bool = False  # histories are computed to their end: a state can't be had out of a shorter one's

    @property
    def computed(self) -> int:
        """Tokens of a history that are computed."""
        return self.depth if self.whole else min(self.depth, SEED_TOKENS)

    @property
    def context(self) -> int:
        """Tokens of one history."""
        return self.n_ctx or self.depth + self.room


class Engine(Protocol):
    def versions(self) -> dict[str, str]: ...

    def open(self, setup: Setup) -> str:
        """How the histories came about, in words. What was open is closed; a model stays loaded for the same setup."""

    def forward(self, ids: Ids) -> None:
        """The first history goes on by these tokens; the last one's logits are computed."""

    def step(self, ids: Ids) -> None:
        """Each history goes on by one token, [sequences]; each one's logits are computed."""

    def generate(self, n: int) -> None:
        """Each history goes on by so many tokens, one after the other, as fast as the engine has them."""

    def rewind(self) -> None:
        """Each history is again what was opened."""

    def first_token(self, text: str) -> None:
        """Tokenises a prompt and computes the most likely token behind it."""


def load(name: str, folder: Path) -> Engine:
    module: Any = importlib.import_module(f"bench.peers.engines.{name}")
    engine: Engine = module.Engine(folder)
    return engine


def random_ids(n: int, seed: int) -> Ids:
    return np.random.default_rng(seed).integers(300, 1000, n, dtype=np.int32)
