"""Makes gemma3.json with Hugging Face transformers: ``python tests/oracle/make_gemma3.py`` (transformers and torch).

The weights are those of tests/python/synthetic.py, random and the same everywhere; every third layer sees everything,
the others a window of 32. Run once; the values are committed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python"))

import synthetic  # noqa: E402

SHAPE = {"arch": "gemma3", "layers": 6, "window": 32, "full_every": 3, "rope_base": 1e6, "rope_scaling": 4.0}
IDS = [int(i) for i in np.random.default_rng(17).integers(0, 256, 160)]
POSITIONS = [0, 1, 31, 32, 33, 63, 64, 100, 159]
NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def their_name(name: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, weight, _ = name.split(".")
    return f"model.layers.{layer}.{NAMES[weight]}.weight"


def main() -> None:
    shape = synthetic.Shape(type="f32", **SHAPE)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        reader = gguf.GGUFReader(str(synthetic.write(Path(folder) / "gemma3.gguf", shape)))
        weights = {}
        for t in reader.tensors:
            values = torch.from_numpy(np.array(t.data, dtype=np.float32))
            weights[their_name(t.name)] = values - 1 if "norm" in t.name else values  # GGUF holds 1 + w
    config = transformers.Gemma3TextConfig(
        vocab_size=synthetic.VOCAB,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_seq_len,
        rms_norm_eps=1e-5,
        sliding_window=shape.window,
        query_pre_attn_scalar=shape.head_dim,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": shape.rope_scaling, "rope_theta": shape.rope_base},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        attn_implementation="eager",
    )
    model = transformers.Gemma3ForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    model.tie_weights()
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0].numpy()
    values = {
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "shape": SHAPE,
        "ids": IDS,
        "positions": POSITIONS,
        "logits": [[round(float(x), 6) for x in logits[p]] for p in POSITIONS],
        "most_likely": [int(x) for x in logits.argmax(1)],
    }
    (HERE / "gemma3.json").write_text(json.dumps(values) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
