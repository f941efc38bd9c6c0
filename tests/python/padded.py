"""SmolLM2 filled up with zeros from rows of 576 to 768, whole blocks of 256: the same function, in any format.

12 heads in place of 9 and 4 KV heads in place of 3, of which the last ones are zeros. A norm over 768 values divides by
the root of 3/4 of what the norm over 576 does: its weights and epsilon are rescaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import quantisers

Kind = gguf.GGMLQuantizationType
Array = npt.NDArray[np.float32]
WAS, IS, HEADS, KV_HEADS, HEAD_DIM = 576, 768, 12, 4, 64
KEYS = {
    "llama.embedding_length": IS,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
}
EPS = "llama.attention.layer_norm_rms_epsilon"
ROWS = {"attn_q": IS, "attn_k": KV_HEADS * HEAD_DIM, "attn_v": KV_HEADS * HEAD_DIM, "attn_output": IS, "ffn_down": IS}
COLS = {"ffn_down": 1536}


def _rotating(name: str) -> Kind:
    """Another type in each layer, and beside it in each weight of a layer."""
    kinds = (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.IQ4_XS, Kind.Q3_K, Kind.Q8_0)
    weights = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    if not name.startswith("blk."):
        return Kind.Q6_K
    _, layer, weight, _ = name.split(".")
    return kinds[(int(layer) + weights.index(weight)) % len(kinds)]


# Of each linear layer its type: one for all, or those of a mix. The embedding is the output layer too.
MIXES: Mapping[str, Callable[[str], Kind]] = {
    "Q4_K": lambda _: Kind.Q4_K,
    "Q5_K": lambda _: Kind.Q5_K,
    "Q6_K": lambda _: Kind.Q6_K,
    "IQ4_XS": lambda _: Kind.IQ4_XS,
    "Q4_K beside Q6_K": lambda name: (
        Kind.Q6_K if name == "token_embd.weight" or "attn_v" in name or "ffn_down" in name else Kind.Q4_K
    ),
    "six types": _rotating,
}


def tensors(path: Path) -> dict[str, Array]:
    """Of the file of SmolLM2, in F32, filled up."""
    found = {}
    for tensor in gguf.GGUFReader(str(path)).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim == 1:
            values = np.pad(values, (0, IS - len(values))) * np.float32(math.sqrt(WAS / IS))
        else:
            weight = tensor.name.split(".")[-2]
            rows, cols = ROWS.get(weight, len(values)), COLS.get(weight, IS)
            values = np.pad(values, ((0, rows - values.shape[0]), (0, cols - values.shape[1])))
        found[tensor.name] = values
    return found


def write(
    path: Path, to: Path, kind_of: Callable[[str], Kind] | None = None, read_back: bool = False
) -> dict[str, int]:
    """The filled up model; returns how many tensors of each type it has.

    Args:
        path: SmolLM2's file.
        kind_of: the type of each linear layer by its name; None: F32.
        read_back: write what the blocks stand for, in F32, in place of the blocks.
    """
    reader = gguf.GGUFReader(str(path))
    writer = gguf.GGUFWriter(str(to), "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        value = KEYS.get(field.name, field.contents())
        if field.name == EPS:
            value *= WAS / IS
        writer.add_key_value(field.name, value, kind, sub_type=inner)
    counted: dict[str, int] = {}
    for name, values in tensors(path).items():
        kind = kind_of(name) if kind_of is not None and values.ndim == 2 else Kind.F32
        counted[kind.name] = counted.get(kind.name, 0) + 1
        if kind == Kind.F32:
            writer.add_tensor(name, values)
            continue
        blocks = quantisers.quantise(values, kind)
        if read_back:
            writer.add_tensor(name, gguf.quants.dequantize(blocks, kind).astype(np.float32))
        else:
            writer.add_tensor(name, blocks, raw_dtype=kind)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return counted
