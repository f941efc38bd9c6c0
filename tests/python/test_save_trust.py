"""What a restore believes: its own copy of a page, a model of the same weights, and no figure of the file."""

from __future__ import annotations

import gc
import importlib
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import families
import numpy as np
import pytest
import synthetic
from foundry import CompiledModel, ModelFormatError

FUZZER = Path(__file__).resolve().parent.parent / "fuzz" / "forged_saves.py"
sys.path.insert(0, str(FUZZER.parent))
forged_saves = importlib.import_module("forged_saves")
IDS = [int(i) for i in np.random.default_rng(7).integers(0, 256, 400)]
HEADER = 16384


def load(path: Path) -> CompiledModel:
    return CompiledModel.load(path, threads=1, page_tokens=8)


def test_a_page_that_changes_while_it_is_read_is_never_accepted(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    """Another thread writes the file in place all the while: what is accepted is what was saved, to the bit."""
    shape = {"heads": 8, "kv_heads": 8, "head_dim": 64, "layers": 4}  # a page of 4 MiB: reading it takes a while
    model = CompiledModel.load(tiny_path(**shape), threads=1, page_tokens=256, kv_dtype="f32")
    file, again = tmp_path / "chat.kv", tmp_path / "again.kv"
    with model.session() as s:
        s.forward((IDS * 2)[:256])
        s.save(file)
    whole, stop = file.read_bytes(), threading.Event()
    last = len(whole) - 1  # of the page
    good, bad = whole[last:], bytes([whole[last] ^ 1])

    def write() -> None:
        descriptor = os.open(file, os.O_RDWR)
        while not stop.is_set():
            for value in (bad, good):
                os.pwrite(descriptor, value, last)
                time.sleep(0.0002)
        os.close(descriptor)

    accepted = refused = 0
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(60):
            with model.restore(file) as t:
                try:
                    t.save(again)
                except ModelFormatError as error:
                    assert "page 0 is damaged" in str(error)
                    refused += 1
                else:
                    assert again.read_bytes() == whole
                    accepted += 1
    finally:
        stop.set()
        writer.join()
    assert accepted and refused


def test_a_file_cut_short_under_a_restored_session(tiny: CompiledModel, tmp_path: Path) -> None:
    file = tmp_path / "chat.kv"
    with tiny.session() as s, tiny.session() as fresh:
        s.forward(IDS[:60])
        s.save(file)
        page = s.globals["page_bytes"]
        with tiny.restore(file) as t:
            os.truncate(file, HEADER + 2 * page + 10)
            for call in (lambda: t.forward([1]), t.fork, lambda: t.save(tmp_path / "x.kv")):
                with pytest.raises(ModelFormatError) as error:
                    call()
                expected = f"page 2 is cut short: expected {page} bytes at byte {HEADER + 2 * page}, found 10"
                assert expected in str(error.value) and "tokens from 16 on are lost" in str(error.value)
                assert t.position == 60
            t.rewind(16)
            assert np.array_equal(t.forward([1, 2]), fresh.forward([*IDS[:16], 1, 2]))
        with tiny.session() as other:
            other.forward(IDS[:60])
            other.save(file)
        with tiny.restore(file) as t:
            os.truncate(file, 0)
            with pytest.raises(ModelFormatError, match=r"page 0 is cut short: .* found 0"):
                t.forward([1])
            t.rewind(0)
            fresh.rewind(0)
            assert np.array_equal(t.forward([1, 2]), fresh.forward([1, 2]))


def test_a_restored_session_goes_on_from_the_file_that_it_opened(tiny: CompiledModel, tmp_path: Path) -> None:
    """It keeps that file open until its pages are read, and no longer."""

    def held() -> int:
        gc.collect()
        links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        return sum("chat.kv" in link for link in links)

    file = tmp_path / "chat.kv"
    with tiny.session() as s, tiny.session() as fresh:
        s.forward(IDS[:60])
        s.save(file)
        with tiny.restore(file) as t, tiny.restore(file) as unread:
            file.unlink()
            file.write_bytes(b"another")
            if os.path.isdir("/proc/self/fd"):
                assert held() == 2
            assert np.array_equal(t.forward([1]), fresh.forward([*IDS[:60], 1]))
            if os.path.isdir("/proc/self/fd"):
                assert held() == 1
                unread.close()
                assert held() == 0


def weights_of(path: Path, name: str) -> tuple[int, int]:
    """Where a tensor's bytes lie in the file."""
    import gguf

    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == name)
    return int(tensor.data_offset), int(tensor.n_bytes)


