"""Makes k_quants.json with Hugging Face transformers and torch:
``python tests/oracle/make_k_quants.py SMOLLM2.gguf IDS``, where IDS is a file of the text's first 4,001 token ids.

SmolLM2 filled up to rows of 768 (tests/python/padded.py), quantised by the tests' quantisers, and what the blocks stand
for in F32: log-probabilities of 4,000 positions of real text. Run once; the values are committed.
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

import padded  # noqa: E402

NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}


def their_state(path: Path) -> dict[str, torch.Tensor]:
    state = {}
    for tensor in gguf.GGUFReader(str(path)).tensors:
        values, parts = np.array(tensor.data), tensor.name.split(".")
        if parts[0] != "blk":
            state[TOP[parts[0]]] = torch.from_numpy(values)
            continue
        if parts[2] in ("attn_q", "attn_k"):  # rows as they were before the converter
            heads = padded.HEADS if parts[2] == "attn_q" else padded.KV_HEADS
            pairs = values.reshape(heads, -1, 2, values.shape[1])
            values = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)
        state[f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight"] = torch.from_numpy(values)
    return state


def scores(path: Path, ids: list[int]) -> tuple[list[float], list[int]]:
    fields = gguf.GGUFReader(str(path)).fields
    config = transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=padded.IS,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=padded.HEADS,
        num_key_value_heads=padded.KV_HEADS,
        head_dim=padded.HEAD_DIM,
        max_position_embeddings=8192,
        rms_norm_eps=float(fields[padded.EPS].contents()),
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(their_state(path), strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected
    model.tie_weights()
    log_p, most_likely, cache = [], [], None
    with torch.no_grad():
        for at in range(0, len(ids) - 1, 500):
            out = model(torch.tensor([ids[at : at + 500]]), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            found = torch.log_softmax(out.logits[0].double(), -1)
            n = min(500, len(ids) - 1 - at)
            log_p += found[torch.arange(n), torch.tensor(ids[at + 1 : at + 1 + n])].tolist()
            most_likely += found.argmax(-1).tolist()
    return [round(x, 5) for x in log_p], most_likely


def main() -> None:
    path, ids = Path(sys.argv[1]), [int(i) for i in Path(sys.argv[2]).read_text().split()]
    to = HERE / "k_quants.json"
    made = json.loads(to.read_text(encoding="utf-8"))["mixes"] if to.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[3:] or padded.MIXES:
            counted = padded.write(path, Path(folder) / "f32.gguf", padded.MIXES[name], read_back=True)
            log_p, most_likely = scores(Path(folder) / "f32.gguf", ids[:4001])
            made[name] = {"counted": counted, "log_p": log_p, "most_likely": most_likely}
            print(name, counted, np.exp(-np.mean(log_p)), flush=True)
            about = f"transformers {transformers.__version__}, torch {torch.__version__}"
            to.write_text(json.dumps({"made_with": about, "mixes": made}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
