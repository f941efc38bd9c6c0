"""Splits a GGUF file into parts, as llama.cpp's ``gguf-split`` does: the first has all metadata, each its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from synthetic import Writer

KEYS = ("split.no", "split.count", "split.tensors.count")


def split(path: Path, count: int, folder: Path, stem: str = "m", first_is_empty: bool = False) -> list[Path]:
    """The parts' paths; ``first_is_empty`` puts no tensor into the first."""
    reader = gguf.GGUFReader(path)
    chunks = [list(part) for part in np.array_split(np.arange(len(reader.tensors)), count - first_is_empty)]
    if first_is_empty:
        chunks.insert(0, [])
    return [
        write_part(
            folder / f"{stem}-{i + 1:05d}-of-{count:05d}.gguf",
            reader,
            chunks[i],
            {"split.no": i, "split.count": count, "split.tensors.count": len(reader.tensors)},
            whole=i == 0,
        )
        for i in range(count)
    ]


def write_part(
    path: Path, reader: gguf.GGUFReader, tensors: Sequence[int], says: Mapping[str, Any], whole: bool
) -> Path:
    """One part: the tensors of these numbers, all metadata where it is the ``whole`` model's, and what it says."""
    arch = reader.fields["general.architecture"].contents()
    writer = Writer(str(path), arch)
    for name, field in reader.fields.items() if whole else ():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        of = field.types[-1] if len(field.types) > 1 else gguf.GGUFValueType.STRING
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=of)
    if not whole:
        writer.kv_data[0].pop("general.architecture", None)
    for key, value in says.items():
        if value is not None:
            (writer.add_int32 if key == KEYS[2] else writer.add_uint16)(key, value)
    for i in tensors:
        tensor = reader.tensors[i]
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
