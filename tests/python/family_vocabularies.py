"""What vocabularies files of each family hold: llama.cpp's own, or one of those with another pre-tokenizer.

How each line is known. llama.cpp's converter names, beside the rule, the repository that it is of (conversion/base.py,
get_vocab_base_pre): starcoder2-3b, EXAONE-3.0, Mistral-Nemo for tekken, glm-4-9b for glm4's rule. gpt-oss's is
gpt-4o's with more control tokens. Converters of gemma2, gemma3 and internlm2 write SentencePiece's kind, of which
llama-spm's is the vocabulary at hand, not their own.
qwen2, llama-spm, llama-bpe, deepseek's and phi-3 are vocabularies of those families' own models. The rules of granite,
smollm3, olmo2, lfm2 and phi3's later models are those that their published GGUF files name; no test here has those
files.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from foundry import _core
from foundry.tokenizer.pretokenizers import PRE_TOKENIZERS
from llama_cpp_files import models
from tokenizer_cases import distinct_pres

# A vocabulary of llama.cpp's own tests, or the name of a pre-tokenizer.
TOKENIZERS = {
    "llama": ("llama-spm", "llama-bpe", "deepseek-llm", "deepseek-coder", "pre:tekken", "pre:smollm"),
    "qwen2": ("qwen2", "pre:deepseek-r1-qwen"),
    "qwen3": ("qwen2",),
    "qwen3moe": ("qwen2",),
    "qwen35": ("pre:qwen35",),
    "qwen35moe": ("pre:qwen35",),
    "qwen3vl": ("qwen2",),
    "gemma2": ("llama-spm",),
    "gemma3": ("llama-spm",),
    "mistral3": ("pre:tekken",),
    "smollm3": ("pre:smaug-bpe",),
    "granite": ("refact",),
    "granitemoe": ("refact",),
    "phi3": ("phi-3", "pre:gpt-4o", "pre:dbrx"),
    "olmo2": ("pre:dbrx",),
    "glm4": ("pre:glm4",),
    "starcoder2": ("starcoder",),
    "exaone": ("pre:exaone",),
    "gpt-oss": ("pre:gpt-4o",),
    "internlm2": ("llama-spm",),
    "lfm2": ("pre:lfm2",),
    "lfm2moe": ("pre:lfm2",),
}


def same_pre(name: str) -> tuple[str, str]:
    """Of ``pre:NAME``: the first name of the same rule, and the vocabulary that it is tried with."""
    rule = PRE_TOKENIZERS[name.removeprefix("pre:")]
    return next(one for one in distinct_pres() if PRE_TOKENIZERS[one[0]] == rule)


@cache
def tokenizer_of(arch: str) -> dict[str, Any]:
    """The metadata of the family's first vocabulary, as a file of it has them."""
    name = TOKENIZERS[arch][0]
    vocabulary = same_pre(name)[1] if name.startswith("pre:") else name
    metadata = _core.GgufFile(str(models() / f"ggml-vocab-{vocabulary}.gguf")).metadata
    found = {key: getattr(value, "to_list", lambda value=value: value)() for key, value in metadata.items()}
    if name.startswith("pre:"):
        found["tokenizer.ggml.pre"] = name.removeprefix("pre:")
    return {key: value for key, value in found.items() if key.startswith("tokenizer.")}
