"""Byte-pair encoding, on the library ``tokenizers``: of bytes, as GPT-2 has it, or of characters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from typing import Any, cast

from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from foundry.errors import ModelFormatError
from foundry.tokenizer.vocabulary import SPACE, Vocabulary, entries, warn

_ORDINARY = [chr(c) for c in range(ord("!"), ord("~") + 1)] + [" ", "\n"]


def spelled_bytes() -> list[str]:
    """The 256 bytes as byte-level BPE spells them (Radford et al., 2019): printable ones as they are."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    spelled = {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}
    return [spelled[b] for b in range(256)]


class BytePairEncoding:
    """Text that holds no special token to ids, and nothing added."""

    def __init__(self, metadata: Mapping[str, Any], vocabulary: Vocabulary) -> None:
        pre = vocabulary.pre
        assert pre is not None
        self._escapes = vocabulary.escapes_spaces
        self._whole_newlines = pre.whole_newlines
        self._ids = ids = vocabulary.text_ids
        if vocabulary.byte_level:
            _check_bytes(ids)
        pairs = _merges(metadata, ids, pre.needs_merges)
        self._backend = Backend(
            models.BPE(
                vocab=ids, merges=pairs, ignore_merges=pre.ignores_merges, byte_fallback=not vocabulary.byte_level
            )
        )
        steps: list[Any] = [pre_tokenizers.Split(Regex(r), behavior="isolated") for r in pre.splits]
        if vocabulary.byte_level:
            steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        self._backend.pre_tokenizer = pre_tokenizers.Sequence(steps)

    def encode(self, text: str) -> list[int]:
        """As a text of its own."""
        if self._escapes:
            text = text.replace(" ", SPACE)
        if not self._whole_newlines:
            return self._encode(text)
        found = []
        for part in re.split(r"(\n+)", text):
            token_id = self._ids.get(part) if part.startswith("\n") else None
            found += self._encode(part) if token_id is None else [token_id]
        return found

    encode_further = encode  # as a part of a text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids


def _check_bytes(ids: Mapping[str, int]) -> None:
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


def _merges(metadata: Mapping[str, Any], ids: Mapping[str, int], needed: bool) -> list[tuple[str, str]]:
    value = metadata.get("tokenizer.ggml.merges")
    merges: list[str] = [] if value is None and not needed else entries(str, "merges", value)
    found = [tuple(merge.split(" ", 1)) for merge in merges]
    if _are_proper(found, ids) and len(set(merges)) == len(merges):
        return cast(list[tuple[str, str]], found)  # nearly always: there may be hundreds of thousands
    pairs: dict[tuple[str, str], None] = {}
    odd: list[str] = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        if not left:  # the first of the two may begin with a space
            cut = max(merge.find(" ", 1), 0)
            left, right = merge[:cut], merge[cut + 1 :]
        pair = left, right
        if pair[0] in ids and pair[1] in ids and pair[0] + pair[1] in ids:
            pairs[pair] = None  # the first of equal ones counts
        else:
            odd.append(merge)
    if odd:
        warn(
            f"tokenizer.ggml.merges: {len(odd)} of {len(merges)} have or make no token, "
            f"the first {odd[0][:80]!r}: they are left out"
        )
    return list(pairs)


def _are_proper(pairs: list[tuple[str, ...]], ids: Mapping[str, int]) -> bool:
    """Each is two tokens that make one."""
    known = ids.__contains__
    return (
        {*map(len, pairs)} <= {2}
        and all(map(known, chain.from_iterable(pairs)))
        and all(map(known, map("".join, pairs)))
    )
