"""The models that both engines run: shapes of known ones with random weights, each written once and kept.

Types of matrices are those that llama.cpp's quantiser chooses for such files: the embedding, which is the head too, has
more bits than the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers.hybrids import HYBRIDS, Hybrid

ROOT = Path(__file__).parents[2]
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")  # in the writer's order
BLOCKS = {"f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18)}  # elements, bytes
BLOCKS |= {"q4_k": (256, 144), "q6_k": (256, 210)}
OWN_EMBEDDING = ("q8_0", "q6_k", "f16", "bf16")


@dataclass(frozen=True)
class Sizes:
    arch: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    max_seq_len: int
    rope_base: float
    head_dim: int = 64
    experts: int = 0  # in place of a feed-forward network, each of width ffn; 0: none
    used: int = 0  # by a token


SIZES = {
    "0.5b": Sizes("qwen2", 24, 896, 14, 2, 4864, 151_936, 32_768, 1e6),  # Qwen2.5-0.5B (Alibaba, 2024)
    "1b": Sizes("llama", 16, 2048, 32, 8, 8192, 128_256, 131_072, 5e5),  # Llama-3.2-1B (Meta, 2024)
    "8b": Sizes("llama", 32, 4096, 32, 8, 14_336, 128_256, 131_072, 5e5, 128),  # Llama-3.1-8B (Meta, 2024)
    "moe": Sizes("qwen3moe", 8, 1024, 16, 4, 512, 32_000, 32_768, 1e6, 64, 16, 4),  # no known one's; small
    "tiny": Sizes("llama", 2, 256, 4, 2, 512, 1_024, 4_096, 1e4),  # for a smoke run
}


@dataclass(frozen=True)
class Model:
    """``name`` is a shape and a type of weights, "0.5b-q4_0", "1b-q4_k_m"; or a file's path, of whose sizes nothing is
    known here."""

    name: str

    @property
    def known(self) -> bool:
        return not self.name.endswith(".gguf")

    @property
    def hybrid(self) -> Hybrid | None:
        """The sizes of a model with states."""
        return HYBRIDS.get(self.name.partition("-")[0])

    @property
    def sizes(self) -> Sizes:
        """Those of others."""
        return SIZES[self.name.partition("-")[0]]

    @property
    def type(self) -> str:
        return self.name.partition("-")[2]

    def matrices(self) -> Iterator[tuple[int, int, str]]:
        """Rows, columns and type of each matrix, the embedding first; of experts the rows that a token reads."""
        if self.hybrid:
            for name, rows, cols in self.hybrid.matrices():
                yield rows, cols, "q6_k" if name == "token_embd" and self.type not in OWN_EMBEDDING else self.type
            return
        s, kind = self.sizes, "q4_k" if self.type == "q4_k_m" else self.type
        wide = "q6_k" if s.hidden % 256 == 0 else "q8_0"  # K-quants take rows of whole 256
        yield s.vocab, s.hidden, kind if kind in OWN_EMBEDDING else wide
        q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
        shapes = [(q, s.hidden), (kv, s.hidden), (kv, s.hidden), (s.hidden, q)]
        n = s.used or 1
        shapes += [(n * s.ffn, s.hidden), (n * s.ffn, s.hidden), (n * s.hidden, s.ffn)]
        for layer in range(s.layers):
            more = self.type == "q4_k_m" and more_bits(layer, s.layers)
            for name, (rows, cols) in zip(MATRICES, shapes, strict=True):
                yield rows, cols, "q6_k" if more and name in ("attn_v", "ffn_down") else kind

    @property
    def weight_bytes(self) -> float:
        """That a token reads: all matrices, the embedding as the head."""
        return sum(rows * cols * BLOCKS[kind][1] / BLOCKS[kind][0] for rows, cols, kind in self.matrices())

    @property
    def linear_operations(self) -> int:
        """Of a token of a prompt: multiplications and additions in the layers' matrices, without the head."""
        return 2 * sum(rows * cols for rows, cols, _ in list(self.matrices())[1:])

    def kv_bytes(self, kv: str) -> float:
        """That a token's K and V take."""
        elements, size = BLOCKS[kv]
        s, layers = self._keeping()
        return 2 * layers * s.kv_heads * s.head_dim * size / elements

    def _keeping(self) -> tuple[Sizes | Hybrid, int]:
        """Sizes, and how many layers keep K and V."""
        return (self.hybrid, len(self.hybrid.attention)) if self.hybrid else (self.sizes, self.sizes.layers)

    def attention_operations(self, depth: float) -> float:
        """Of a token that sees ``depth`` others."""
        s, layers = self._keeping()
        return 4 * layers * s.heads * s.head_dim * depth

    def file(self, folder: Path) -> Path:
        """The file, written if it is not there."""
        if not self.known:
            return Path(self.name)
        path = folder / f"{self.name}.gguf"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            self._write(partial)
            partial.rename(path)
        return path

    def _write(self, path: Path) -> None:
        synthetic: Any = writer()
        if self.hybrid:
            return self.hybrid.write(path, [kind for _, _, kind in self.matrices()], synthetic)
        s = self.sizes
        shape = synthetic.Shape(
            arch=s.arch,
            layers=s.layers,
            hidden=s.hidden,
            heads=s.heads,
            kv_heads=s.kv_heads,
            head_dim=s.head_dim,
            ffn=s.ffn,
            vocab=s.vocab,
            max_seq_len=s.max_seq_len,
            rope_base=s.rope_base,
            experts=s.experts,
            used=s.used,
            types=tuple(kind for _, _, kind in self.matrices()),
            distinct_rows=64,
        )
        synthetic.write(path, shape)


def more_bits(layer: int, layers: int) -> bool:
    """Whether Q4_K_M keeps this layer's V and down projections in Q6_K (llama.cpp, llama-quant.cpp, use_more_bits)."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2


def writer() -> Any:
    """The tests' writer of synthetic files."""
    sys.path.insert(0, str(ROOT / "tests" / "python"))
    import synthetic

    return synthetic
