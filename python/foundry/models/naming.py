"""How Hugging Face's files name what GGUF's name otherwise: keys of config.json, and weights.

What most decoders have stands here; what is one family's own, in its file, beside the keys that it reads.
Source: transformers 5.24, configuration_*.py and modeling_*.py; names of GGUF as llama.cpp's converter gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Keys of config.json -> of GGUF, without the architecture's name. What takes computing is in files/configuration.py.
KEYS = {
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "hidden_act": "hidden_activation",
    "hidden_activation": "hidden_activation",
}
# Weights once in a model, without what stands before all of them.
ONCE = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
# Weights of a layer, behind "layers.0.".
LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class Naming:
    """One family's.

    Attributes:
        types: what config.json calls the family (``model_type``).
        keys: of config.json -> of GGUF, beside ``KEYS`` or in place of them.
        defaults: what transformers takes for keys that config.json leaves out, where a graph takes something else.
        once, layer: names of weights, beside ``ONCE`` and ``LAYER`` or in place of them.
        layers: what stands before a layer's number.
        tied: the output's weights are the embedding's, where config.json does not say.
        norms_less_one: the norms' scales are kept less 1; GGUF's converter adds it.
        refused: why directories of this family are not read.
    """

    types: tuple[str, ...]
    keys: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    once: Mapping[str, str] = field(default_factory=dict)
    layer: Mapping[str, str] = field(default_factory=dict)
    layers: str = "layers"
    tied: bool = False
    norms_less_one: bool = False
    refused: str = ""
