"""Model directories in Hugging Face's form, of the same models as the GGUF files of ``families.py``.

The names and orders are those before llama.cpp's converter: what it does to weights is undone here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import families
import numpy as np
import numpy.typing as npt
import safetensors.numpy
import synthetic
import tokenizers
from families import HEADS, KV_HEADS, LAYERS, Array, Family

REORDERED = {"llama", "smollm3", "mistral3", "granite", "granitemoe", "internlm2"}  # Q and K, by converters
LESS_ONE = {"gemma2", "gemma3", "qwen35", "qwen35moe"}  # scales of norms
NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GEMMA = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
LFM2 = {
    "attn_norm": "operator_norm",
    "attn_output": "self_attn.out_proj",
    "attn_q_norm": "self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_layernorm",
    "shortconv.in_proj": "conv.in_proj",
    "shortconv.conv": "conv.conv",
    "shortconv.out_proj": "conv.out_proj",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "feed_forward.w1",
    "ffn_up": "feed_forward.w3",
    "ffn_down": "feed_forward.w2",
    "ffn_gate_inp": "feed_forward.gate",
    "exp_probs_b": "feed_forward.expert",
}
QWEN35 = {
    "post_attention_norm": "post_attention_layernorm",
    "attn_qkv": "linear_attn.in_proj_qkv",
    "attn_gate": "linear_attn.in_proj_z",
    "ssm_beta": "linear_attn.in_proj_b",
    "ssm_alpha": "linear_attn.in_proj_a",
    "ssm_conv1d": "linear_attn.conv1d",
    "ssm_norm": "linear_attn.norm",
    "ssm_out": "linear_attn.out_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
}
OWN_NAMES = {
    "qwen35": QWEN35,
    "qwen35moe": QWEN35,
    "lfm2": LFM2,
    "lfm2moe": LFM2,
    "gemma2": GEMMA,
    "gemma3": GEMMA,
    "olmo2": {
        "post_attention_norm": "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
    "glm4": {
        "post_attention_norm": "post_self_attn_layernorm",
        "post_ffw_norm": "post_mlp_layernorm",
        "ffn_up": "mlp.gate_up_proj",
    },
    "phi3": {"ffn_up": "mlp.gate_up_proj"},
    "starcoder2": {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
    "qwen3moe": {"ffn_gate_inp": "mlp.gate"},
    "gpt-oss": {"ffn_gate_inp": "mlp.router", "post_attention_norm": "post_attention_layernorm"},
    "granitemoe": {"ffn_gate_inp": "block_sparse_moe.router", "ffn_down_shexp": "shared_mlp.output_linear"},
}
JOINED = ("_exps.weight", "_exps.bias", "attn_sinks.weight")
JOINED_SHARED = ("ffn_gate_shexp.weight", "ffn_up_shexp.weight")
OWN_EXPERTS = {
    "qwen3moe": ("gate_proj", "up_proj", "down_proj"),
    "qwen35moe": ("gate_proj", "up_proj", "down_proj"),
    "lfm2moe": ("w1", "w3", "w2"),
}
GRANITE_ON_DISK = {
    "block_sparse_moe.experts.gate_up_proj": "block_sparse_moe.input_linear.weight",
    "block_sparse_moe.experts.down_proj": "block_sparse_moe.output_linear.weight",
    "block_sparse_moe.router.weight": "block_sparse_moe.router.layer.weight",
}
CONFIGS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "oracle" / "hf_configs.json").read_text(encoding="utf-8")
)


def their_name(arch: str, name: str) -> str:
    top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    top |= {"token_embd_norm": "model.embedding_norm"}
    stem, _, kind = name.rpartition(".")
    if stem in top:
        return f"{top[stem]}.{kind}"
    _, layer, weight = stem.split(".", 2)
    theirs = f"model.layers.{layer}.{(NAMES | OWN_NAMES.get(arch, {}))[weight]}"
    return f"{theirs}_{kind}" if weight == "exp_probs_b" else f"{theirs}.{kind}"


def as_it_was(values: Array, heads: int) -> Array:
    """Rows of Q or K in the order before the converter's: pairs (2i, 2i + 1) of a head back to (i, i + half)."""
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)


