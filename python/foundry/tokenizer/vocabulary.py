"""A file's vocabulary: tokens, their types, and the ids that mean something. Everything is checked here."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from foundry import _core
from foundry.errors import ModelFormatError
from foundry.tokenizer.markers import ENDS, FILE_ENDS, INSIDE_FILES, SHOWN, not_ends, strips
from foundry.tokenizer.partition import Strips
from foundry.tokenizer.pretokenizers import PRE_TOKENIZERS, PreTokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # GGUF specification, token_type
SPACE = "\u2581"  # how SentencePiece spells a space

MOST_TOKENS = 1 << 20  # known vocabularies have up to 262,144
MOST_CHARACTERS = 1024  # of a token; known ones have up to 512
_IDS = {  # where the file has none, as SentencePiece and T5 number them
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "t5": {"eos": 1, "unknown": 2, "padding": 0},
}
_HALVES = re.compile("[\ud800-\udfff]")  # of surrogate pairs: so come bytes of a file that are no UTF-8
_BPE = ("gpt2", "gemma4")
KINDS = (*_BPE, "llama", "t5")
_REFUSED = {
    "bert": "WordPiece",
    "rwkv": "RWKV's greedy trie",
    "plamo2": "PLaMo 2's",
    "hybriddna": "BPE beside k-mers of DNA",
    "whitespace": "BPE of lower case without spaces",
    "none": "no text at all",
    "no_vocab": "no text at all",
}


@dataclass(frozen=True)
class Vocabulary:
    """Attributes:

    kind: "gpt2" (BPE), "gemma4" (BPE), "llama" (SentencePiece) or "t5" (unigram).
    tokens, ids: id -> token as the file spells it, and back.
    types: of each token, with what its spelling says it is.
    bos_id, eos_id, unknown_id, padding_id: None where the file has none.
    end_ids: they end an answer.
    adds_bos, adds_eos: around a text.
    adds_space: a text is read as if it began with a space.
    merges_spaces: of several spaces one is left, and none at the ends.
    escapes_spaces: a space is spelled as U+2581.
    byte_level: tokens are spelled as byte-level BPE spells bytes.
    strips: tokens that take spaces beside them along.
    pre: of BPE.
    closing_id: what stands behind a text in place of EOS.
    """

    kind: str
    tokens: list[str]
    ids: dict[str, int]
    types: list[int]
    bos_id: int | None
    eos_id: int | None
    unknown_id: int | None
    padding_id: int | None
    end_ids: frozenset[int]
    adds_bos: bool
    adds_eos: bool
    adds_space: bool
    merges_spaces: bool
    escapes_spaces: bool
    byte_level: bool
    strips: Strips
    pre: PreTokenizer | None
    closing_id: int | None = None

    @cached_property
    def text_ids(self) -> dict[str, int]:
        """Of the tokens that text may become: without those that are found whole, and only where they may be."""
        ids = self.ids.copy()
        for i, kind in enumerate(self.types):
            if kind in (CONTROL, UNKNOWN):
                del ids[self.tokens[i]]
        return ids

    @staticmethod
    def read(metadata: Mapping[str, Any]) -> Vocabulary:
        """Raises ModelFormatError for what can't be; warns of what is left out."""
        kind = metadata.get("tokenizer.ggml.model")
        if not isinstance(kind, str) or kind not in KINDS:
            which = f", which is {_REFUSED[str(kind)]} and not supported" if str(kind) in _REFUSED else ""
            raise ModelFormatError(f"tokenizer.ggml.model: expected one of {', '.join(KINDS)}, found {kind!r}{which}")
        tokens = _tokens(metadata)
        ids = dict(zip(tokens, range(len(tokens)), strict=True))
        if len(ids) != len(tokens):
            twice = next(token for i, token in enumerate(tokens) if ids[token] != i)
            raise ModelFormatError(f"tokenizer.ggml.tokens: expected each token once, found {twice!r} twice")
        types = metadata.get("tokenizer.ggml.token_type")
        types = [NORMAL] * len(tokens) if types is None else entries(int, "token_type", types, len(tokens))
        special = {
            name: _token_id(metadata, kind, name, len(tokens))
            for name in ("bos", "eos", "eot", "eom", "unknown", "padding", *FILE_ENDS, *INSIDE_FILES)
        }
        end_ids = {special[name] for name in ("eos", "eot", "eom", *FILE_ENDS)}
        spelled = set(ENDS) - not_ends(ids)
        spelled.update(*(texts for name, texts in FILE_ENDS.items() if special[name] is None))
        for text in spelled & ids.keys():
            end_ids.add(ids[text])
            types[ids[text]] = CONTROL
        for name, texts in INSIDE_FILES.items():
            for text in texts & ids.keys() if special[name] is None else ():
                types[ids[text]] = CONTROL
        for text in (SHOWN | (not_ends(ids) - {"</s>"})) & ids.keys():
            types[ids[text]] = USER_DEFINED
            if special["eos"] != ids[text]:
                end_ids.discard(ids[text])
        pre = _pre_tokenizer(metadata, kind) if kind in _BPE else None
        adds_bos = pre.adds_bos if pre is not None else kind == "llama"
        always_bos = pre is not None and pre.always_bos
        escapes = pre.escapes_spaces if pre is not None else True
        return Vocabulary(
            kind=kind,
            tokens=tokens,
            ids=ids,
            types=types,
            bos_id=special["bos"],
            eos_id=special["eos"],
            unknown_id=special["unknown"],
            padding_id=special["padding"],
            end_ids=frozenset(i for i in end_ids if i is not None),
            adds_bos=(_flag(metadata, "add_bos_token", adds_bos) or always_bos) and special["bos"] is not None,
            adds_eos=_flag(metadata, "add_eos_token", kind == "t5") and special["eos"] is not None,
            adds_space=_flag(metadata, "add_space_prefix", kind == "llama") and kind not in _BPE,
            merges_spaces=_flag(metadata, "remove_extra_whitespaces", False) and kind == "t5",
            escapes_spaces=_flag(metadata, "escape_whitespaces", escapes),
            byte_level=pre is not None and pre.byte_level,
            strips=strips(metadata, ids, types),
            pre=pre,
        )


