"""The numbers of a decoder, read from GGUF metadata and checked one by one. What can't be run is refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foundry.errors import ModelFormatError
from foundry.models.understood import refuse_keys

MAX_SEQ_LEN = 1 << 24  # positions are exact in f32 up to here
LAYERS_27B = 62  # gemma3's queries are then scaled by hidden_size / n_heads, and the file does not say so


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
    window: int  # tokens that a layer with a sliding window sees; 0 where there are none
    full_every: int  # of gemma3: one layer in so many has no window
    rms_eps: float
    rope_base: float
    rope_scale: float  # of positions
    window_rope_base: float  # of layers with a window
    rot_dim: int
    tensors: Mapping[str, tuple[int, int]]  # name -> (rows, cols)

    @staticmethod
    def read(name: str, metadata: Mapping[str, Any], tensors: Mapping[str, tuple[int, int]]) -> Hyperparameters:
        read = _Reader(name, metadata)
        if "token_embd.weight" not in tensors:
            raise ModelFormatError('the file has no tensor "token_embd.weight"')
        hidden, heads = read.integer("embedding_length"), read.integer("attention.head_count")
        if hidden % heads != 0 and f"{name}.attention.key_length" not in metadata:
            raise ModelFormatError(f"{name}.embedding_length: expected a multiple of the {heads} heads, found {hidden}")
        head_dim = read.integer("attention.key_length", hidden // heads)
        value_dim = read.integer("attention.value_length", head_dim)
        if value_dim != head_dim:
            raise ModelFormatError(
                f"{name}.attention.value_length: expected the key length {head_dim}, found {value_dim}"
            )
        hp = Hyperparameters(
            name=name,
            n_layers=read.integer("block_count", most=1 << 16),
            n_heads=heads,
            n_kv_heads=read.integer("attention.head_count_kv", heads),
            head_dim=head_dim,
            hidden_size=hidden,
            ffn_size=read.integer("feed_forward_length"),
            vocab_size=tensors["token_embd.weight"][0],
            max_seq_len=read.integer("context_length", most=MAX_SEQ_LEN),
            window=read.integer("attention.sliding_window", 0 if name != "gemma3" else None, least=0),
            full_every=read.integer("attention.sliding_window_pattern", 6) if name == "gemma3" else 1,
            rms_eps=read.real("attention.layer_norm_rms_epsilon"),
            rope_base=read.real("rope.freq_base", 1e4 if name != "gemma3" else 1e6),
            rope_scale=read.rope_scale("rope_freqs.weight" in tensors),
            window_rope_base=read.real("rope.freq_base_swa", 1e4) if name == "gemma3" else 1e4,
            rot_dim=read.integer("rope.dimension_count", head_dim),
            tensors=tensors,
        )
        refuse_keys(hp, metadata, read.names)
        return hp

    @property
    def attention_scale(self) -> float:
        """Of the products of Q and K."""
        wide = self.name == "gemma3" and self.n_layers == LAYERS_27B
        return 1 / math.sqrt(self.hidden_size / self.n_heads if wide else self.head_dim)


class _Reader:
    def __init__(self, name: str, metadata: Mapping[str, Any]) -> None:
        self._name, self._metadata = name, metadata
        self.names: set[str] = set()  # of the keys asked for, found or not

    def _get(self, key: str, default: object) -> tuple[str, Any]:
        self.names.add(f"{self._name}.{key}")
        return f"{self._name}.{key}", self._metadata.get(f"{self._name}.{key}", default)

    def integer(self, key: str, default: int | None = None, least: int = 1, most: int = 1 << 31) -> int:
        name, value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < most:
            raise ModelFormatError(f"{name}: expected a whole number from {least} below {most}, found {value!r}")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        name, value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise ModelFormatError(f"{name}: expected a number above 0, found {value!r}")
        return float(value)

    def rope_scale(self, has_factors: bool) -> float:
        """What positions are multiplied by: 1 / factor where scaling is linear (arXiv:2306.15595), else 1.

        Llama 3 has its factors in a tensor; other ways (yarn, longrope) are refused.
        """
        factor = self.real("rope.scaling.factor", self.real("rope.scale_linear", 1.0))
        name, kind = self._get("rope.scaling.type", "linear" if factor != 1 else "none")
        if kind == "linear":
            return 1 / factor
        if kind not in ("none", "") and factor != 1 and not (kind == "llama3" and has_factors):
            raise ModelFormatError(f"{name}: expected none, linear or factors in rope_freqs.weight, found {kind!r}")
        return 1.0
