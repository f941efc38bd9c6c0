"""A directory's config.json, told in GGUF's keys, so that architectures read one thing.

Source: transformers 5.24 (configuration_utils.py, modeling_rope_utils.py and the families' configuration files), which
writes ``rope_parameters``; its version 4 wrote ``rope_theta`` and ``rope_scaling``. Both are read.
"""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foundry.errors import ModelFormatError
from foundry.models import architectures, naming_of
from foundry.models.naming import KEYS, Naming, whole_number

MOST_LAYERS = MOST_DIMS = 1 << 16
# They change no logit, or what they say is told by the weights that are there.
# fmt: off
HARMLESS = frozenset((
    "architectures", "auto_map", "transformers_version", "torch_dtype", "dtype", "initializer_range", "use_cache",
    "model_type", "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id",
    "decoder_start_token_id", "attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "resid_dropout",
    "embed_dropout", "residual_dropout", "embedding_dropout", "classifier_dropout", "output_attentions",
    "output_hidden_states", "return_dict", "pretraining_tp", "attention_bias", "mlp_bias", "use_bias", "bias",
    "qkv_bias", "tie_word_embeddings", "torchscript", "problem_type", "id2label", "label2id",
    "chunk_size_feed_forward", "is_decoder", "use_mrope", "rope_interleaved", "no_rope_layer_interval",
    "cache_implementation", "mlp_hidden_act", "name_or_path", "max_window_layers", "use_sliding_window",
    "tokenizer_class", "layer_norm_eps", "output_router_logits", "router_aux_loss_coef",
))
# fmt: on
HARMLESS_BEGINNINGS = ("_", "unsloth", "transformers.js")
# They change logits, but not at these values; null always is off.
OFF: Mapping[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "use_bidirectional_attention": (False,),
    "use_qk_norm": (False,),
    "qk_layernorm": (False,),
    "num_experts": (0,),
    "num_local_experts": (0,),
    "n_routed_experts": (0,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "clip_qkv": (0,),
    "parallel_attn": (False,),
    "alibi": (False,),
    "norm_type": ("layer_norm",),
    "decoder_sparse_step": (1,),
    "mlp_only_layers": ([],),
    "attn_output_gate": (True,),
    "tie_embedding": (True,),
    "swiglu_alpha": (1.702,),
}
# fmt: off
READ_HERE = frozenset((
    "head_dim", "rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq", "partial_rotary_factor",
    "sliding_window", "layer_types", "quantization_config", "original_max_position_embeddings", "query_pre_attn_scalar",
))
# fmt: on


@dataclass(frozen=True)
class Configuration:
    """Attributes:

    architecture: as GGUF names it.
    naming: how the family names its weights.
    metadata: GGUF's keys and values.
    tables: name -> values of what GGUF files have as tensors and a configuration computes.
    tied: the output's weights are the embedding's.
    theirs: the keys of config.json, with the family's defaults.
    has_images: there are parts that see images, which are left out.
    """

    architecture: str
    naming: Naming
    metadata: dict[str, Any]
    tables: dict[str, tuple[float, ...]]
    tied: bool
    has_images: bool
    theirs: Mapping[str, Any]


def read_configuration(whole: Mapping[str, Any]) -> Configuration:
    """Raises ModelFormatError for a model that is not read, by what it is and the nearest that is."""
    text = whole.get("text_config", whole)
    if not isinstance(text, Mapping):
        raise ModelFormatError(f"config.json: text_config: expected keys and values, found {text!r}")
    architecture, naming = _family(text, whole)
    _refuse_quantised(whole, naming)
    config = {**naming.defaults, **text}
    _refuse_others(config, naming)
    keys = _plain_keys(config, naming)
    dim = _head_dim(config)
    keys["attention.key_length"] = keys["attention.value_length"] = dim
    rope, tables = _rope(config, dim, naming.whole_pairs)
    keys |= rope | dict(naming.constant)
    keys |= _windows(config) if not naming.other_layers else {}
    if naming.computed is not None:
        keys |= naming.computed(config)
    if (scalar := config.get("query_pre_attn_scalar")) is not None:
        keys["attention.scale"] = _number("query_pre_attn_scalar", scalar) ** -0.5
    tied = text.get("tie_word_embeddings", whole.get("tie_word_embeddings"))
    metadata = {"general.architecture": architecture}
    metadata |= {f"{architecture}.{key}": value for key, value in keys.items()}
    return Configuration(
        architecture, naming, metadata, tables, naming.tied if tied is None else bool(tied), text is not whole, config
    )


def _refuse_quantised(whole: Mapping[str, Any], naming: Naming) -> None:
    if (how := whole.get("quantization_config")) is None:
        return
    method = how.get("quant_method") if isinstance(how, Mapping) else how
    if not naming.quantised or method != naming.quantised:
        wanted = f" or {naming.quantised}" if naming.quantised else ""
        raise ModelFormatError(
            f"config.json: quantization_config: expected weights in F32, F16 or BF16{wanted}, found {method!r}; of"
            " quantised models the GGUF files are read"
        )


def _family(text: Mapping[str, Any], whole: Mapping[str, Any]) -> tuple[str, Naming]:
    known: dict[str, tuple[str, Naming]] = {}
    for architecture in architectures:
        naming = naming_of(architecture)
        known |= {name: (architecture, naming) for name in naming.types}
    kind = text.get("model_type", whole.get("model_type"))
    if isinstance(kind, str) and kind in known:
        if reason := known[kind][1].refused:
            raise ModelFormatError(f"config.json: model_type {kind!r}: {reason}; its GGUF files are read")
        return known[kind]
    read = sorted(name for name, (_, naming) in known.items() if not naming.refused)
    near = difflib.get_close_matches(str(kind), read, 1, 0.0)[0]
    experts = any(text.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts"))
    raise ModelFormatError(
        f"config.json: model_type: expected one of {', '.join(read)}, found {kind!r}"
        + (", a mixture of experts, which is not supported" if experts else f"; the nearest is {near!r}")
    )


def _refuse_others(config: Mapping[str, Any], naming: Naming) -> None:
    unknown = []
    for key, value in config.items():
        if key in naming.keys or key in KEYS or key in READ_HERE or key in HARMLESS or value is None:
            continue
        if key in naming.harmless:
            continue
        if key in OFF:
            if value not in OFF[key]:
                raise ModelFormatError(f"config.json: {key}: expected {OFF[key][0]!r}, found {value!r}: not supported")
        elif not key.startswith(HARMLESS_BEGINNINGS):
            unknown.append(key)
    if unknown:
        warnings.warn(
            f"config.json has keys that are not known, and what they ask for is not done: {', '.join(unknown)}",
            stacklevel=2,
        )


def _plain_keys(config: Mapping[str, Any], naming: Naming) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for key, name in (KEYS | dict(naming.keys)).items():
        if (value := config.get(key)) is not None:
            if not all(isinstance(one, bool | int | float | str) for one in _each(value)):
                raise ModelFormatError(f"config.json: {key}: expected a plain value, found {str(value)[:80]}")
            keys[name] = value
        elif key in config and key.endswith("softcapping"):
            keys[name] = 0.0  # null is none, where a missing key is the family's usual one
    return keys


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _number(key: str, value: Any, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least < value < 1e30:
        raise ModelFormatError(f"config.json: {key}: expected a number above {least:g}, found {value!r}")
    return float(value)


def _whole(key: str, value: Any, most: int) -> int:
    return whole_number({key: value}, key, most)


def _head_dim(config: Mapping[str, Any]) -> int:
    if config.get("head_dim") is not None:
        return _whole("head_dim", config["head_dim"], MOST_DIMS)
    hidden = _whole("hidden_size", config.get("hidden_size"), 1 << 31)
    heads = _whole("num_attention_heads", config.get("num_attention_heads"), 1 << 31)
    if hidden % heads:
        raise ModelFormatError(f"config.json: hidden_size: expected a multiple of the {heads} heads, found {hidden}")
    return _whole("hidden_size / num_attention_heads", hidden // heads, MOST_DIMS)


def _windows(config: Mapping[str, Any]) -> dict[str, Any]:
    """Which layers see a window: told for each, by a first layer that has one, or for all."""
    window, types = config.get("sliding_window"), config.get("layer_types")
    if types is not None:
        words = ("sliding_attention", "full_attention")
        if not isinstance(types, list) or any(one not in words for one in types):
            raise ModelFormatError(f"config.json: layer_types: expected {' or '.join(words)} for each, found {types!r}")
        sliding = [one == words[0] for one in types]
    elif "use_sliding_window" in config:
        layers = _whole("num_hidden_layers", config.get("num_hidden_layers"), MOST_LAYERS)
        first = config.get("max_window_layers", 28)
        if isinstance(first, bool) or not isinstance(first, int):
            raise ModelFormatError(f"config.json: max_window_layers: expected a whole number, found {first!r}")
        sliding = [bool(config["use_sliding_window"]) and layer >= first for layer in range(layers)]
    else:  # the family's own pattern
        return {} if window is None else {"attention.sliding_window": window}
    if not any(sliding) or window is None:
        return {"attention.sliding_window": 0}
    return {"attention.sliding_window": window, "attention.sliding_window_pattern": sliding}


def _rope(
    config: Mapping[str, Any], head_dim: int, whole_pairs: bool
) -> tuple[dict[str, Any], dict[str, tuple[float, ...]]]:
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise ModelFormatError(f"config.json: rope_parameters: expected keys and values, found {given!r}")
    keys: dict[str, Any] = {}
    local = config.get("rope_local_base_freq")
    if isinstance(given.get("full_attention"), Mapping):  # one for each type of layers
        others = given.get("sliding_attention")
        if isinstance(others, Mapping):
            if others.get("rope_type", "default") != "default":
                raise ModelFormatError("config.json: rope_parameters: sliding_attention: expected the default rope")
            local = others.get("rope_theta", local)
        given = given["full_attention"]
    base = given.get("rope_theta", config.get("rope_theta", 10000.0))
    keys["rope.freq_base"] = _number("rope_theta", base)
    if local is not None:
        keys["rope.freq_base_swa"] = _number("rope_local_base_freq", local)
    share = _number("partial_rotary_factor", given.get("partial_rotary_factor", config.get("partial_rotary_factor", 1)))
    dims = keys["rope.dimension_count"] = int(head_dim * min(share, 1.0))
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "default" or (kind == "mrope" and "mrope_section" in given):
        return keys, {}
    if not isinstance(kind, str) or kind not in _SCALINGS:
        raise ModelFormatError(
            f"config.json: rope_type: expected default, {', '.join(_SCALINGS)}, found {kind!r}, which is not supported"
        )
    context = _whole("max_position_embeddings", config.get("max_position_embeddings"), 1 << 31)
    trained = given.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    if trained is None:
        trained = context
    keys["rope.scaling.original_context_length"] = trained = _whole(
        "original_max_position_embeddings", trained, 1 << 31
    )
    factor = given.get("factor")
    if factor is None:
        factor = context / trained
    if kind == "yarn" and given.get("truncate", True) is not whole_pairs:
        expected, found = str(whole_pairs).lower(), str(given.get("truncate", True)).lower()
        raise ModelFormatError(f"config.json: truncate: expected {expected}, found {found}, which is not supported")
    more, tables = _SCALINGS[kind](given, _number("factor", factor), trained, keys["rope.freq_base"], dims)
    return keys | more, tables


_Scaling = tuple[dict[str, Any], dict[str, tuple[float, ...]]]


def _linear(given: Mapping[str, Any], factor: float, trained: int, base: float, dims: int) -> _Scaling:
    return {"rope.scaling.type": "linear", "rope.scaling.factor": factor}, {}


def _yarn(given: Mapping[str, Any], factor: float, trained: int, base: float, dims: int) -> _Scaling:
    keys = {"rope.scaling.type": "yarn", "rope.scaling.factor": factor}
    for key in ("beta_fast", "beta_slow"):
        if given.get(key) is not None:
            keys[f"rope.scaling.yarn_{key}"] = _number(key, given[key])
    if (magnitude := given.get("attention_factor")) is None:
        over, under = given.get("mscale"), given.get("mscale_all_dim")
        magnitude = _magnitude(factor, 1.0)
        if over and under:
            magnitude = _magnitude(factor, _number("mscale", over)) / _magnitude(factor, _number("mscale", under))
    keys["rope.scaling.yarn_attn_factor"] = _number("attention_factor", magnitude)
    if (beta := given.get("llama_4_scaling_beta")) is not None:
        keys["attention.temperature_scale"] = beta
    return keys, {}


def _magnitude(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0


def _llama3(given: Mapping[str, Any], factor: float, trained: int, base: float, dims: int) -> _Scaling:
    """Slow pairs turn ``factor`` times slower, fast ones as they did; as transformers computes it."""
    low, high = (_number(key, given.get(key)) for key in ("low_freq_factor", "high_freq_factor"))
    if low >= high:
        raise ModelFormatError(f"config.json: high_freq_factor: expected above {low:g}, found {high:g}")
    divisors = []
    for i in range(dims // 2):
        turns = trained / (2 * math.pi * base ** (2 * i / dims))  # in the trained context
        kept = 1.0 if turns > high else 0.0 if turns < low else (turns - low) / (high - low)
        divisors.append(1 / ((1 - kept) / factor + kept))
    return {}, {"rope_freqs.weight": tuple(divisors)}


def _longrope(given: Mapping[str, Any], factor: float, trained: int, base: float, dims: int) -> _Scaling:
    tables = {}
    for length in ("short", "long"):
        values = given.get(f"{length}_factor")
        if not isinstance(values, list) or len(values) != dims // 2:
            raise ModelFormatError(f"config.json: {length}_factor: expected {dims // 2} numbers, found {values!r:.80}")
        tables[f"rope_factors_{length}.weight"] = tuple(_number(f"{length}_factor", one) for one in values)
    if (magnitude := given.get("attention_factor")) is None:
        magnitude = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 and trained > 1 else 1.0
    keys = {"rope.scaling.type": "longrope", "rope.scaling.attn_factor": _number("attention_factor", magnitude)}
    return keys, tables


_SCALINGS = {"linear": _linear, "yarn": _yarn, "llama3": _llama3, "longrope": _longrope, "su": _longrope}