def check_size(metadata: Mapping[str, Any], rows: int) -> None:
    """Raises ModelFormatError where the vocabulary has more tokens than the embedding has rows. Converts nothing."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list | _core.MetadataArray) and len(tokens) > rows:
        raise ModelFormatError(
            f"tokenizer.ggml.tokens: expected at most {rows}, the rows of token_embd.weight, found {len(tokens)}"
        )


def entries(kind: type, name: str, value: Any, size: int | None = None) -> list[Any]:
    """The entries of a list, all of ``kind``."""
    if isinstance(value, _core.MetadataArray) and size in (None, len(value)):  # or else nothing is converted
        value = value.to_list()
    if not isinstance(value, list) or (size is not None and len(value) != size):
        found = f"{len(value)} of them" if isinstance(value, list | _core.MetadataArray) else repr(value)
        raise ModelFormatError(
            f"tokenizer.ggml.{name}: expected {'a list' if size is None else f'{size} entries'}, found {found}"
        )
    if {*map(type, value)} <= {kind} and (kind is not str or _HALVES.search("".join(value)) is None):
        return value  # nearly always: there may be hundreds of thousands
    for i, entry in enumerate(value):
        if not isinstance(entry, kind) or (isinstance(entry, str) and _HALVES.search(entry) is not None):
            found = repr(entry)[:80]
            raise ModelFormatError(f"tokenizer.ggml.{name}[{i}]: expected {kind.__name__}, found {found}")
    return value


def warn(message: str) -> None:
    """Of something in the file that is left out, as the reference does. Python shows the same words once."""
    warnings.warn(message, stacklevel=2)


def _tokens(metadata: Mapping[str, Any]) -> list[str]:
    value = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(value, list | _core.MetadataArray) or len(value) == 0:
        raise ModelFormatError("tokenizer.ggml.tokens: expected a list of tokens, found none")
    if len(value) > MOST_TOKENS:
        raise ModelFormatError(f"tokenizer.ggml.tokens: expected at most {MOST_TOKENS}, found {len(value)}")
    tokens: list[str] = entries(str, "tokens", value)
    most = max(map(len, tokens))
    if most > MOST_CHARACTERS:
        longest = next(i for i, token in enumerate(tokens) if len(token) == most)
        raise ModelFormatError(
            f"tokenizer.ggml.tokens[{longest}]: expected at most {MOST_CHARACTERS} characters, found {most}"
        )
    return [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]


def _token_id(metadata: Mapping[str, Any], kind: str, name: str, n_tokens: int) -> int | None:
    default = _IDS.get(kind, {}).get(name)
    if default is not None and default >= n_tokens:
        default = None
    key = f"tokenizer.ggml.{name}_token_id"
    value = metadata.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise ModelFormatError(f"{key}: expected an id below {n_tokens}, found {value!r}")
    if not 0 <= value < n_tokens:
        if name == "unknown":  # encoding needs it
            raise ModelFormatError(f"{key}: expected an id below {n_tokens}, found {value}")
        instead = "it is left out" if default is None else f"{default} is taken"
        warn(f"{key}: expected an id below {n_tokens}, found {value}; {instead}")
        return default
    return value


def _flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    value = metadata.get(f"tokenizer.ggml.{name}")
    if value is not None and not isinstance(value, bool | int):
        raise ModelFormatError(f"tokenizer.ggml.{name}: expected true or false, found {value!r}")
    return default if value is None else bool(value)


def _pre_tokenizer(metadata: Mapping[str, Any], kind: str) -> PreTokenizer:
    name = "gemma4" if kind == "gemma4" else metadata.get("tokenizer.ggml.pre")
    if name is None or name == "":
        warn(
            "tokenizer.ggml.pre: expected the name of a pre-tokenizer, found none; 'default' is taken, "
            "which splits many texts otherwise than the model was trained to"
        )
        name = "default"
    if not isinstance(name, str) or name not in PRE_TOKENIZERS:
        near = difflib.get_close_matches(str(name), PRE_TOKENIZERS, 1, 0.0)[0]
        raise ModelFormatError(
            f"tokenizer.ggml.pre: expected one of the {len(PRE_TOKENIZERS)} that are known, found {name!r}; "
            f"the nearest is {near!r}"
        )
    return PRE_TOKENIZERS[name]
