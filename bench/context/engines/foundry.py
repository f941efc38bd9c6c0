"""Foundry: sessions on pages."""

from __future__ import annotations

from pathlib import Path

import foundry

from bench.context.engines import Ids, Logits


class Context:
    def __init__(self, session: foundry.Session) -> None:
        self.session = session

    @property
    def position(self) -> int:
        return self.session.position

    def feed(self, ids: Ids) -> Logits:
        return self.session.forward(ids)

    def rewind(self, position: int) -> None:
        self.session.rewind(position)

    def fork(self) -> Context:
        return Context(self.session.fork())

    def save(self, path: Path) -> None:
        self.session.save(path)

    def load(self, path: Path) -> None:
        self.session.close()
        self.session = self.session.model.restore(path)

    def close(self) -> None:
        self.session.close()


class Engine:
    version = foundry.__version__
    weights = "as in the file"
    kv_dtype, element_bytes = "f16", 2
    regrows, computes_prompts, suffix = True, True, ".kv"
    ways = {"fork": "fork", "rewind": "rewind", "save": "save, restore"}  # noqa: RUF012

    def __init__(self, path: Path, threads: int, dtype: str) -> None:
        self.model = foundry.CompiledModel.load(path, threads=threads, kv_dtype=self.kv_dtype)
        with self.model.session() as session:
            self.grows_every = session.globals["page_tokens"]

    def open(self, n_tokens: int) -> Context:
        return Context(self.model.session(0, n_tokens))  # promised, and held as it comes

    def kv_bytes(self) -> int:
        return self.model.memory()["kv"]

    def update_seconds(self) -> float:
        return 0.0
