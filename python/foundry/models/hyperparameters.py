"""The numbers of a decoder, read from GGUF metadata and checked one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foundry.errors import ModelFormatError

MAX_SEQ_LEN = 1 << 24  # positions are exact in f32 up to here


@dataclass(frozen=True)
class Hyperparameters:
    name: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden_size: int
    ffn_size: int
    vocab_size: int
    max_seq_len: int
    rms_eps: float
    rope_base: float
    rot_dim: int
    tensors: Mapping[str, tuple[int, int]]  # name -> (rows, cols)

    @staticmethod
    def read(name: str, metadata: Mapping[str, Any], tensors: Mapping[str, tuple[int, int]]) -> Hyperparameters:
        def integer(key: str, default: int | None = None, most: int = 1 << 31) -> int:
            value = metadata.get(f"{name}.{key}", default)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < most:
                raise ModelFormatError(f"{name}.{key}: expected a whole number from 1 below {most}, found {value!r}")
            return value

        def real(key: str, default: float | None = None) -> float:
            value = metadata.get(f"{name}.{key}", default)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
                raise ModelFormatError(f"{name}.{key}: expected a number above 0, found {value!r}")
            return float(value)

        scaling = metadata.get(f"{name}.rope.scaling.type", "none")
        if (
            scaling not in ("none", "llama3", "")
            and float(metadata.get(f"{name}.rope.scaling.factor", 1.0) or 1.0) != 1.0
        ):
            raise ModelFormatError(
                f"{name}.rope.scaling.type: expected none (or factors in rope_freqs.weight), found {scaling!r}"
            )
        if "token_embd.weight" not in tensors:
            raise ModelFormatError('the file has no tensor "token_embd.weight"')
        hidden, heads = integer("embedding_length"), integer("attention.head_count")
        if hidden % heads != 0 and f"{name}.attention.key_length" not in metadata:
            raise ModelFormatError(f"{name}.embedding_length: expected a multiple of the {heads} heads, found {hidden}")
        head_dim = integer("attention.key_length", hidden // heads)
        value_dim = integer("attention.value_length", head_dim)
        if value_dim != head_dim:
            raise ModelFormatError(
                f"{name}.attention.value_length: expected the key length {head_dim}, found {value_dim}"
            )
        return Hyperparameters(
            name=name,
            n_layers=integer("block_count", most=1 << 16),
            n_heads=heads,
            n_kv_heads=integer("attention.head_count_kv", heads),
            head_dim=head_dim,
            hidden_size=hidden,
            ffn_size=integer("feed_forward_length"),
            vocab_size=tensors["token_embd.weight"][0],
            max_seq_len=integer("context_length", most=MAX_SEQ_LEN),
            rms_eps=real("attention.layer_norm_rms_epsilon"),
            rope_base=real("rope.freq_base", 10000.0),
            rot_dim=integer("rope.dimension_count", head_dim),
            tensors=tensors,
        )