@pytest.mark.parametrize("tensor", ["token_embd.weight", "blk.1.ffn_down.weight", "output_norm.weight"])
def test_a_save_of_other_weights_is_refused_wherever_they_differ(
    tiny_path: Callable[..., Path], tmp_path: Path, tensor: str
) -> None:
    """One bit of one byte, at every place of a tensor's many, is another model."""
    path, file = tmp_path / "model.gguf", tmp_path / "chat.kv"
    shutil.copy(tiny_path(), path)
    with load(path).session() as s:
        s.forward(IDS[:20])
        s.save(file)
    whole = path.read_bytes()
    begin, size = weights_of(path, tensor)
    for at in np.random.default_rng(1).integers(begin, begin + size, 12):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ModelFormatError, match="saved with another model"):
            load(path).restore(file)
    path.write_bytes(whole)
    with load(path).restore(file) as t:
        assert t.position == 20


def test_weights_changed_in_place_with_size_and_time_set_back(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    """A hash that was kept is not taken for that of other bytes."""
    path, file = tmp_path / "model.gguf", tmp_path / "chat.kv"
    shutil.copy(tiny_path(), path)
    before = path.stat()
    with load(path).session() as s:
        s.forward(IDS[:20])
        s.save(file)
    begin, size = weights_of(path, "blk.0.attn_q.weight")
    with path.open("r+b") as model:
        model.seek(begin)
        values = model.read(size)
        model.seek(begin)
        model.write(bytes(b ^ 4 for b in values))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    with pytest.raises(ModelFormatError, match="saved with another model"):
        load(path).restore(file)


def test_a_model_file_written_to_since_it_was_loaded(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    """Its weights in use can't be told any more: nothing is saved under a wrong name, and a rename is no change."""
    path, moved, file = tmp_path / "model.gguf", tmp_path / "moved.gguf", tmp_path / "chat.kv"
    shutil.copy(tiny_path(), path)
    model = load(path)
    with model.session() as s:
        s.forward(IDS[:20])
        path.rename(moved)
        moved.chmod(0o400)
        s.save(file)
        saved = file.read_bytes()
        moved.chmod(0o600)
        begin, _ = weights_of(moved, "output_norm.weight")
        with moved.open("r+b") as raw:
            raw.seek(begin + 100)
            raw.write(b"\0")
        for call in (lambda: s.save(file), lambda: model.restore(file)):
            with pytest.raises(ModelFormatError, match=r"model\.gguf: was written to since it was loaded"):
                call()
        assert file.read_bytes() == saved
        assert s.forward([1]).shape == (synthetic.VOCAB,)  # the session itself goes on


@pytest.mark.parametrize("version", ["1", "2", "3"])
def test_a_version_that_is_not_read_any_more(tiny: CompiledModel, tmp_path: Path, version: str) -> None:
    file = tmp_path / "chat.kv"
    with tiny.session() as s:
        s.save(file)
    data = file.read_bytes()
    file.write_bytes(data[:7] + version.encode() + data[8:])
    with pytest.raises(ModelFormatError, match=f"a saved session of version 4, found one of version {version}"):
        tiny.restore(file)


REFUSALS = {
    "magic": "another file",
    "header bytes": "header: expected at most",
    "fingerprint": "another model",
    "name length": "device: expected",
    "tokens": "a token outside the vocabulary",  # what was a checksum
    "groups": "layer groups: expected 2, found 3",
    "page bytes": "page bytes: expected 2048, found",
    "first page": "first page: expected|pages: expected",
    "pages": "pages: expected",
}


def test_every_figure_is_compared_before_it_is_used(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    """Each alone is changed, and the header's checksum made anew."""
    model, file = load(tiny_path(arch="gemma3", layers=3, window=24)), tmp_path / "chat.kv"
    with model.session() as s:
        s.forward(IDS[:100])
        s.save(file)
    whole = file.read_bytes()
    layout = forged_saves.layout_of(whole)
    assert len(layout.figures) == 6 + 2 * 11
    for name, at, code in layout.figures:
        expected = REFUSALS.get(name.split(" of group")[0], "layout: expected .* layers, .*, found .* layers, ")
        expected = expected.replace("2048", str(layout.values.get(name)))
        for value in {1, layout.values[name] + 1, (1 << 8 * struct.calcsize(code)) - 1} - {layout.values[name]}:
            data = bytearray(whole)
            struct.pack_into("<" + code, data, at, value)
            forged_saves.signed(data, layout.header)
            file.write_bytes(data)
            with pytest.raises(ModelFormatError, match=r"chat\.kv: ") as error:
                model.restore(file)
            if value == layout.values[name] + 1:
                assert re.search(expected, str(error.value)), (name, error.value)
    assert model.memory()["kv"] == 0 and model.memory()["promised"] == 0


OF_STATES = {
    "recurrent layers": "recurrent layers: expected 3, found",
    "state bytes": "bytes of a state: expected",
    "states": "a state's position: expected|a turn's end behind|states: expected at most",
    "position": "a state's position: expected whole pages behind",
    "turn": "a turn's end behind the state at .*: expected 0( or 1)?, found",
}


def test_every_figure_of_states_is_compared_before_it_is_used(tmp_path: Path) -> None:
    """Where they are, and whether a turn ended behind them; a mark that there might have been is taken as it is."""
    path = families.write(tmp_path / "m.gguf", families.FAMILIES["lfm2"], {"context_length": 512})
    model, file = load(path), tmp_path / "chat.kv"
    with model.session() as s:
        s.forward(IDS[:50])
        s.generate(IDS[50:100], 1)  # a turn ended before it, and this is another's end
        s.save(file)
    whole = file.read_bytes()
    layout = forged_saves.layout_of(whole, recurrent=True)
    marks = {layout.values[f"position {i}"]: layout.values[f"turn {i}"] for i in range(layout.values["states"])}
    assert marks == {to: int(to in (48, 96)) for to in [*range(8, 100, 8), 100]}
    refused = dict.fromkeys(OF_STATES, 0)
    for name, at, code in layout.figures:
        if (of := name.rstrip("0123456789 ")) not in OF_STATES:
            continue
        for value in {2, layout.values[name] + 1, (1 << 8 * struct.calcsize(code)) - 1} - {layout.values[name]}:
            data = bytearray(whole)
            struct.pack_into("<" + code, data, at, value)
            forged_saves.signed(data, layout.header)
            file.write_bytes(data)
            if of == "turn" and value == 1 and name != f"turn {len(marks) - 1}":
                model.restore(file).close()
                continue
            with pytest.raises(ModelFormatError, match=OF_STATES[of]):
                model.restore(file)
            refused[of] += 1
    assert min(refused.values()) > 0 and refused["turn"] >= 2 * len(marks)
    assert model.memory()["kv"] == 0 and model.memory()["promised"] == 0


@pytest.mark.parametrize("count", [150])  # CI's fuzz stage has 3,000
def test_forged_saves_are_refused_or_are_histories(count: int) -> None:
    found = subprocess.run(
        [sys.executable, str(FUZZER), str(count), "7"], stdout=subprocess.PIPE, text=True, timeout=600
    )
    print(found.stdout)
    assert found.returncode == 0, found.stdout
    assert f"{count} forged saves" in found.stdout and "0 crashes, 0 other errors" in found.stdout
