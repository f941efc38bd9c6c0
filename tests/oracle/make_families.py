"""Makes families.json and hf_configs.json with Hugging Face transformers and torch:
``python tests/oracle/make_families.py``.

The weights are those of tests/python/families.py, random and the same everywhere. The forward pass is in float64, also
where transformers asks for float32: angles of rope rounded to that would be most of the difference. Run once; the
values are committed. Names of families as arguments make those anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python"))

import families  # noqa: E402
import hf_directories  # noqa: E402
import synthetic  # noqa: E402
from families import FAMILIES, FFN, HEADS, HIDDEN, KV_HEADS, LAYERS, Family  # noqa: E402

torch.float = torch.float32 = torch.float64
torch.Tensor.float = torch.Tensor.double
torch.set_default_dtype(torch.float64)

IDS = [int(i) for i in np.random.default_rng(23).integers(0, 256, 100)]
SHORT = 12
POSITIONS = [0, 1, 11, 23, 24, 33, 64, 99]
CLASSES = {
    "llama": "Llama",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "qwen3vl": "Qwen3",  # text alone
    "smollm3": "SmolLM3",
    "mistral3": "Ministral3",
    "granite": "Granite",
    "qwen3moe": "Qwen3Moe",
    "granitemoe": "GraniteMoeShared",
    "gpt-oss": "GptOss",
    "phi3": "Phi3",
    "gemma2": "Gemma2",
    "olmo2": "Olmo2",
    "glm4": "Glm4",
    "starcoder2": "Starcoder2",
    "exaone": "Llama",  # the same function, under names of its own
    "internlm2": "Llama",
    "lfm2": "Lfm2",
    "lfm2moe": "Lfm2Moe",
    "qwen35": "Qwen3_5",
    "qwen35moe": "Qwen3_5Moe",
}
TEXT_CONFIGS = ("Qwen3_5", "Qwen3_5Moe")  # of which the others have images, too


def their_weights(family: Family) -> dict[str, torch.Tensor]:
    theirs = hf_directories.in_memory(family)
    return {name: torch.from_numpy(values).double() for name, values in theirs.items()}


def config_of(name: str, family: Family) -> Any:
    keys = dict(family.keys)
    kind = CLASSES[family.arch] if name != "olmo3" else "Olmo3"
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": keys.get("rope.freq_base", 10000.0)}
    if keys.get("rope.scaling.type") == "yarn":
        rope |= {
            "rope_type": "yarn",
            "factor": keys["rope.scaling.factor"],
            "original_max_position_embeddings": keys["rope.scaling.original_context_length"],
            "beta_fast": keys["rope.scaling.yarn_beta_fast"],
            "beta_slow": keys["rope.scaling.yarn_beta_slow"],
        }
    fields: dict[str, Any] = {
        "vocab_size": synthetic.VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": families.CONTEXT,
        "head_dim": family.head_dim,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": family.tied,
        "rope_parameters": rope,
        "attn_implementation": "eager",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    window = keys.get("attention.sliding_window")
    if family.arch == "llama":
        fields |= {"attention_bias": bool(family.biases)}
    if family.arch == "mistral3":
        rope |= {"mscale": 1.0, "mscale_all_dim": keys["rope.scaling.yarn_log_multiplier"]}
        rope |= {"llama_4_scaling_beta": keys["attention.temperature_scale"]}
        fields |= {"sliding_window": None}
    if family.arch in ("granite", "granitemoe"):
        fields |= {
            "attention_multiplier": keys["attention.scale"],
            "embedding_multiplier": keys["embedding_scale"],
            "residual_multiplier": keys["residual_scale"],
            "logits_scaling": keys["logit_scale"],
        }
    if family.experts:
        fields |= {"experts_implementation": "eager"}  # the others know no float64
    if family.arch == "qwen3moe":
        fields |= {
            "num_experts": keys["expert_count"],
            "num_experts_per_tok": keys["expert_used_count"],
            "moe_intermediate_size": keys["expert_feed_forward_length"],
            "norm_topk_prob": keys.get("expert_weights_norm", True),
        }
    if family.arch == "granitemoe":
        fields |= {
            "num_local_experts": keys["expert_count"],
            "num_experts_per_tok": keys["expert_used_count"],
            "shared_intermediate_size": family.shared_ffn,
        }
    if family.arch == "gpt-oss":
        rope |= {"truncate": False}
        fields |= {
            "num_local_experts": keys["expert_count"],
            "num_experts_per_tok": keys["expert_used_count"],
            "intermediate_size": keys["expert_feed_forward_length"],
            "sliding_window": window,
        }
    if family.arch == "phi3":
        long = keys["rope.scaling.original_context_length"] < families.CONTEXT
        factors = list(family.factors["rope_factors_long.weight" if long else "rope_factors_short.weight"])
        # Which table is taken the length of a prompt tells there: both are the one that Foundry takes for the context.
        rope |= {
            "rope_type": "longrope",
            "long_factor": factors,
            "short_factor": factors,
            "attention_factor": keys["rope.scaling.attn_factor"],
            "original_max_position_embeddings": keys["rope.scaling.original_context_length"],
            "partial_rotary_factor": keys["rope.dimension_count"] / family.head_dim,
        }
        fields |= {"original_max_position_embeddings": keys["rope.scaling.original_context_length"]}
        fields |= {"sliding_window": window, "partial_rotary_factor": rope["partial_rotary_factor"]}
    if family.arch == "gemma2":
        fields |= {
            "sliding_window": window,
            "attn_logit_softcapping": keys["attn_logit_softcapping"],
            "final_logit_softcapping": keys["final_logit_softcapping"],
            "query_pre_attn_scalar": family.head_dim,
        }
    if name == "olmo3":
        pattern = keys["attention.sliding_window_pattern"]
        fields |= {"sliding_window": window}
        fields |= {"layer_types": ["sliding_attention" if one else "full_attention" for one in pattern]}
        plain = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
        fields |= {"rope_parameters": {"full_attention": rope, "sliding_attention": plain}}
    if family.arch == "glm4":
        rope |= {"partial_rotary_factor": keys["rope.dimension_count"] / family.head_dim}
        fields |= {"partial_rotary_factor": rope["partial_rotary_factor"], "attention_bias": True}
    if family.arch == "starcoder2":
        fields |= {"sliding_window": window, "norm_epsilon": 1e-5, "use_bias": True}
        fields |= {"hidden_act": "gelu_pytorch_tanh"}
        del fields["rms_norm_eps"]
    if family.arch in ("lfm2", "lfm2moe"):
        fields |= {
            "norm_eps": fields.pop("rms_norm_eps"),
            "conv_L_cache": family.taps,
            "conv_bias": "conv" in family.biases,
            "layer_types": ["full_attention" if heads else "conv" for heads in family.kv_heads],
        }
    if family.arch == "lfm2":
        fields |= {"block_auto_adjust_ff_dim": False}
    if family.arch == "lfm2moe":
        fields |= {
            "num_experts": keys["expert_count"],
            "num_experts_per_tok": keys["expert_used_count"],
            "moe_intermediate_size": keys["expert_feed_forward_length"],
            "num_dense_layers": family.dense,
        }
    if family.delta:
        k_heads, v_heads, head_k, head_v = family.delta
        rope |= {"partial_rotary_factor": keys.get("rope.dimension_count", family.head_dim) / family.head_dim}
        rope |= {"mrope_section": keys["rope.dimension_sections"][:3], "mrope_interleaved": True}
        kinds = [
            "linear_attention" if families.recurrent(family, layer) else "full_attention" for layer in range(LAYERS)
        ]
        fields |= {
            "layer_types": kinds,
            "linear_conv_kernel_dim": family.taps,
            "linear_num_key_heads": k_heads,
            "linear_num_value_heads": v_heads,
            "linear_key_head_dim": head_k,
            "linear_value_head_dim": head_v,
            "partial_rotary_factor": rope["partial_rotary_factor"],
        }
    if family.arch == "qwen35moe":
        fields |= {
            "num_experts": keys["expert_count"],
            "num_experts_per_tok": keys["expert_used_count"],
            "moe_intermediate_size": keys["expert_feed_forward_length"],
            "shared_expert_intermediate_size": keys["expert_shared_feed_forward_length"],
        }
    if family.arch == "smollm3":
        fields |= {"no_rope_layer_interval": 4, "use_sliding_window": False}
    config = f"{kind}TextConfig" if kind in TEXT_CONFIGS else f"{kind}Config"
    return getattr(transformers, config)(**fields), getattr(transformers, f"{kind}ForCausalLM")


def frequencies_as_factors(model: Any, family: Family) -> None:
    """Divides rope's frequencies by the file's own divisors, which transformers would have made of a configuration."""
    factors = torch.tensor(family.factors["rope_freqs.weight"])
    model.model.rotary_emb.inv_freq /= factors
    model.model.rotary_emb.original_inv_freq = model.model.rotary_emb.inv_freq


def make(name: str, family: Family) -> dict[str, Any]:
    config, kind = config_of(name, family)
    model = kind(config).eval()
    weights = their_weights(family)
    output_bias = weights.pop("lm_head.bias", None)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected, (name, missing, unexpected)
    if family.tied:
        model.tie_weights()
    if "rope_freqs.weight" in family.factors:
        frequencies_as_factors(model, family)
    with torch.no_grad():
        out = model(torch.tensor([IDS]), output_attentions=True)
        short = model(torch.tensor([IDS[:SHORT]])).logits[0].numpy()
    logits = out.logits[0].double().numpy()
    if output_bias is not None:
        logits, short = logits + output_bias.numpy(), short + output_bias.numpy()
    assert np.abs(short - logits[:SHORT]).max() < 1e-5 * np.ptp(logits), name
    attention = torch.stack(out.attentions).double()  # [layers, 1, heads, n, n]
    entropy = -(attention * attention.clamp_min(1e-30).log()).sum(-1)[..., 50:].mean()
    print(f"{name}: range {np.ptp(logits):.2f}, entropy of attention {entropy:.2f} of {np.log(75):.2f} nats")
    return {
        "entropy": round(float(entropy), 3),
        "range": round(float(np.ptp(logits)), 4),
        "most_likely": [int(x) for x in logits.argmax(1)],
        "logits": [[float(f"{x:.7g}") for x in logits[p][::5]] for p in POSITIONS],
    }


def main() -> None:
    path = HERE / "families.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"families": {}}
    wanted = sys.argv[1:] or list(FAMILIES)
    made = known["families"] | {name: make(name, FAMILIES[name]) for name in wanted}
    values = {
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "ids": IDS,
        "positions": POSITIONS,
        "every": 5,
        "families": {name: made[name] for name in FAMILIES if name in made},
    }
    path.write_text(json.dumps(values) + "\n", encoding="utf-8")
    configs = {name: config_of(name, family)[0].to_diff_dict() for name, family in FAMILIES.items()}
    (HERE / "hf_configs.json").write_text(json.dumps(configs) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