def their_tensors(arch: str, tensors: Mapping[str, Array], heads: int, kv_heads: int) -> dict[str, Array]:
    """Of a GGUF file's tensors, under the names and in the order that they had before the converter."""
    found: dict[str, Array] = {}
    for name, values in tensors.items():
        weight = name.rpartition(".")[0].rpartition(".")[2]
        if name.startswith("rope_"):
            continue
        if weight == "attn_qkv" and arch not in ("phi3", "qwen35", "qwen35moe"):
            unit = values.shape[0] // (heads + 2 * kv_heads)
            parts = np.split(values, [heads * unit, (heads + kv_heads) * unit])
            found |= {
                name.replace(weight, part): one for part, one in zip(("attn_q", "attn_k", "attn_v"), parts, strict=True)
            }
        else:
            found[name] = values
    result = {}
    for name, values in found.items():
        weight = name.rpartition(".")[0].rpartition(".")[2]
        if arch in REORDERED and weight in ("attn_q", "attn_k"):
            values = as_it_was(values, heads if weight == "attn_q" else kv_heads)
        if arch in LESS_ONE and "norm" in weight and weight != "ssm_norm":
            values = values - 1
        if weight in ("conv", "ssm_conv1d") and values.ndim == 2:
            values = values[:, None]
        if weight == "ffn_gate_inp_shexp":
            values = values[None]
        result[their_name(arch, name)] = np.ascontiguousarray(values)
    return result


def in_memory(family: Family) -> dict[str, Array]:
    """As transformers 5 names them and holds them: gates and ups of experts are one tensor."""
    tensors = families.tensors_of(family)
    joined = joined_experts(family, tensors)
    if family.delta:
        tensors, scalars = before_converting(family, tensors)
        joined |= scalars
    apart = JOINED if family.delta else JOINED + JOINED_SHARED
    plain = {name: values for name, values in tensors.items() if not name.endswith(apart)}
    return their_tensors(family.arch, plain, HEADS, KV_HEADS) | joined


def their_weights(family: Family, joined: bool = False) -> dict[str, Array]:
    """As transformers writes them (conversion_mapping.py there): each expert has tensors of its own, but for Granite's
    and gpt-oss's, whose names are others.

    Args:
        joined: as they are in memory, which some directories have.
    """
    theirs = in_memory(family)
    if family.arch == "granitemoe":
        return {_granites(name): values for name, values in theirs.items()}
    if joined or family.arch not in OWN_EXPERTS:
        return theirs
    gate, up, down = OWN_EXPERTS[family.arch]
    found: dict[str, Array] = {}
    for name, values in theirs.items():
        at, _, last = name.rpartition(".")
        if not at.endswith("experts"):
            found[name] = values
            continue
        for expert, one in enumerate(values):
            parts = {down: one} if last == "down_proj" else dict(zip((gate, up), np.split(one, 2), strict=True))
            found |= {f"{at}.{expert}.{part}.weight": np.ascontiguousarray(v) for part, v in parts.items()}
    return found


def _granites(name: str) -> str:
    for ours, theirs in GRANITE_ON_DISK.items():
        name = name.replace(ours, theirs)
    return name


