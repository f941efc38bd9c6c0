"""The models of a server, by name."""

from __future__ import annotations

from typing import Any

from foundry.server.engine import Engine
from foundry.server.refusals import Refusal


class Library:
    """Models that are loaded."""

    def __init__(self, engines: list[Engine]) -> None:
        self._engines = {engine.name: engine for engine in engines}

    async def engine(self, name: str | None) -> Engine:
        """The model of that name; without one, the only model. Refusal with 404 where there is none."""
        if name is None and len(self._engines) == 1:
            return next(iter(self._engines.values()))
        found = self._engines.get(name or "")
        if found is None:
            raise unknown(name, list(self._engines))
        return found

    def about(self) -> list[dict[str, Any]]:
        return [engine.about() for engine in self._engines.values()]

    @property
    def engines(self) -> list[Engine]:
        return list(self._engines.values())

    def stop(self) -> None:
        for engine in self.engines:
            engine.stop()

    def end(self) -> None:
        for engine in self.engines:
            engine.end()


def unknown(name: str | None, known: list[str]) -> Refusal:
    return Refusal(404, f"model: expected one of {', '.join(known)}, found {name!r}", "model", "model_not_found")
