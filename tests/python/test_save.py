"""Save and restore: the same bits go on, the file is whole or absent, and what is wrong with one is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import room_of
from foundry import CompiledModel, MemoryLimitError, ModelFormatError

IDS = [int(i) for i in np.random.default_rng(7).integers(0, 256, 400)]
HEADER = 16384


@pytest.mark.parametrize("n", [0, 1, 8, 100, 512])
@pytest.mark.parametrize("kv_dtype", ["f16", ("f32", "bf16")])
def test_what_is_restored_goes_on_with_the_same_bits(
    tiny_path: Callable[..., Path], tmp_path: Path, n: int, kv_dtype: str
) -> None:
    model = CompiledModel.load(tiny_path(), threads=1, page_tokens=8, kv_dtype=kv_dtype, check_every_step=True)
    ids = (IDS * 2)[:n]
    file = tmp_path / "chat.kv"
    with model.session() as s:
        if n:
            s.forward(ids)
        s.save(file)
        again = CompiledModel.load(tiny_path(), threads=2, page_tokens=8, kv_dtype=kv_dtype, check_every_step=True)
        with again.restore(file) as t:
            assert (t.position, list(t.token_ids), t.kv_bytes) == (n, ids, s.kv_bytes)
            t.save(tmp_path / "again.kv")
            assert (tmp_path / "again.kv").read_bytes() == file.read_bytes()
            if n < 512:
                assert np.array_equal(t.forward([5, 6]), s.forward([5, 6]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.kv", "chat.kv"]


def test_rewound_scored_and_forked_before_anything_was_read(tiny: CompiledModel, tmp_path: Path) -> None:
    file = tmp_path / "chat.kv"
    with tiny.session() as s:
        s.forward(IDS[:97])
        s.save(file)
    with tiny.session() as fresh:
        fresh.forward(IDS[:97])
        with tiny.restore(file) as t:
            assert np.array_equal(t.score(IDS[200:210]), fresh.score(IDS[200:210]))
        fresh.rewind(97)
        with tiny.restore(file) as t, t.fork() as u:
            assert np.array_equal(u.forward([9]), fresh.forward([9]))
        fresh.rewind(40)
        with tiny.restore(file) as t:
            t.rewind(40)
            assert np.array_equal(t.forward([9]), fresh.forward([9]))
        fresh.rewind(40)
        with tiny.restore(file) as t, tiny.session() as other:
            t.rewind(40)
            assert np.array_equal(tiny.forward([(other, [1]), (t, [9])])[1], fresh.forward([9]))


def test_a_file_tells_nothing_of_other_histories(tiny: CompiledModel, tmp_path: Path) -> None:
    """Pages come back with what was in them; what lies behind the last token must not get into a file."""
    with tiny.session() as keeper:
        keeper.forward([1])  # keeps the slab
        with tiny.session() as s:
            s.forward(IDS[:8])
        with tiny.session() as s:
            s.forward(IDS[8:11])
            s.save(tmp_path / "a.kv")
    fresh = tiny.session()
    fresh.forward(IDS[8:11])
    fresh.save(tmp_path / "b.kv")
    assert (tmp_path / "a.kv").read_bytes() == (tmp_path / "b.kv").read_bytes()


def test_other_models_and_layouts_are_refused(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    file = tmp_path / "chat.kv"
    with CompiledModel.load(tiny_path(), threads=1, page_tokens=8).session() as s:
        s.forward(IDS[:20])
        s.save(file)
    for path, arguments, named in [
        (tiny_path(seed=2), {}, "another model"),
        (tiny_path(rope_base=500000.0), {}, "another model"),
        (tiny_path(), {"page_tokens": 16}, "layout: expected .* pages of 16"),
        (tiny_path(), {"kv_dtype": ("f16", "f32")}, "layout: expected .* V in type 0"),
        (tiny_path(), {"device": "reference"}, "device: expected reference:scalar"),
    ]:
        model = CompiledModel.load(path, threads=1, **{"page_tokens": 8, **arguments})
        with pytest.raises(ModelFormatError, match=named):
            model.restore(file)
        assert model.memory()["kv"] == 0 and model.memory()["promised"] == 0


def test_every_truncation_and_every_damaged_byte_is_seen(tiny: CompiledModel, tmp_path: Path) -> None:
    file, bad = tmp_path / "chat.kv", tmp_path / "bad.kv"
    with tiny.session() as s:
        s.forward(IDS[:20])
        s.save(file)
        page = s.globals["page_bytes"]
    whole = file.read_bytes()
    assert len(whole) == HEADER + 3 * page
    for n in [*range(0, 200, 7), HEADER - 1, HEADER, HEADER + 1, HEADER + page, len(whole) - 1]:
        bad.write_bytes(whole[:n])
        with pytest.raises(ModelFormatError, match=r"bad\.kv"):
            tiny.restore(bad)
    bad.write_bytes(whole + b"\0")
    with pytest.raises(ModelFormatError, match=r"expected .* bytes, found"):
        tiny.restore(bad)
    for at in [*range(0, 400), *range(400, HEADER, 97)]:
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :])
        with pytest.raises(ModelFormatError, match=r"bad\.kv"):
            tiny.restore(bad)
    assert tiny.memory()["kv"] == 0 and tiny.memory()["promised"] == 0


def test_a_damaged_page_is_found_by_the_first_step_and_the_rest_is_saved(tiny: CompiledModel, tmp_path: Path) -> None:
    file = tmp_path / "chat.kv"
    with tiny.session() as s, tiny.session() as fresh:
        s.forward(IDS[:60])
        s.save(file)
        data = bytearray(file.read_bytes())
        data[HEADER + 3 * s.globals["page_bytes"] + 100] ^= 1
        file.write_bytes(data)
        with tiny.restore(file) as t:
            for call in (lambda: t.forward([1]), lambda: t.score([1]), t.fork, lambda: t.save(tmp_path / "x.kv")):
                with pytest.raises(ModelFormatError, match=r"page 3 is damaged.*tokens from 24 on"):
                    call()
                assert (t.position, t.capacity) == (60, 64)
            assert not (tmp_path / "x.kv").exists()
            t.rewind(24)
            assert np.array_equal(t.forward([1, 2]), fresh.forward([*IDS[:24], 1, 2]))


def test_what_can_not_be_written_or_read(tiny: CompiledModel, tmp_path: Path) -> None:
    with tiny.session() as s:
        s.forward(IDS[:20])
        with pytest.raises(FileNotFoundError, match=r"cannot be written: .*chat\.kv") as error:
            s.save(tmp_path / "no" / "chat.kv")
        assert error.value.filename == str(tmp_path / "no" / "chat.kv")
        folder = tmp_path / "folder"
        folder.mkdir()
        with pytest.raises(IsADirectoryError, match="expected a file's name, found a folder"):
            s.save(folder)
        assert [p.name for p in tmp_path.iterdir()] == ["folder"]
        with pytest.raises(OSError):
            s.save("/dev/full/chat.kv")
    with pytest.raises(FileNotFoundError):
        tiny.restore(tmp_path / "chat.kv")
    with pytest.raises(ModelFormatError, match="regular file"):
        tiny.restore(folder)


def test_a_history_that_does_not_fit_is_refused(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    path, file = tiny_path(), tmp_path / "chat.kv"
    model = CompiledModel.load(path, threads=1, page_tokens=8)
    with model.session() as s:
        s.forward(IDS[:100])
        s.save(file)
    small = CompiledModel.load(path, threads=1, page_tokens=8, memory_limit=room_of(model) + 100)
    with pytest.raises(MemoryLimitError):
        small.restore(file)
    assert small.memory()["promised"] == 0


def test_saving_over_a_file_that_a_session_still_reads(tiny: CompiledModel, tmp_path: Path) -> None:
    file = tmp_path / "chat.kv"
    with tiny.session() as s, tiny.session() as fresh:
        s.forward(IDS[:60])
        s.save(file)
        with tiny.restore(file) as t:
            s.forward(IDS[60:90])
            s.save(file)
            assert np.array_equal(t.forward([1]), fresh.forward([*IDS[:60], 1]))
        with tiny.restore(file) as t:
            assert t.position == 90
        os.remove(file)
