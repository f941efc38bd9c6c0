"""Makes embeddings.json with Hugging Face transformers and torch: ``python tests/oracle/make_embeddings.py``.

The models, tokens and precision are those of make_families.py; a row is pooled of the hidden states behind the last
norm (``last_hidden_state``), as sentence-transformers pools them, and is not normalised.
"""

from __future__ import annotations

import json
from typing import Any

import make_families
import torch
import transformers
from make_families import HERE, IDS

MODELS = ("qwen3", "llama yarn", "qwen2 yarn", "gemma2", "starcoder2", "granite", "qwen3moe", "lfm2", "qwen35")


def make(name: str) -> dict[str, Any]:
    family = make_families.FAMILIES[name]
    config, kind = make_families.config_of(name, family)
    model = kind(config).eval()
    missing, unexpected = model.load_state_dict(make_families.their_weights(family), strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected, (name, missing, unexpected)
    with torch.no_grad():
        rows = model.model(torch.tensor([IDS])).last_hidden_state[0]
    pooled = {"last": rows[-1], "mean": rows.mean(0), "cls": rows[0]}
    return {way: [float(f"{x:.9g}") for x in row] for way, row in pooled.items()}


def main() -> None:
    values = {
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "ids": IDS,
        "models": {name: make(name) for name in MODELS},
    }
    (HERE / "embeddings.json").write_text(json.dumps(values) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
