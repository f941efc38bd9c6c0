"""What a file says about its model, held against what the graph does with it: keys and tensors that are not understood
would be left out in silence, and the answers would be those of another model.

The names are those of llama.cpp's tables (src/llama-arch.cpp, LLM_KV_NAMES and LLM_TENSOR_NAMES, 2026-11).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from foundry._core import Graph
from foundry.errors import ModelFormatError
from foundry.models.header import Header, refuse_others

# Keys under the architecture's name that change no logit of the decoders here, whatever their value.
HARMLESS_KEYS = {
    "vocab_size": "the embedding's rows count",
    "tensor_data_layout": "history of the file",
    "pooling_type": "how embeddings are pooled; logits are not",
    "attention.layer_norm_epsilon": "of layer norms, where there are none",
    "attention.group_norm_epsilon": "of group norms, likewise",
    "attention.group_norm_groups": "of group norms, likewise",
    "classifier.output_labels": "names of a classifier's outputs",
    "decoder_start_token_id": "of encoders with a decoder",
    "leading_dense_block_count": "of experts, and expert_count says that there are none",
    "interleave_moe_layer_step": "of experts, likewise",
    "moe_every_n_layers": "of experts, likewise",
    "rope.scaling.original_context_length": "of a scaling that is not there; of llama3, see rope_freqs.weight",
    "rope.scaling.finetuned": "history of the model",
    "rope.scaling.low_freq_factor": "of llama3, whose result is in rope_freqs.weight",
    "rope.scaling.high_freq_factor": "of llama3, likewise",
    "rope.scaling.yarn_beta_fast": "of yarn, where there is none",
    "rope.scaling.yarn_beta_slow": "of yarn, where there is none",
}
HARMLESS_KEY_GROUPS = ("expert_", "vision.", "mm.", "dense_2_", "dense_3_")  # after those that OFF names

# Keys that change logits, with the values at which they do nothing. What an architecture reads itself is asked of it.
OFF: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.compress_ratios": (0,),
    "attention.decay_lora_rank": (0,),
    "attention.gate_lora_rank": (0,),
    "attention.iclr_lora_rank": (0,),
    "attention.key_length_mla": (0,),
    "attention.kv_lora_rank": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.output_group_count": (0,),
    "attention.output_lora_rank": (0,),
    "attention.output_scale": (0, 1),
    "attention.q_lora_rank": (0,),
    "attention.recurrent_layers": (0,),
    "attention.relative_buckets_count": (0,),
    "attention.shared_kv_layers": (0,),
    "attention.temperature_length": (0,),
    "attention.temperature_scale": (0,),
    "attention.value_length_mla": (0,),
    "attention.value_residual_mix_lora_rank": (0,),
    "attention.value_scale": (0, 1),
    "attn_logit_softcapping": (0,),
    "decoder_block_count": (0,),
    "deepstack_mapping": (-1,),
    "embedding_length_per_layer_input": (0,),
    "expert_chunk_feed_forward_length": (0,),
    "expert_count": (0,),
    "expert_feed_forward_length": (0,),
    "expert_shared_count": (0,),
    "expert_shared_feed_forward_length": (0,),
    "expert_used_count": (0,),
    "final_logit_softcapping": (0,),
    "full_attention_interval": (0, 1),
    "hash_layer_count": (0,),
    "logit_scale": (0, 1),
    "moe_latent_size": (0,),
    "n_deepstack_layers": (0,),
    "nextn_predict_layers": (0,),
    "norm_before_residual": (False,),
    "rescale_every_n_layers": (0,),
    "residual_scale": (0, 1),
    "rope.dimension_sections": (0,),
    "rope.scaling.alpha": (0, 1),
    "rope.scaling.attn_factor": (0, 1),
    "rope.scaling.yarn_attn_factor": (0, 1),
    "rope.scaling.yarn_ext_factor": (-1, 0),
    "rope.scaling.yarn_log_multiplier": (0,),
    "router_logit_softcapping": (0,),
    "swiglu_clamp_exp": (0,),
    "swiglu_clamp_shexp": (0,),
    "swin_norm": (False,),
    "target_hidden_size": (0,),
    "time_decay_extra_dim": (0,),
    "time_mix_extra_dim": (0,),
    "token_shift_count": (0,),
    "use_parallel_residual": (False,),
}
OFF_GROUPS = ("attention.indexer.", "convnext.", "hyper_connection.", "kda.", "posnet.", "shortconv.", "ssm.", "wkv.")

# Tensors that change nothing, with the reason.
HARMLESS_TENSORS = {
    r"(blk\.\d+\.)?attn_rot_embd(\.weight)?": "rope's frequencies as old converters left them; rope.freq_base has them",
    r"(.*\.)?rotary_emb\.inv_freq|rope\.freqs": "the same under the names of the models' first files",
    r"(v|mm)\..*": "what sees images, and no image comes here",
}
KINDS_OF_FILES = {
    "adapter": "a LoRA adapter",
    "mmproj": "the part of a model that sees images",
    "imatrix": "an importance matrix",
    "vocab": "a vocabulary",
}


def refuse_other_kinds(metadata: Mapping[str, Any]) -> None:
    kind = metadata.get("general.type", "model")
    if isinstance(kind, str) and kind in KINDS_OF_FILES:
        raise ModelFormatError(f"general.type: expected model, found {kind!r}: {KINDS_OF_FILES[kind]}")


def refuse_keys(header: Header) -> None:
    """Raises ModelFormatError for a key, beside those that the architecture read, that asks for what no graph does.

    Keys of the architecture that nobody knows are named in one warning.
    """
    unknown = []
    has_experts = f"{header.architecture}.expert_count" in header.keys_read
    for name, value in header.metadata.items():
        key = name.removeprefix(header.architecture + ".")
        if key == name or name in header.keys_read or key in HARMLESS_KEYS:
            continue
        if key in OFF:
            refuse_others(name, value, OFF[key])
        elif key.startswith(OFF_GROUPS):
            refuse_others(name, value, (0,))
        elif not key.startswith(HARMLESS_KEY_GROUPS) or (key.startswith("expert_") and has_experts):
            unknown.append(name)
    if unknown:
        warnings.warn(
            f"this model file has keys that are not known, and what they ask for is not done: {', '.join(unknown)}",
            stacklevel=2,
        )


def refuse_tensors(header: Header, graph: Graph) -> None:
    """Raises ModelFormatError for tensors of the file that the graph does not use, but for the harmless ones."""
    unused = header.tensors.keys() - set(graph.weight_names()) - header.tensors_left
    left = sorted(name for name in unused if not any(re.fullmatch(form, name) for form in HARMLESS_TENSORS))
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise ModelFormatError(
            f"tensors: expected those of a {header.architecture} with {graph.arch.n_layers} layers and no others,"
            f" found {left[0]!r}{more}; without them the answers would be another model's"
        )
