"""Foundry: sessions on pages. Several step together by ``CompiledModel.forward``."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import foundry

from bench.peers.engines import Ids, Setup, random_ids
from bench.peers.tiling import tile_saved


class Engine:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sessions: list[foundry.Session] = []
        self._model: Any = None
        self._loaded: tuple[str, str, int, bool] | None = None

    def versions(self) -> dict[str, str]:
        return {"foundry": foundry.__version__}

    def open(self, setup: Setup) -> str:
        for session in self._sessions:
            session.close()
        wanted = (setup.path, setup.kv, setup.threads, setup.gpu)
        if self._loaded != wanted:
            self._sessions, self._model = [], None  # two models at once might not fit
            device = "cuda" if setup.gpu else "cpu"
            self._model = foundry.CompiledModel.load(
                setup.path, device=device, threads=setup.threads, kv_dtype=setup.kv
            )
            self._loaded = wanted
        self._depth = setup.depth
        if setup.depth == 0:
            self._sessions = [self._model.session(0, setup.context) for _ in range(setup.sequences)]
            return "empty"
        computed = setup.computed
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

    def generate(self, n: int) -> None:
        """The most likely tokens; on a GPU each is drawn there, and steps run ahead of the host."""
        greedy = foundry.SamplingParams(temperature=0.0)

        def run(session: foundry.Session) -> None:
            stream = session.begin(random_ids(1, 5), n, greedy, [])
            while stream.next()[1] is None:
                pass

        if len(self._sessions) == 1:
            return run(self._sessions[0])
        with ThreadPoolExecutor(len(self._sessions)) as pool:
            list(pool.map(run, self._sessions))

    def grow(self, growths: int, most: int = 4000) -> float:
        """A token that grows its session, over its neighbours: medians."""
        session, times, grew = self._sessions[0], [], []
        ids = random_ids(most, 6)
        while sum(grew) < growths and len(times) < most:
            pages, began = session.pages_added, time.perf_counter()
            session.forward(ids[len(times) : len(times) + 1])
            times.append(time.perf_counter() - began)
            grew.append(session.pages_added > pages)
        if not any(grew):
            raise RuntimeError(f"grow: expected a growth within {most} tokens, found none")
        at = [i for i, grown in enumerate(grew) if grown]
        beside = [times[j] for i in at for j in range(max(i - 4, 0), min(i + 5, len(times))) if not grew[j]]
        return statistics.median(times[i] for i in at) / statistics.median(beside)

    def rewind(self) -> None:
        for session in self._sessions:
            session.rewind(self._depth)

    def first_token(self, text: str) -> None:
        self._sessions[0].generate(text, 1, temperature=0.0, ignore_eos=True)
