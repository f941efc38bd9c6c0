"""The table of a safetensors file: 8 bytes of length and so many of JSON, then the tensors' bytes without a gap.

It is read by this reader and not by the library, for the core needs the bytes where they lie, bf16, and a plan from the
table alone. Source: github.com/huggingface/safetensors, README, "Format", and its limit of 100 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foundry import _core
from foundry.errors import ModelFormatError
from foundry.files import bounded_json

MOST_HEADER_BYTES = 100_000_000
MOST_DIMS = 8
SIZES = {  # bytes of a value
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}
READABLE = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


@dataclass(frozen=True)
class Entry:
    """A tensor: its type as the file has it, its dimensions, rows and columns (dimensions before the last are rows),
    where it begins in the file, and its bytes."""

    type: str
    shape: tuple[int, ...]
    rows: int
    cols: int
    offset: int
    bytes: int


def read_table(file: _core.TensorFile) -> dict[str, Entry]:
    """By name, in the order of their bytes. Raises ModelFormatError for what is damaged, and names it."""
    path, size = file.path, file.file_bytes
    length = int.from_bytes(file.read(0, 8), "little") if size >= 8 else -1
    most = min(size - 8, MOST_HEADER_BYTES)
    if not 2 <= length <= most:
        raise ModelFormatError(
            f"{path}: length of the header: expected 2 to {max(most, 2)} bytes, found"
            f" {length if length >= 0 else f'a file of {size}'}"
        )
    header = bounded_json.parse(file.read(8, length), f"{path}: header")
    header.pop("__metadata__", None)
    begin, data = 8 + length, size - 8 - length
    table = {name: _entry(f"{path}: tensor {name[:80]!r}", about, begin) for name, about in header.items()}
    end = begin
    table = dict(sorted(table.items(), key=lambda one: (one[1].offset, one[1].bytes)))
    for name, entry in table.items():
        if entry.offset != end:
            raise ModelFormatError(
                f"{path}: tensor {name[:80]!r}: data_offsets: expected to begin at {end - begin}, where the tensor"
                f" before it ends, found {entry.offset - begin}"
            )
        end += entry.bytes
    if end != size:
        raise ModelFormatError(f"{path}: expected {end - begin} bytes of tensors behind the header, found {data}")
    return table


def _entry(place: str, about: Any, begin: int) -> Entry:
    if not isinstance(about, dict) or about.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFormatError(f"{place}: expected dtype, shape and data_offsets, found {str(about)[:80]}")
    kind, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(kind, str) or kind not in SIZES:
        raise ModelFormatError(f"{place}: dtype: expected one of {', '.join(SIZES)}, found {str(kind)[:80]!r}")
    if not _counts(shape) or len(shape) > MOST_DIMS:
        raise ModelFormatError(f"{place}: shape: expected up to {MOST_DIMS} whole numbers, found {str(shape)[:80]}")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ModelFormatError(f"{place}: data_offsets: expected begin and end, found {str(offsets)[:80]}")
    rows, cols = 1, shape[-1] if shape else 1
    for n in shape[:-1]:
        rows *= n
    n_bytes = offsets[1] - offsets[0]
    if rows * cols * SIZES[kind] != n_bytes:
        raise ModelFormatError(
            f"{place}: data_offsets: expected {rows * cols * SIZES[kind]} bytes, {kind} of {shape}, found {n_bytes}"
        )
    return Entry(kind, tuple(shape), rows, cols, begin + offsets[0], n_bytes)


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(one) is int and 0 <= one < 1 << 62 for one in values)
