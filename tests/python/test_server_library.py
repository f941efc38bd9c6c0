"""Several models within one limit: loaded when they are asked for, dropped when idle or when another needs the room."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import pytest
from conftest import Tiny, room_of
from foundry import CompiledModel, SamplingParams
from foundry.server.engine import Engine
from foundry.server.library import Library
from foundry.server.metrics import Metrics
from foundry.server.refusals import Refusal
from foundry.server.run import Work
from foundry.server.settings import Settings


def load(path: Path, limit: int) -> CompiledModel:
    return CompiledModel.load(path, threads=1, page_tokens=8, memory_limit=limit)


@pytest.fixture
def folder(tiny_path: Tiny, tmp_path: Path) -> Path:
    for seed, name in enumerate("abc", 1):
        (tmp_path / f"{name}.gguf").symlink_to(tiny_path(seed=seed))
    return tmp_path


TABLES = 64 << 10  # room for page tables and histories


def of_models(folder: Path, models: float, settings: Settings | None = None) -> Library:
    """A library whose limit holds so many of them."""
    probe = load(folder / "a.gguf", 1 << 30)
    one = room_of(probe) + probe.plan(1, 500).kv + TABLES
    library = Library([], settings or Settings(), Metrics(), load, int(models * one))
    library.shelve(folder)
    return library


def loaded(library: Library) -> list[str]:
    return [one["id"] for one in library.about() if one["loaded"]]


def test_a_model_is_loaded_when_it_is_asked_for_and_gives_way_to_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foundry.server.library._FRESH_S", 0.0)

    async def main() -> None:
        library = of_models(folder, 1.5)
        assert loaded(library) == []
        assert [one["max_model_len"] for one in library.about()] == [512] * 3
        first = weakref.ref((await library.engine("a")).model)
        assert loaded(library) == ["a"]
        await library.engine("b")
        gc.collect()
        assert loaded(library) == ["b"]
        assert first() is None

    asyncio.run(main())


def test_models_that_fit_beside_each_other_stay(folder: Path) -> None:
    async def main() -> None:
        library = of_models(folder, 8)
        engines = [await library.engine(name) for name in "abc"]
        assert loaded(library) == ["a", "b", "c"]
        limits = [engine.model.memory()["limit"] for engine in engines]
        assert limits[0] // 2 - limits[1] in (0, 1)  # half of what was left
        assert limits[1] // 2 - limits[2] in (0, 1)

    asyncio.run(main())


def test_one_that_is_in_use_stays_and_the_other_is_refused_with_figures(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foundry.server.library._FRESH_S", 0.0)

    async def main() -> None:
        library = of_models(folder, 1.5)
        engine = await library.engine("a")
        params = SamplingParams(ignore_eos=True)
        run = await engine.start(Work([1, 2, 3], 400, params))
        with pytest.raises(Refusal) as refused:
            await library.engine("b")
        assert (refused.value.status, refused.value.code) == (503, "memory_limit")
        assert loaded(library) == ["a"]
        await run.stop()
        await library.engine("b")
        assert loaded(library) == ["b"]

    asyncio.run(main())


def test_a_pinned_one_stays_and_an_idle_one_goes(tiny_path: Tiny, folder: Path) -> None:
    async def main() -> None:
        settings, metrics = Settings(idle_unload_seconds=0.2), Metrics()
        pinned = Engine("pinned", load(tiny_path(), 64 << 20), settings, metrics)
        library = Library([pinned], settings, metrics, load, 256 << 20)
        library.shelve(folder)
        dropping = asyncio.ensure_future(library.drop_idle())
        await library.engine("a")
        assert loaded(library) == ["pinned", "a"]
        for _ in range(100):
            if loaded(library) == ["pinned"]:
                break
            await asyncio.sleep(0.05)
        assert loaded(library) == ["pinned"]
        await library.engine("a")  # and comes again
        dropping.cancel()

    asyncio.run(main())


def test_two_who_ask_for_a_model_get_the_same(folder: Path) -> None:
    async def main() -> None:
        library = of_models(folder, 4)
        first, second = await asyncio.gather(library.engine("a"), library.engine("a"))
        assert first is second

    asyncio.run(main())
