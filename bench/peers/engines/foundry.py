"""Foundry: sessions on pages. Several step together by ``CompiledModel.forward``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import foundry

from bench.peers.engines import SEED_TOKENS, Ids, Setup, random_ids
from bench.peers.tiling import tile_saved


class Engine:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sessions: list[foundry.Session] = []
        self._model: Any = None
        self._loaded: tuple[str, str, int] | None = None

    def versions(self) -> dict[str, str]:
        return {"foundry": foundry.__version__}

    def open(self, setup: Setup) -> str:
        for session in self._sessions:
            session.close()
        wanted = (setup.path, setup.kv, setup.threads)
        if self._loaded != wanted:
            self._sessions, self._model = [], None  # two models at once might not fit
            self._model = foundry.CompiledModel.load(setup.path, threads=setup.threads, kv_dtype=setup.kv)
            self._loaded = wanted
        self._depth = setup.depth
        if setup.depth == 0:
            self._sessions = [self._model.session(0, setup.context) for _ in range(setup.sequences)]
            return "empty"
        computed = min(setup.depth, SEED_TOKENS)
        first = self._model.session(computed, setup.room)
        first.forward(random_ids(computed, 1))
        if setup.depth == computed and setup.sequences == 1:
            self._sessions = [first]
            return "computed"
        saved, tiled = self._folder / "foundry.kv", self._folder / "foundry-tiled.kv"
        first.save(saved)
        first.close()
        tile_saved(saved, tiled, setup.depth)
        self._sessions = [self._model.restore(tiled, setup.room) for _ in range(setup.sequences)]
        for session in self._sessions:  # which reads the pages
            session.forward(random_ids(1, 2))
            session.rewind(setup.depth)
        return "restored" if setup.depth == computed else f"tiled from {computed:,}"

    def forward(self, ids: Ids) -> None:
        self._sessions[0].forward(ids)

    def step(self, ids: Ids) -> None:
        if len(self._sessions) == 1:
            self._sessions[0].forward(ids)
        else:
            self._model.forward([(session, ids[i : i + 1]) for i, session in enumerate(self._sessions)])

    def rewind(self) -> None:
        for session in self._sessions:
            session.rewind(self._depth)

    def first_token(self, text: str) -> None:
        self._sessions[0].generate(text, 1, temperature=0.0, ignore_eos=True)
