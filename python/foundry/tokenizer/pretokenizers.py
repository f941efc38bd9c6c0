"""What ``tokenizer.ggml.pre`` stands for: how byte-level BPE splits text, and what holds where the file does not say.

Names and defaults are llama.cpp's (src/llama-vocab.cpp); the expressions are those of the models' own tokenizers.
"""

from __future__ import annotations

from dataclasses import dataclass

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _REST
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _REST


@dataclass(frozen=True)
class PreTokenizer:
    """Regular expressions that split text, one after the other; whether a whole word that is a token needs no merges;
    and whether a text begins with BOS where ``tokenizer.ggml.add_bos_token`` is missing."""

    splits: tuple[str, ...]
    ignores_merges: bool = False
    adds_bos: bool = False


_FAMILIES = [
    (PreTokenizer((_GPT2,)), ("default", "gpt-2", "phi-2")),
    (PreTokenizer((r"\p{N}", _GPT2)), ("smollm",)),
    (
        PreTokenizer((_LLAMA3,), ignores_merges=True, adds_bos=True),
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2", "midm-2.0"),
    ),
    (PreTokenizer((_QWEN2,)), ("qwen2", "deepseek-r1-qwen", "megrez")),
]
PRE_TOKENIZERS = {name: family for family, names in _FAMILIES for name in names}
