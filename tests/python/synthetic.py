"""Writes small GGUF models with seeded random weights: every shape that the llama, qwen2, gemma3 and qwen3moe files may
have."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import quantisers
from foundry import _core

TYPES = {f.name: gguf.GGMLQuantizationType(f.number) for f in _core.formats() if f.linear != _core.Readers.none}
WIDE = {f.name for f in _core.formats() if f.block_elements == 256}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    arch: str = "llama"
    layers: int = 2
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 96
    max_seq_len: int = 512
    rope_base: float = 10000.0
    tied: bool = True
    rope_factors: bool = False
    type: str = "q8_0"
    types: tuple[str, ...] = ()  # of the matrices in turn, in place of one type
    seed: int = 1
    window: int = 0  # gemma3
    full_every: int = 3
    rope_scaling: float = 1.0
    experts: int = 0  # qwen3moe
    used: int = 2
    distinct_rows: int = 0  # of each matrix, repeated to its size, so that a large file is quickly made; 0: all
    vocab: int = 0  # tokens; 0: the bytes' and ChatML's; what is more are merges of bytes, as many as such a model has


def of_type(kind: str) -> dict[str, Any]:
    """Fields of a model in this type: rows are whole blocks of it."""
    return {"type": kind, "hidden": 256, "head_dim": 64, "ffn": 256} if kind in WIDE else {"type": kind}


class Writer(gguf.GGUFWriter):
    """gguf's, which writes empty arrays as well: a vocabulary of bytes alone has no merges."""

    def _pack_val(self, val: Any, vtype: Any, add_vtype: bool, sub_type: Any = None) -> bytes:
        if vtype == gguf.GGUFValueType.ARRAY and len(val) == 0:
            return struct.pack("<IIQ", vtype, sub_type, 0)
        data: bytes = super()._pack_val(val, vtype, add_vtype, sub_type)
        return data


def byte_tokens() -> list[str]:
    """The 256 bytes as byte-level BPE spells them (Radford et al., 2019), then ChatML's three."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelled, extra = {}, 0
    for byte in range(256):
        if byte in printable:
            spelled[byte] = chr(byte)
        else:
            spelled[byte] = chr(256 + extra)
            extra += 1
    return [*(spelled[b] for b in range(256)), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]


VOCAB = len(byte_tokens())


def merged_tokens(n: int) -> list[tuple[str, str]]:
    """``n`` merges of a token and a byte, no two of one spelling: of bytes first, then of what came of those."""
    letters = byte_tokens()[:256]
    heads: Iterable[str] = letters
    pairs: list[tuple[str, str]] = []
    while len(pairs) < n:
        more = list(itertools.islice(itertools.product(heads, letters), n - len(pairs)))
        heads = [a + b for a, b in more]
        pairs += more
    return pairs


def add_byte_tokenizer(writer: Writer, vocab: int = 0, around: tuple[bool, bool] = (False, False)) -> None:
    """A vocabulary of bytes, ChatML's tokens and, up to ``vocab``, merges; ``around`` a text it puts BOS and EOS."""
    tokens = byte_tokens()
    merges = merged_tokens(max(0, vocab - len(tokens)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, *(a + b for a, b in merges)])
    writer.add_token_types([1] * 256 + [3] * 3 + [1] * len(merges))
    array = gguf.GGUFValueType.ARRAY
    spelled = [f"{a} {b}" for a, b in merges]
    writer.add_key_value("tokenizer.ggml.merges", spelled, array, sub_type=gguf.GGUFValueType.STRING)
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(258)
    writer.add_add_bos_token(around[0])
    if around[1]:
        writer.add_add_eos_token(True)
    writer.add_chat_template(CHATML)


def add_metadata(writer: Writer, metadata: Mapping[str, Any]) -> None:
    """Of full names; whole numbers as u32, and what is None not at all."""
    for name, value in metadata.items():
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        elif value is not None:
            writer.add_uint32(name, value)


