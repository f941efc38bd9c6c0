"""Models whose layers keep K and V or a state in their place, of known shapes, with random weights: LFM2's short
convolutions and Qwen3.5's gated delta nets. Keys and tensors are those that llama.cpp's converter writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Hybrid:
    arch: str
    layers: int
    attention: tuple[int, ...]  # layers that keep K and V
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    max_seq_len: int
    rope_base: float
    taps: int
    delta: tuple[int, int, int] | None = None  # heads of Q and K, of V, and dims of each; None: short convolutions
    rope_dims: int = 0  # 0: all of a head's

    def matrices(self) -> Iterator[tuple[str, int, int]]:
        """Name, rows and columns of what is quantised, the embedding first, which is the head too."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield "token_embd", self.vocab, self.hidden
        for layer in range(self.layers):
            at = f"blk.{layer}."
            if layer in self.attention:
                yield at + "attn_q", q * (2 if self.delta else 1), self.hidden
                yield at + "attn_k", kv, self.hidden
                yield at + "attn_v", kv, self.hidden
                yield at + "attn_output", self.hidden, q
            elif self.delta:
                k_heads, v_heads, dim = self.delta
                yield at + "attn_qkv", (2 * k_heads + v_heads) * dim, self.hidden
                yield at + "attn_gate", v_heads * dim, self.hidden
                yield at + "ssm_out", self.hidden, v_heads * dim
            else:
                yield at + "shortconv.in_proj", 3 * self.hidden, self.hidden
                yield at + "shortconv.out_proj", self.hidden, self.hidden
            yield at + "ffn_gate", self.ffn, self.hidden
            yield at + "ffn_up", self.ffn, self.hidden
            yield at + "ffn_down", self.hidden, self.ffn

    def plain(self, random: np.random.Generator) -> Iterator[tuple[str, Any]]:
        """What is f32: norms, taps, and what delta nets have for each head."""

        def norm(size: int) -> Any:
            return 1 + 0.1 * random.standard_normal(size)

        yield ("output_norm.weight" if self.delta else "token_embd_norm.weight"), norm(self.hidden)
        for layer in range(self.layers):
            at = f"blk.{layer}."
            yield at + "attn_norm.weight", norm(self.hidden)
            yield at + ("post_attention_norm.weight" if self.delta else "ffn_norm.weight"), norm(self.hidden)
            if layer in self.attention:
                yield at + "attn_q_norm.weight", norm(self.head_dim)
                yield at + "attn_k_norm.weight", norm(self.head_dim)
            elif self.delta:
                k_heads, v_heads, dim = self.delta
                channels = (2 * k_heads + v_heads) * dim
                yield at + "ssm_conv1d.weight", random.standard_normal((channels, self.taps)) / 2
                yield at + "ssm_a", -np.exp(random.uniform(np.log(0.05), np.log(2), v_heads))
                yield at + "ssm_dt.bias", 0.5 * random.standard_normal(v_heads)
                yield at + "ssm_norm.weight", norm(dim)
                for name in ("ssm_beta", "ssm_alpha"):
                    yield f"{at}{name}.weight", random.standard_normal((v_heads, self.hidden)) / np.sqrt(self.hidden)
            else:
                yield at + "shortconv.conv.weight", random.standard_normal((self.hidden, self.taps)) / 2

    def metadata(self) -> dict[str, Any]:
        """Without the architecture's name in front."""
        kv = [self.kv_heads if layer in self.attention else 0 for layer in range(self.layers)]
        keys: dict[str, Any] = {
            "context_length": self.max_seq_len,
            "embedding_length": self.hidden,
            "block_count": self.layers,
            "feed_forward_length": self.ffn,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads if self.delta else kv,
            "attention.key_length": self.head_dim,
            "attention.value_length": self.head_dim,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.dimension_count": self.rope_dims or self.head_dim,
            "rope.freq_base": self.rope_base,
        }
        if self.delta is None:
            return keys | {"shortconv.l_cache": self.taps}
        k_heads, v_heads, dim = self.delta
        pairs = self.rope_dims // 2
        sections = [pairs // 3 + pairs % 3, pairs // 3, pairs // 3, 0]
        delta = {"conv_kernel": self.taps, "state_size": dim, "group_count": k_heads, "time_step_rank": v_heads}
        delta["inner_size"] = v_heads * dim
        return keys | {f"ssm.{key}": value for key, value in delta.items()} | {"rope.dimension_sections": sections}

    def write(self, path: Path, kinds: list[str], synthetic: Any, distinct_rows: int = 64) -> None:
        """``kinds`` are the matrices' types in turn; rows of a matrix are ``distinct_rows`` over and over."""
        random = np.random.default_rng(1)
        writer = synthetic.Writer(str(path), self.arch)
        synthetic.add_metadata(writer, {f"{self.arch}.{key}": value for key, value in self.metadata().items()})
        synthetic.add_byte_tokenizer(writer, self.vocab)
        for name, values in self.plain(random):
            writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
        for (name, rows, cols), kind in zip(self.matrices(), kinds, strict=True):
            scale = np.sqrt(cols) / 4 if name == "token_embd" else 1.0
            values = random.standard_normal((min(rows, distinct_rows), cols)) * scale / np.sqrt(cols)
            blocks = synthetic.quantisers.quantise(values.astype(np.float32), synthetic.TYPES[kind])
            whole = np.resize(blocks, (rows, blocks.shape[1]))
            writer.add_tensor(f"{name}.weight", whole, raw_dtype=synthetic.TYPES[kind])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


HYBRIDS = {
    # LFM2-350M (Liquid AI, 2025)
    "lfm2": Hybrid("lfm2", 16, (2, 5, 8, 10, 12, 14), 1024, 16, 8, 64, 4608, 65_536, 128_000, 1e6, 3),
    # As Qwen3.5-0.8B (Alibaba, 2026) has its layers, with a smaller vocabulary
    "qwen35": Hybrid(
        *("qwen35", 24, tuple(range(3, 24, 4)), 1024, 8, 2, 256, 3584, 65_536, 262_144, 1e7, 4),
        delta=(16, 16, 128),
        rope_dims=64,
    ),
}