def before_converting(family: Family, tensors: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Of delta nets: heads of V that share one of Q and K stand side by side there, where GGUF has them in turns. And
    apart, by their names, what is no weight of a layer of theirs."""
    k_heads, v_heads, head_k, head_v = family.delta
    plain: dict[str, Array] = {}
    apart: dict[str, Array] = {}

    def side_by_side(values: Array, size: int) -> Array:
        in_turns = values.reshape(v_heads // k_heads, k_heads, size, *values.shape[1:])
        return np.ascontiguousarray(in_turns.swapaxes(0, 1)).reshape(values.shape)

    for name, values in tensors.items():
        at, _, weight = name.rpartition(".") if name.endswith("ssm_a") else name.removesuffix(".weight").rpartition(".")
        theirs = f"model.layers.{at.split('.')[1]}.linear_attn." if at.startswith("blk.") else ""
        if weight == "ssm_a":
            apart[theirs + "A_log"] = np.log(-side_by_side(values, 1))
        elif name.endswith("ssm_dt.bias"):
            apart[theirs + "dt_bias"] = side_by_side(values, 1)
        elif weight in ("ssm_conv1d", "attn_qkv"):
            keys = 2 * k_heads * head_k
            plain[name] = np.concatenate([values[:keys], side_by_side(values[keys:], head_v)])
        elif weight in ("attn_gate", "ssm_beta", "ssm_alpha"):
            plain[name] = side_by_side(values, head_v if weight == "attn_gate" else 1)
        elif weight == "ssm_out":
            plain[name] = np.ascontiguousarray(side_by_side(np.ascontiguousarray(values.T), head_v).T)
        else:
            plain[name] = values
    return plain, apart


def joined_experts(family: Family, tensors: dict[str, Array]) -> dict[str, Array]:
    """By their names: gates and ups of experts are one tensor there, the gates first; of gpt-oss in turns, and each
    is [experts, inputs, outputs]."""
    block = {"granitemoe": "block_sparse_moe", "lfm2moe": "feed_forward"}.get(family.arch, "mlp")
    found: dict[str, Array] = {}
    for layer in range(family.dense, LAYERS if family.experts else 0):
        ours, theirs = f"blk.{layer}.ffn_", f"model.layers.{layer}."
        if family.arch == "gpt-oss":
            for kind, end in (("weight", ""), ("bias", "_bias")):
                both = np.stack([tensors[f"{ours}{part}_exps.{kind}"] for part in ("gate", "up")], axis=2)
                both = both.reshape(family.experts, 2 * family.expert_ffn, *both.shape[3:])
                down = tensors[f"{ours}down_exps.{kind}"]
                if kind == "weight":
                    both, down = both.swapaxes(1, 2), down.swapaxes(1, 2)
                found[f"{theirs}mlp.experts.gate_up_proj{end}"] = np.ascontiguousarray(both)
                found[f"{theirs}mlp.experts.down_proj{end}"] = np.ascontiguousarray(down)
            found[f"{theirs}self_attn.sinks"] = tensors[f"blk.{layer}.attn_sinks.weight"]
            continue
        gate_up = [tensors[f"{ours}{part}_exps.weight"] for part in ("gate", "up")]
        found[f"{theirs}{block}.experts.gate_up_proj"] = np.concatenate(gate_up, axis=1)
        found[f"{theirs}{block}.experts.down_proj"] = tensors[f"{ours}down_exps.weight"]
        if family.shared_ffn and not family.delta:
            shared = [tensors[f"{ours}{part}_shexp.weight"] for part in ("gate", "up")]
            found[f"{theirs}shared_mlp.input_linear.weight"] = np.concatenate(shared)
    return found


def bf16(values: Array) -> npt.NDArray[np.uint16]:
    """The bits of the nearest bf16, of ties the even one."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def rounded(values: Array, kind: str) -> Array:
    """To "float16" or "bfloat16", as F32."""
    if kind == "float16":
        return values.astype(np.float16).astype(np.float32)
    return (bf16(values).astype(np.uint32) << 16).view(np.float32)


def save(path: Path, tensors: Mapping[str, Array], kind: str = "") -> None:
    """By the library; "float16" and "bfloat16" round. numpy has no bfloat16, so that file is put together here."""
    if kind != "bfloat16":
        same = {name: np.ascontiguousarray(v.astype(kind) if kind else v) for name, v in tensors.items()}
        safetensors.numpy.save_file(same, path, {"format": "pt"})
        return
    header, data = {}, b""
    for name, values in tensors.items():
        begin, data = len(data), data + bf16(values).tobytes()
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [begin, len(data)]}
    path.write_bytes(with_header(header, data))


def with_header(header: Any, data: bytes) -> bytes:
    """A safetensors file: the length of the header, itself as JSON filled up to eight bytes, and the data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def write_directory(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Any], shards: int = 1, kind: str = ""
) -> Path:
    """config.json and the weights, in one file or in ``shards`` with their index; ``kind`` as ``save`` has it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if shards == 1:
        save(folder / "model.safetensors", tensors, kind)
        return folder
    index: dict[str, str] = {}
    for i, names in enumerate(np.array_split(sorted(tensors), shards)):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save(folder / file, {str(name): tensors[name] for name in names}, kind)
        index |= {str(name): file for name in names}
    text = json.dumps({"metadata": {"total_size": 0}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    return folder


def write(folder: Path, name: str, shards: int = 1) -> Path:
    """The directory of one of ``FAMILIES``."""
    return write_tokenizer(write_directory(folder, CONFIGS[name], their_weights(families.FAMILIES[name]), shards))


def byte_level_tokenizer() -> tokenizers.Tokenizer:
    """The library's own of ``synthetic.add_byte_tokenizer``: bytes, and ChatML's tokens beside them."""
    names = synthetic.byte_tokens()
    made = tokenizers.Tokenizer(tokenizers.models.BPE({name: i for i, name in enumerate(names[:256])}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(names[256:])
    return made


def write_tokenizer(folder: Path, made: tokenizers.Tokenizer | None = None, **config: Any) -> Path:
    """tokenizer.json and the files beside it; by default those of ``byte_level_tokenizer``."""
    if made is None:
        made = byte_level_tokenizer()
        config = {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}, "add_bos_token": False} | config
    made.save(str(folder / "tokenizer.json"))
    generation = config.pop("generation", None)
    template = config.pop("template", synthetic.CHATML)
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder
