"""Tokens that mean something by how they are spelled, whatever type the file gives them.

The lists are llama.cpp's (src/llama-vocab.cpp, special_eog_ids and before it), for files leave these ids out or type
them wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foundry.tokenizer.partition import Strips

# They end an answer.
ENDS = frozenset(
    {
        "<|eot_id|>",
        "<|eom_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "</s>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<｜end▁of▁sentence｜>",
        "[e~[",
    }
)
# An answer is over where the next file of a repository begins, or padding. The key says so, or else the spelling.
FILE_ENDS: Mapping[str, frozenset[str]] = {
    "fim_pad": frozenset({"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}),
    "fim_rep": frozenset({"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}),
    "fim_sep": frozenset({"<|file_sep|>"}),
}
# They mark the parts of a file that is to be filled in, and end nothing.
INSIDE_FILES: Mapping[str, frozenset[str]] = {
    "fim_pre": frozenset(
        {
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        }
    ),
    "fim_suf": frozenset(
        {
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        }
    ),
    "fim_mid": frozenset(
        {
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        }
    ),
}
# They are part of the text that is shown: a reader of gpt-oss's channels needs them.
SHOWN = frozenset({"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"})


def not_ends(tokens: Mapping[str, int]) -> set[str]:
    """Of ``ENDS``, those that end nothing beside other tokens of the vocabulary."""
    found = set()
    calls = "<|call|>" in tokens or "<|calls|>" in tokens
    if calls and ("<|return|>" in tokens or "<|flush|>" in tokens):
        found.add("<|end|>")  # it closes a message; the answer goes on with the next one
    if "<|tool_response>" in tokens or "<|plamo:eos|>" in tokens:
        found.add("</s>")  # of a web page
    return found & tokens.keys()


def strips(metadata: Mapping[str, Any], tokens: Mapping[str, int], types: Sequence[int]) -> Strips:
    """Tokens that take spaces beside them along. Files don't say so: it goes by the names of models, as llama.cpp has
    it ("per token attributes")."""
    name, pre, architecture = (
        str(metadata.get(key, "")) for key in ("general.name", "tokenizer.ggml.pre", "general.architecture")
    )
    if "phi-3" in (lowered := name.lower()) or "phi3" in lowered:
        found_whole = {token for token, i in tokens.items() if types[i] in (2, 3, 4)}  # unknown, control, user-defined
        return Strips(right=frozenset((found_whole | {"</s>"}) - {"<unk>", "<s>", "<|endoftext|>"}))
    if any(one in pre for one in ("jina-v2-de", "jina-v2-es", "jina-v2-code")) or any(
        one in architecture for one in ("nomic-bert-moe", "jina-bert-v3")
    ):
        return Strips(left=frozenset({"<mask>"}))
    return Strips(left=frozenset({"[MASK]"})) if "modern-bert" in lowered else Strips()
