"""How Hugging Face's files name what GGUF's name otherwise: keys of config.json, and weights.

What most decoders have stands here; what is one family's own, in its file, beside the keys that it reads.
Source: transformers 5.24, configuration_*.py and modeling_*.py; names of GGUF as llama.cpp's converter gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foundry.errors import ModelFormatError

# Which of n rows or columns of theirs each of ours is; beside n the keys of config.json, with the family's defaults.
Order = Callable[[int, Mapping[str, Any]], Sequence[int]]

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
class Made:
    """A weight of a layer that is made of theirs when it is loaded.

    Attributes:
        theirs: the tensor's name behind "layers.0."; "{}" stands for the number of an expert that has one of its own.
        ours: GGUF's, behind "blk.0.".
        rows, cols: which of theirs, behind the transposition; None: as they lie.
        stacked: its first dimension is the experts'.
        transposed: its columns are rows there.
        minus_exp: each value x stands for -e^x.
        scales: of MXFP4, whose nibbles and scales lie apart, the scales' name; ``theirs`` are the nibbles.
    """

    theirs: str
    ours: str
    rows: Order | None = None
    cols: Order | None = None
    stacked: bool = False
    transposed: bool = False
    minus_exp: bool = False
    scales: str = ""


def first_half(n: int, config: Mapping[str, Any]) -> Sequence[int]:
    return range(n // 2)


def second_half(n: int, config: Mapping[str, Any]) -> Sequence[int]:
    return range(n // 2, n)


def even(n: int, config: Mapping[str, Any]) -> Sequence[int]:
    return range(0, n, 2)


def odd(n: int, config: Mapping[str, Any]) -> Sequence[int]:
    return range(1, n, 2)


def of_experts(block: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj") -> tuple[Made, ...]:
    """Of experts that have tensors of their own, and of those that lie in two for all, gates before ups."""
    own = ((gate, "ffn_gate_exps"), (up, "ffn_up_exps"), (down, "ffn_down_exps"))
    return (
        *(Made(f"{block}.{{}}.{theirs}.weight", f"{ours}.weight") for theirs, ours in own),
        Made(f"{block}.gate_up_proj", "ffn_gate_exps.weight", rows=first_half, stacked=True),
        Made(f"{block}.gate_up_proj", "ffn_up_exps.weight", rows=second_half, stacked=True),
        Made(f"{block}.down_proj", "ffn_down_exps.weight", stacked=True),
    )


KEYS_OF_EXPERTS = {
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
}


def whole_number(config: Mapping[str, Any], key: str, most: int = 1 << 31) -> int:
    """Of config.json, from 1."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ModelFormatError(f"config.json: {key}: expected a whole number from 1 to {most}, found {value!r}")
    return value


def attending(config: Mapping[str, Any], other: str) -> list[bool] | None:
    """Of each layer whether it attends, as ``layer_types`` says; None where it does not say."""
    types, words = config.get("layer_types"), ("full_attention", other)
    if types is None:
        return None
    if not isinstance(types, list) or any(one not in words for one in types):
        raise ModelFormatError(f"config.json: layer_types: expected {' or '.join(words)} for each, found {types!r}")
    return [one == words[0] for one in types]


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
        made: weights that are made of theirs.
        norms_whole: GGUF's names of norms that are kept whole all the same.
        left_out: a regular expression of names of weights that no graph needs.
        constant: GGUF's keys that config.json leaves to the family.
        computed: GGUF's keys that are made of several of config.json; it may refuse them.
        other_layers: what ``layer_types`` calls layers that keep a state in place of K and V; ``computed`` reads it.
        quantised: how weights that are made may be quantised (``quant_method``).
        whole_pairs: YaRN's ramp begins and ends at a pair (``truncate``).
        harmless: keys of config.json that change no logit.
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
    made: tuple[Made, ...] = ()
    norms_whole: tuple[str, ...] = ()
    left_out: str = ""
    constant: Mapping[str, Any] = field(default_factory=dict)
    computed: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    other_layers: str = ""
    quantised: str = ""
    whole_pairs: bool = True
    harmless: tuple[str, ...] = ()
    refused: str = ""
