"""The reader of safetensors beside the library that writes them: what one takes the other takes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from foundry import ModelFormatError, _core
from foundry.files.safetensors import read_table
from hf_directories import with_header

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(24, dtype=np.float16).reshape(2, 3, 4),
    "c": np.int64([7]),
    "d": np.array(3.5, np.float32),
    "é": np.ones(5, np.int8),
}
GOOD: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
}


def table(path: Path, data: bytes) -> dict[str, Any]:
    path.write_bytes(data)
    return read_table(_core.TensorFile(str(path)))


def test_the_table_is_the_librarys(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(TENSORS, path, {"any": "thing"})
    found = read_table(_core.TensorFile(str(path)))
    assert found.keys() == TENSORS.keys()
    data = path.read_bytes()
    for name, values in TENSORS.items():
        entry = found[name]
        assert data[entry.offset : entry.offset + entry.bytes] == values.tobytes()
        assert (entry.rows, entry.cols) == (values.size // (values.shape or (1,))[-1], (values.shape or (1,))[-1])
    assert read_table(_core.TensorFile(str(path), header_only=True)) == found


def changed(name: str, **fields: Any) -> dict[str, Any]:
    return {**GOOD, name: {**GOOD[name], **fields}}


DATA = bytes(32)
DAMAGED: list[tuple[bytes, str]] = [
    (b"", "found an empty one"),
    (b"1234567", r"length of the header: expected 2 to 2 bytes, found a file of 7"),
    ((1 << 63).to_bytes(8, "little") + b"{}", "length of the header: expected 2 to 2 bytes, found 92233720368"),
    (with_header(GOOD, DATA)[:60], "length of the header: expected 2 to 52 bytes"),
    (with_header(GOOD, DATA[:-1]), "expected 32 bytes of tensors behind the header, found 31"),
    (with_header(GOOD, DATA + b"x"), "expected 32 bytes of tensors behind the header, found 33"),
    (with_header(b"{x}", DATA), "header: expected JSON, found JSONDecodeError"),
    (with_header(b"\xff\xff", DATA), "header: expected JSON, found UnicodeDecodeError"),
    (with_header(b'{"\\ud800": 1}', DATA), "header: expected JSON, found UnicodeEncodeError"),
    (with_header(b"[" * 200_000, DATA), "header: expected JSON, found RecursionError"),
    (with_header([], DATA), "header: expected keys and values, found list"),
    (with_header(b'{"a": 1, "a": 2}', DATA), "the key 'a' twice"),
    (with_header({"a": 7}, DATA), "tensor 'a': expected dtype, shape and data_offsets, found 7"),
    (with_header({**GOOD, "b": {"dtype": "F16"}}, DATA), "tensor 'b': expected dtype, shape and data_offsets"),
    (with_header(changed("b", dtype="F99"), DATA), "tensor 'b': dtype: expected one of F64.*, found 'F99'"),
    (with_header(changed("b", dtype=[1]), DATA), "tensor 'b': dtype"),
    (with_header(changed("b", shape=[-4]), DATA), "tensor 'b': shape: expected up to 8 whole numbers"),
    (with_header(changed("b", shape=[4.0]), DATA), "tensor 'b': shape"),
    (with_header(changed("b", shape=[True]), DATA), "tensor 'b': shape"),
    (with_header(changed("b", shape=[1] * 99), DATA), "tensor 'b': shape"),
    (with_header(changed("b", shape=[5]), DATA), "tensor 'b': data_offsets: expected 10 bytes, F16 of .*, found 8"),
    (with_header(changed("b", shape=[1 << 61, 1 << 61]), DATA), "tensor 'b': data_offsets: expected 1063382396"),
    (with_header(changed("b", data_offsets=[32, 24]), DATA), "tensor 'b': data_offsets: expected begin and end"),
    (with_header(changed("b", data_offsets=[24]), DATA), "tensor 'b': data_offsets: expected begin and end"),
    (
        with_header(changed("b", data_offsets=[20, 28]), DATA),
        "tensor 'b': data_offsets: expected to begin at 24, .* 20",
    ),
    (
        with_header(changed("b", data_offsets=[26, 34]), DATA),
        "tensor 'b': data_offsets: expected to begin at 24, .* 26",
    ),
]


@pytest.mark.parametrize(("data", "said"), DAMAGED, ids=[said for _, said in DAMAGED])
def test_damage_is_told(tmp_path: Path, data: bytes, said: str) -> None:
    """And the library refuses it too."""
    with pytest.raises(ModelFormatError, match=said):
        table(tmp_path / "x.safetensors", data)
    with pytest.raises((safetensors.SafetensorError, UnicodeError, ValueError, OSError)):
        safetensors.deserialize(data)


def test_files_with_a_flipped_bit_are_taken_by_both_or_neither(tmp_path: Path) -> None:
    """Of the headers that the library takes, all but those with a type that only it knows, or a key twice."""
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"a": TENSORS["a"], "b": TENSORS["b"]}, path)
    whole, draw = path.read_bytes(), random.Random(5)
    end, taken = 8 + int.from_bytes(whole[:8], "little"), 0
    for _ in range(600):
        data = bytearray(whole)
        data[draw.randrange(end)] ^= 1 << draw.randrange(8)
        try:
            theirs = {name for name, _ in safetensors.deserialize(bytes(data))}
        except Exception:
            theirs = None
        try:
            ours = set(table(path, bytes(data)))
        except ModelFormatError:
            ours = None
        assert ours == theirs, bytes(data[:end])
        taken += ours is not None
    assert taken > 5


def test_a_long_header_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(200_000_000)
    with pytest.raises(ModelFormatError, match="length of the header: expected 2 to 100000000 bytes, found 100000001"):
        read_table(_core.TensorFile(str(path), header_only=True))


def test_the_core_checks_what_it_is_told(tmp_path: Path) -> None:
    """Whoever reads a table: no tensor reaches past the file or into another."""
    path = tmp_path / "x"
    path.write_bytes(json.dumps({}).encode() + bytes(98))
    file = _core.TensorFile(str(path))
    assert file.read(0, 4) == b"{}\0\0" and file.read(98, 10) == b"\0\0" and file.read(1 << 60, 4) == b""
    file.add("a", "f32", 2, 3, 8)
    for arguments, said in (
        (("a", "f32", 1, 1, 40), 'tensor "a": expected each name once, found it twice'),
        (("b", "f32", 1, 1, 28), 'tensor "b": expected bytes of its own, found those of "a" too'),
        (("b", "f32", 2, 1, 4), 'tensor "b": expected bytes of its own, found those of "a" too'),
        (("b", "f32", 1, 1, 42), 'tensor "b": expected it at a multiple of 4 bytes, found at byte 42'),
        (("b", "f32", 1, 6, 80), r"tensor \"b\": expected \[1, 6\] inside the file of 100 bytes, found byte 80"),
        (("b", "f32", 1 << 62, 1 << 62, 0), "inside the file of 100 bytes"),
        (("b", "f32", 1, 1, (1 << 64) - 4), "inside the file of 100 bytes"),
        (("b", "q8_0", 1, 31, 40), "rows of whole blocks of q8_0"),
        (("b", "f32", 0, 4, 40), "rows of whole blocks"),
    ):
        with pytest.raises(ModelFormatError, match=said):
            file.add(*arguments)
    with pytest.raises(ValueError, match="type: expected one of the formats"):
        file.add("b", "f31", 1, 1, 40)
