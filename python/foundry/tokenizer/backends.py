"""The encoders of ``tokenizers`` that a vocabulary asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from foundry.errors import ModelFormatError
from foundry.tokenizer.vocabulary import CONTROL, USER_DEFINED, Vocabulary, entries, warn

SPACE = "\u2581"  # how SentencePiece spells a space
_MOST_MERGES = 32  # for each token of a vocabulary, and some more: known ones have about 2
_MORE_MERGES = 1 << 16
_ORDINARY = [chr(c) for c in range(ord("!"), ord("~") + 1)] + [" ", "\n"]


def spelled_bytes() -> list[str]:
    """The 256 bytes as byte-level BPE spells them (Radford et al., 2019): printable ones as they are."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    spelled = {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}
    return [spelled[b] for b in range(256)]


def adds_space(metadata: Mapping[str, Any]) -> bool:
    """SentencePiece: a text is read as if it began with a space."""
    return bool(metadata.get("tokenizer.ggml.add_space_prefix", True))


def make_backend(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> Backend:
    """Encodes text; tokens typed control or user-defined are found in it whole."""
    make = _byte_level_bpe if vocabulary.kind == "gpt2" else _sentencepiece_bpe
    backend = make(metadata, vocabulary)
    backend.add_tokens(
        [
            AddedToken(token, special=kind == CONTROL, normalized=False)
            for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    return backend


def _byte_level_bpe(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> Backend:
    ids, pre = vocabulary.ids, vocabulary.pre
    assert pre is not None
    spelled = spelled_bytes()
    lost = [c for c in _ORDINARY if spelled[ord(c)] not in ids]
    if len(lost) == len(_ORDINARY):
        raise ModelFormatError(
            "tokenizer.ggml.tokens: expected the bytes as byte-level BPE spells them, found none of ASCII: "
            "every text would become no tokens at all"
        )
    if lost:
        warn(
            f"tokenizer.ggml.tokens: no token for {len(lost)} of {len(_ORDINARY)} ordinary characters, "
            f"the first {lost[0]!r}: they are lost from texts"
        )
    merges = entries(str, "merges", metadata.get("tokenizer.ggml.merges"))
    pairs = [(a, b) for a, _, b in (merge.partition(" ") for merge in merges) if a in ids and b in ids and a + b in ids]
    if len(pairs) < len(merges):
        kept = {f"{a} {b}" for a, b in pairs}
        odd = next(merge for merge in merges if merge not in kept)
        warn(
            f"tokenizer.ggml.merges: {len(merges) - len(pairs)} of {len(merges)} have or make no token, "
            f"the first {odd[:80]!r}: they are left out"
        )
    backend = Backend(models.BPE(vocab=ids, merges=pairs, ignore_merges=pre.ignores_merges))
    splits: list[Any] = [pre_tokenizers.Split(Regex(r), behavior="isolated") for r in pre.splits]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return backend


def _sentencepiece_bpe(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> Backend:
    scores = entries(float, "scores", metadata.get("tokenizer.ggml.scores"), len(vocabulary.tokens))
    if vocabulary.unknown_id is None:
        raise ModelFormatError("tokenizer.ggml.unknown_token_id: expected an id, found none")
    backend = Backend(
        models.BPE(
            vocab=vocabulary.ids,
            merges=_merges(vocabulary, scores),
            byte_fallback=True,
            fuse_unk=True,
            unk_token=vocabulary.tokens[vocabulary.unknown_id],
        )
    )
    prefix: list[Any] = [normalizers.Prepend(SPACE)] if adds_space(metadata) else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    return backend


def _merges(vocabulary: Vocabulary, scores: list[float]) -> list[tuple[str, str]]:
    """SentencePiece's BPE merges the pair whose joined token scores best: merges in order of score do the same."""
    ids = vocabulary.ids
    lengths = {len(token) for token in vocabulary.tokens}
    most = _MOST_MERGES * len(ids) + _MORE_MERGES
    ranked: list[tuple[float, int, str, str]] = []
    for i, token in enumerate(vocabulary.tokens):
        for cut in range(1, len(token)):
            if cut in lengths and len(token) - cut in lengths and token[:cut] in ids and token[cut:] in ids:
                ranked.append((-scores[i], i, token[:cut], token[cut:]))
        if len(ranked) > most:
            raise ModelFormatError(
                f"tokenizer.ggml.tokens: expected at most {most} ways to join two tokens to a third, found more"
            )
    ranked.sort(key=lambda m: (m[0], m[1]))
    return [(a, b) for _, _, a, b in ranked]
