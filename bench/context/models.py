"""The models that every engine runs, and a GGUF file's weights by Hugging Face's names for those that don't read it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

PROBE_TOKENS = 64  # every engine says which token is most likely after these: the weights are the same ones, or not

NAMES = {  # GGUF's to Hugging Face's
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


@dataclass(frozen=True)
class Config:
    """A llama's sizes, read from its file."""

    n_layers: int
    hidden_size: int
    ffn_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    max_seq_len: int
    rope_base: float
    rms_eps: float
    tied: bool

    def kv_bytes(self, tokens: int, element_bytes: int) -> int:
        """What K and V of so many tokens take and not a byte more: the ideal."""
        return tokens * self.n_layers * 2 * self.n_kv_heads * self.head_dim * element_bytes

    def hugging_face(self) -> dict[str, Any]:
        """As ``LlamaConfig`` and mlx-lm's ``ModelArgs`` name them."""
        return {
            "model_type": "llama",
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.n_layers,
            "intermediate_size": self.ffn_size,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_seq_len,
            "rope_theta": self.rope_base,
            "rms_norm_eps": self.rms_eps,
            "tie_word_embeddings": self.tied,
        }


def read_config(path: Path) -> Config:
    import gguf

    reader = gguf.GGUFReader(path)

    def value(name: str) -> Any:
        return reader.fields[f"llama.{name}"].contents()

    heads, hidden = value("attention.head_count"), value("embedding_length")
    shapes = {t.name: t.shape for t in reader.tensors}
    return Config(
        n_layers=value("block_count"),
        hidden_size=hidden,
        ffn_size=value("feed_forward_length"),
        n_heads=heads,
        n_kv_heads=value("attention.head_count_kv"),
        head_dim=hidden // heads,
        vocab_size=int(shapes["token_embd.weight"][1]),
        max_seq_len=value("context_length"),
        rope_base=value("rope.freq_base"),
        rms_eps=value("attention.layer_norm_rms_epsilon"),
        tied="output.weight" not in shapes,
    )


def read_weights(path: Path, config: Config) -> Iterator[tuple[str, Array]]:
    """Dequantised, one by one. GGUF's q and k have rope's pairs side by side; Hugging Face's, halves apart."""
    import gguf

    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        prefix, name = "", tensor.name
        if name.startswith("blk."):
            _, layer, name = name.split(".", 2)
            prefix = f"model.layers.{layer}."
        if name in ("attn_q.weight", "attn_k.weight"):
            heads = config.n_heads if name == "attn_q.weight" else config.n_kv_heads
            values = values.reshape(heads, config.head_dim // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)
        yield prefix + NAMES[name], values


def random_ids(n: int, vocab_size: int) -> npt.NDArray[np.int32]:
    return np.random.default_rng(1).integers(min(100, vocab_size // 3), min(vocab_size - 3, 30000), n, dtype=np.int32)


def synthetic(path: Path, *, deep: bool) -> Path:
    """A small llama with random weights: deep enough for 40,960 tokens, or tiny and full after 512."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "python"))
    from synthetic import Shape, write  # the tests' writer

    shape = Shape(hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=512, max_seq_len=512)
    if deep:
        shape = Shape(hidden=512, heads=8, kv_heads=4, head_dim=64, ffn=1536, max_seq_len=40960)
    write(path, shape)
    return path
