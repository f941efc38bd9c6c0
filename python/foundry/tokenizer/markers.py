"""Tokens that mean something by how they are spelled, whatever type the file gives them.

The lists are llama.cpp's (src/llama-vocab.cpp, special_eog_ids), for files leave these ids out or type them wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping

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