def write(path: Path, shape: Shape = Shape()) -> Path:
    """The file, its weights drawn so that activations stay near 1."""
    random = np.random.default_rng(shape.seed)
    writer = Writer(str(path), shape.arch)
    writer.add_context_length(shape.max_seq_len)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(1e-5)
    if shape.window:
        writer.add_sliding_window(shape.window)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.used)
        writer.add_expert_feed_forward_length(shape.ffn)
    if shape.arch == "gemma3":
        writer.add_uint32("gemma3.attention.sliding_window_pattern", shape.full_every)
    if shape.rope_scaling != 1:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_scaling)
    add_byte_tokenizer(writer, shape.vocab)
    types = itertools.cycle(shape.types or (shape.type,))

    def vector(name: str, values: np.ndarray) -> None:
        writer.add_tensor(name, values.astype(np.float32))

    def matrix(name: str, rows: int, cols: int, scale: float = 1.0) -> None:
        drawn = min(rows, shape.distinct_rows or rows)
        values = (random.standard_normal((drawn, cols)) * scale / np.sqrt(cols)).astype(np.float32)
        kind = TYPES[next(types)]
        blocks = quantisers.quantise(values, kind)
        writer.add_tensor(name, blocks if drawn == rows else np.resize(blocks, (rows, blocks.shape[1])), raw_dtype=kind)

    def experts(name: str, rows: int, cols: int) -> None:
        drawn = min(shape.experts * rows, shape.distinct_rows or shape.experts * rows)
        values = (random.standard_normal((drawn, cols)) / np.sqrt(cols)).astype(np.float32)
        kind = TYPES[next(types)]
        blocks = quantisers.quantise(values, kind)
        blocks = np.resize(blocks, (shape.experts * rows, blocks.shape[1]))
        writer.add_tensor(name, blocks.reshape(shape.experts, rows, -1), raw_dtype=kind)

    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    vocab = shape.vocab or VOCAB
    matrix("token_embd.weight", vocab, shape.hidden, scale=float(np.sqrt(shape.hidden)) / 4)  # logits of about 2
    if shape.rope_factors:
        vector("rope_freqs.weight", np.linspace(1, 8, shape.head_dim // 2))
    for layer in range(shape.layers):
        at = f"blk.{layer}."
        vector(at + "attn_norm.weight", 1 + 0.1 * random.standard_normal(shape.hidden))
        for name, rows in (("attn_q", q), ("attn_k", kv), ("attn_v", kv)):
            matrix(f"{at}{name}.weight", rows, shape.hidden)
            if shape.arch == "qwen2":
                vector(f"{at}{name}.bias", 0.1 * random.standard_normal(rows))
        matrix(at + "attn_output.weight", shape.hidden, q)
        if shape.arch in ("gemma3", "qwen3moe"):
            for name, size in (("attn_q_norm", shape.head_dim), ("attn_k_norm", shape.head_dim)):
                vector(f"{at}{name}.weight", 1 + 0.3 * random.standard_normal(size))
        if shape.arch == "gemma3":
            for name in ("post_attention_norm", "post_ffw_norm"):
                vector(f"{at}{name}.weight", 1 + 0.1 * random.standard_normal(shape.hidden))
        vector(at + "ffn_norm.weight", 1 + 0.1 * random.standard_normal(shape.hidden))
        if shape.experts:
            vector(at + "ffn_gate_inp.weight", random.standard_normal((shape.experts, shape.hidden)) / 4)
            experts(at + "ffn_gate_exps.weight", shape.ffn, shape.hidden)
            experts(at + "ffn_up_exps.weight", shape.ffn, shape.hidden)
            experts(at + "ffn_down_exps.weight", shape.hidden, shape.ffn)
            continue
        matrix(at + "ffn_gate.weight", shape.ffn, shape.hidden)
        matrix(at + "ffn_up.weight", shape.ffn, shape.hidden)
        matrix(at + "ffn_down.weight", shape.hidden, shape.ffn)
    vector("output_norm.weight", 1 + 0.1 * random.standard_normal(shape.hidden))
    if not shape.tied:
        matrix("output.weight", vocab, shape.hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
