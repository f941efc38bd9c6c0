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
        self._gemma = self._arch == "gemma3"
        self._window = self._number("attention.sliding_window", 0)
        self._full_every = self._number("attention.sliding_window_pattern", 6)
        scaling = self._fields.get(f"{self._arch}.rope.scaling.factor")
        self._rope_scaling = float(scaling.contents()) if scaling else 1.0

    def _number(self, key: str, default: int | None = None) -> int:
        field = self._fields.get(f"{self._arch}.{key}")
        if field is None and default is not None:
            return default
        return int(self._fields[f"{self._arch}.{key}"].contents())

    def weight(self, name: str) -> Array:
        tensor = self._weights[name]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)

    def forward(self, ids: Sequence[int]) -> Array:
        """[n, vocab]: the logits of every position."""
        tied = "output.weight" not in self._weights
        return self.hidden_states(ids) @ self.weight("token_embd.weight" if tied else "output.weight").T

    def hidden_states(self, ids: Sequence[int]) -> Array:
        """[n, hidden], behind the last norm."""
        embedding = self.weight("token_embd.weight")
        x = embedding[np.asarray(ids)] * (np.sqrt(self.hidden) if self._gemma else 1)
        for layer in range(self.layers):
            at = f"blk.{layer}."
            y = self._attention(self._norm(x, at + "attn_norm.weight"), layer)
            x = x + (self._norm(y, at + "post_attention_norm.weight") if self._gemma else y)
            y = self._norm(x, at + "ffn_norm.weight")
            if at + "ffn_gate_inp.weight" in self._weights:
                y = self._experts(y, at)
            else:
                gate = self._linear(y, at + "ffn_gate")
                y = self._linear(self._activation(gate) * self._linear(y, at + "ffn_up"), at + "ffn_down")
            x = x + (self._norm(y, at + "post_ffw_norm.weight") if self._gemma else y)
        return self._norm(x, "output_norm.weight")

    def _experts(self, y: Array, at: str) -> Array:
        """Softmax over all, the best, divided by their sum."""
        scores = self._linear(y, at + "ffn_gate_inp")
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        gate, up, down = (self.weight(f"{at}ffn_{name}_exps.weight") for name in ("gate", "up", "down"))
        out = np.zeros_like(y)
        for row, share in enumerate(shares):
            chosen = np.argsort(-share, kind="stable")[: self._number("expert_used_count")]
            for e in chosen:
                made = self._activation(gate[e] @ y[row]) * (up[e] @ y[row])
                out[row] += share[e] / share[chosen].sum() * (down[e] @ made)
        return out

    def _attention(self, y: Array, layer: int) -> Array:
        n, at = len(y), f"blk.{layer}."
        full = not self._gemma or layer % self._full_every == self._full_every - 1
        window = 0 if self._gemma and full else self._window
        base, scaling = (self.rope_base, self._rope_scaling) if full else (1e4, 1.0)
        angles = self._angles(n, base) / scaling
        ages = np.arange(n)[:, None] - np.arange(n)
        seen = np.where((ages >= 0) & ((ages < window) | (window == 0)), 0.0, -np.inf)
        q = self._linear(y, at + "attn_q").reshape(n, self.heads, self.head_dim)
        k = self._linear(y, at + "attn_k").reshape(n, self.kv_heads, self.head_dim)
        v = self._linear(y, at + "attn_v").reshape(n, self.kv_heads, self.head_dim)
        if at + "attn_q_norm.weight" in self._weights:
            q, k = self._norm(q, at + "attn_q_norm.weight"), self._norm(k, at + "attn_k_norm.weight")
        q, k = self._rope(q, angles), self._rope(k, angles)
        out = np.empty_like(q)
        for head in range(self.heads):
            group = head * self.kv_heads // self.heads
            scores = q[:, head] @ k[:, group].T / np.sqrt(self.head_dim) + seen
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[:, head] = scores / scores.sum(axis=1, keepdims=True) @ v[:, group]
        return self._linear(out.reshape(n, -1), at + "attn_output")

    def _activation(self, x: Array) -> Array:
        if self._gemma:
            return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        return x / (1 + np.exp(-x))

    def _norm(self, x: Array, name: str) -> Array:
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps) * self.weight(name)

    def _linear(self, x: Array, name: str) -> Array:
        y = x @ self.weight(name + ".weight").T
        return y + self.weight(name + ".bias") if name + ".bias" in self._weights else y

    def _angles(self, n: int, base: float) -> Array:
        """[n, head_dim / 2]"""
        frequencies = base ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        if "rope_freqs.weight" in self._weights:
            frequencies = frequencies / self.weight("rope_freqs.weight")
        return np.arange(n)[:, None] * frequencies

    def _rope(self, x: Array, angles: Array) -> Array:
        half = self.head_dim // 2
        first, second = (
            (slice(0, half), slice(half, None)) if self._arch != "llama" else (slice(0, None, 2), slice(1, None, 2))
        )
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        out = np.empty_like(x)
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out
