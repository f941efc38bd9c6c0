"""The models of a server by name: some are pinned, others are loaded when they are asked for, within one limit.

A model that is loaded on demand is granted half of what no other has been granted, so that there is room for one more;
all of it where half is too little. Where that is too little too, those that nobody uses give way, the one unused for
longest first. What a model was granted comes back when it goes.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundry.errors import MemoryLimitError
from foundry.files import open_model
from foundry.model import CompiledModel
from foundry.server.engine import Engine
from foundry.server.metrics import Metrics
from foundry.server.refusals import Refusal
from foundry.server.settings import Settings

Loader = Callable[[Path, int], CompiledModel]  # within so many bytes
_FRESH_S = 1.0  # whoever asked for a model so lately may be about to begin


@dataclass
class _Book:
    """``engine`` is None while it is not loaded. ``granted``: bytes of the limit."""

    name: str
    path: Path | None = None
    engine: Engine | None = None
    granted: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Library:
    """Belongs to the event loop; models are loaded and dropped on threads."""

    def __init__(
        self,
        pinned: list[Engine],
        settings: Settings | None = None,
        metrics: Metrics | None = None,
        load: Loader | None = None,
        limit_bytes: int = 0,
    ) -> None:
        self._settings = settings or Settings()
        self._metrics = metrics or Metrics()
        self._load = load
        self._limit = limit_bytes
        self._books = {one.name: _Book(one.name, None, one, one.model.memory()["limit"]) for one in pinned}
        self._loading = asyncio.Lock()
        self._closed = False
        self.in_use: Callable[[Engine], bool] = lambda engine: False  # beside its answers: sessions that are held

    def shelve(self, folder: Path) -> None:
        """Its GGUF files, each under its own name, are loaded when they are asked for."""
        for path in sorted(folder.glob("*.gguf")):
            self._books.setdefault(path.stem, _Book(path.stem, path))

    async def engine(self, name: str | None) -> Engine:
        """The model of that name; without one, the only model. Refusal with 404 where there is none."""
        if name is None and len(self._books) == 1:
            name = next(iter(self._books))
        book = self._books.get(name or "")
        if book is None:
            raise unknown(name, list(self._books))
        if book.engine is None:
            async with book.lock:
                if book.engine is None:
                    book.engine = await self._loaded(book)
        book.engine.used = time.monotonic()
        return book.engine

    async def _loaded(self, book: _Book) -> Engine:
        async with self._loading:
            while True:
                left = self._limit - sum(one.granted for one in self._books.values())
                try:
                    return await self._made(book, left)
                except MemoryLimitError as error:
                    if not await self._dropped_one():
                        figures = {"needed_bytes": error.needed_bytes, "available_bytes": error.available_bytes}
                        message = f"{book.name} can't be loaded beside the models that are in use: {error}"
                        raise Refusal(503, message, "model", "memory_limit", figures, 10) from None

    async def _made(self, book: _Book, left: int) -> Engine:
        assert self._load is not None and book.path is not None
        for grant in (left // 2, left):
            if grant <= 0:
                continue
            try:
                model = await asyncio.to_thread(self._load, book.path, grant)
                plan = model.plan(1, min(self._settings.default_max_tokens, model.arch.max_seq_len - 1))
                if not plan.fits:  # it could answer nobody
                    raise MemoryLimitError(f"K/V: needed {plan.kv} bytes", plan.kv, plan.available)
                book.granted = grant
                return Engine(book.name, model, self._settings, self._metrics)
            except MemoryLimitError as error:
                short = error
        if left <= 1:
            raise MemoryLimitError("nothing is left of the memory limit", 0, max(left, 0))
        raise short

    async def _dropped_one(self) -> bool:
        """Of those that nobody uses, the one unused for longest."""
        idle = [book for book in self._books.values() if self._idle(book, _FRESH_S)]
        if not idle:
            return False
        await self._drop(min(idle, key=lambda book: book.engine.used if book.engine else 0.0))
        return True

    def _idle(self, book: _Book, seconds: float) -> bool:
        engine = book.engine
        if engine is None or book.path is None or book.lock.locked():
            return False
        busy = engine.admission.running or engine.admission.waiting or self.in_use(engine)
        return not busy and time.monotonic() - engine.used >= seconds

    async def _drop(self, book: _Book) -> None:
        engine, book.engine, book.granted = book.engine, None, 0
        if engine is not None:
            engine.close()
        del engine
        await asyncio.to_thread(gc.collect)

    async def drop_idle(self) -> None:
        """Those that were loaded on demand and nobody has used for ``idle_unload_seconds`` go. Runs until cancelled."""
        most = self._settings.idle_unload_seconds
        while most is not None:
            await asyncio.sleep(min(1.0, most / 4))
            for book in self._books.values():
                if self._idle(book, most):
                    await self._drop(book)

    def about(self) -> list[dict[str, Any]]:
        return [book.engine.about() if book.engine else _about(book) for book in self._books.values()]

    @property
    def engines(self) -> list[Engine]:
        """Those that are loaded."""
        return [book.engine for book in self._books.values() if book.engine is not None]

    def stop(self) -> None:
        for engine in self.engines:
            engine.stop()

    def end(self) -> None:
        for engine in self.engines:
            engine.end()


def unknown(name: str | None, known: list[str]) -> Refusal:
    return Refusal(404, f"model: expected one of {', '.join(known)}, found {name!r}", "model", "model_not_found")


def _about(book: _Book) -> dict[str, Any]:
    """Of one that is not loaded, by its file."""
    assert book.path is not None
    metadata = open_model(str(book.path), header_only=True).metadata
    context = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    about = {"id": book.name, "object": "model", "created": int(book.path.stat().st_mtime), "owned_by": "foundry"}
    return about | {"max_model_len": context, "max_context": context, "loaded": False}
