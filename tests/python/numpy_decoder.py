"""The same decoder once more, in float64 numpy, straight from the file: an oracle that shares nothing with Foundry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class NumpyDecoder:
    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(str(path))
        self._weights = {t.name: t for t in reader.tensors}
        self._arch = reader.fields["general.architecture"].contents()
        self._fields = reader.fields
        self.layers, self.heads = self._number("block_count"), self._number("attention.head_count")
        self.kv_heads = self._number("attention.head_count_kv")
        self.hidden = self._number("embedding_length")
        key_length = self._fields.get(f"{self._arch}.attention.key_length")
        self.head_dim = int(key_length.contents()) if key_length else self.hidden // self.heads
        self.eps = float(self._fields[f"{self._arch}.attention.layer_norm_rms_epsilon"].contents())
        self.rope_base = float(self._fields[f"{self._arch}.rope.freq_base"].contents())

    def _number(self, key: str) -> int:
        return int(self._fields[f"{self._arch}.{key}"].contents())

    def weight(self, name: str) -> Array:
        tensor = self._weights[name]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)

    def forward(self, ids: Sequence[int]) -> Array:
        """[n, vocab]: the logits of every position."""
        n = len(ids)
        embedding = self.weight("token_embd.weight")
        x = embedding[np.asarray(ids)]
        angles = self._angles(n)
        causal = np.where(np.tril(np.ones((n, n), dtype=bool)), 0.0, -np.inf)
        for layer in range(self.layers):
            at = f"blk.{layer}."
            y = self._norm(x, at + "attn_norm.weight")
            q = self._rope(self._linear(y, at + "attn_q").reshape(n, self.heads, self.head_dim), angles)
            k = self._rope(self._linear(y, at + "attn_k").reshape(n, self.kv_heads, self.head_dim), angles)
            v = self._linear(y, at + "attn_v").reshape(n, self.kv_heads, self.head_dim)
            out = np.empty_like(q)
            for head in range(self.heads):
                group = head * self.kv_heads // self.heads
                scores = q[:, head] @ k[:, group].T / np.sqrt(self.head_dim) + causal
                scores = np.exp(scores - scores.max(axis=1, keepdims=True))
                out[:, head] = scores / scores.sum(axis=1, keepdims=True) @ v[:, group]
            x = x + self._linear(out.reshape(n, -1), at + "attn_output")
            y = self._norm(x, at + "ffn_norm.weight")
            gate = self._linear(y, at + "ffn_gate")
            x = x + self._linear(gate / (1 + np.exp(-gate)) * self._linear(y, at + "ffn_up"), at + "ffn_down")
        tied = "output.weight" not in self._weights
        return self._norm(x, "output_norm.weight") @ (embedding if tied else self.weight("output.weight")).T

    def _norm(self, x: Array, name: str) -> Array:
        return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + self.eps) * self.weight(name)

    def _linear(self, x: Array, name: str) -> Array:
        y = x @ self.weight(name + ".weight").T
        return y + self.weight(name + ".bias") if name + ".bias" in self._weights else y

    def _angles(self, n: int) -> Array:
        """[n, head_dim / 2]"""
        frequencies = self.rope_base ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        if "rope_freqs.weight" in self._weights:
            frequencies = frequencies / self.weight("rope_freqs.weight")
        return np.arange(n)[:, None] * frequencies

    def _rope(self, x: Array, angles: Array) -> Array:
        half = self.head_dim // 2
        first, second = (
            (slice(0, half), slice(half, None)) if self._arch == "qwen2" else (slice(0, None, 2), slice(1, None, 2))
        )
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        out = np.empty_like(x)
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out
