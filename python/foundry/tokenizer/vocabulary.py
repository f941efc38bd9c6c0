"""A file's vocabulary: tokens, their types, and the ids that mean something. Everything is checked here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foundry import _core
from foundry.errors import ModelFormatError
from foundry.tokenizer.markers import ENDS, FILE_ENDS, SHOWN, not_ends
from foundry.tokenizer.pretokenizers import PRE_TOKENIZERS, PreTokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # GGUF specification, token_type

MOST_TOKENS = 1 << 20  # known vocabularies have up to 262,144
MOST_CHARACTERS = 1024  # of a token; known ones have up to 512
_SENTENCEPIECE_IDS = {"bos": 1, "eos": 2, "unknown": 0}  # where the file has none, as SentencePiece numbers them


@dataclass(frozen=True)
class Vocabulary:
    """Attributes:

    kind: "gpt2" (byte-level BPE) or "llama" (SentencePiece).
    tokens, ids: id -> token as the file spells it, and back.
    types: of each token, with what its spelling says it is.
    bos_id, eos_id, unknown_id, padding_id: None where the file has none.
    end_ids: they end an answer.
    adds_bos, adds_eos: around a text.
    pre: of byte-level BPE.
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
    pre: PreTokenizer | None

    @staticmethod
    def read(metadata: Mapping[str, Any]) -> Vocabulary:
        """Raises ModelFormatError for what can't be; warns of what is left out."""
        kind = metadata.get("tokenizer.ggml.model")
        if kind not in ("gpt2", "llama"):
            raise ModelFormatError(f"tokenizer.ggml.model: expected gpt2 or llama, found {kind!r}")
        tokens = _tokens(metadata)
        ids = {token: i for i, token in enumerate(tokens)}
        if len(ids) != len(tokens):
            twice = next(token for i, token in enumerate(tokens) if ids[token] != i)
            raise ModelFormatError(f"tokenizer.ggml.tokens: expected each token once, found {twice!r} twice")
        types = metadata.get("tokenizer.ggml.token_type")
        types = [NORMAL] * len(tokens) if types is None else entries(int, "token_type", types, len(tokens))
        special = {
            name: _token_id(metadata, kind, name, len(tokens))
            for name in ("bos", "eos", "eot", "eom", "unknown", "padding", *FILE_ENDS)
        }
        end_ids = {special[name] for name in ("eos", "eot", "eom", *FILE_ENDS)}
        spelled = set(ENDS) - not_ends(ids)
        spelled.update(*(texts for name, texts in FILE_ENDS.items() if special[name] is None))
        for text in spelled & ids.keys():
            end_ids.add(ids[text])
            types[ids[text]] = CONTROL
        for text in (SHOWN | (not_ends(ids) - {"</s>"})) & ids.keys():
            types[ids[text]] = USER_DEFINED
            if special["eos"] != ids[text]:
                end_ids.discard(ids[text])
        pre = _pre_tokenizer(metadata) if kind == "gpt2" else None
        adds_bos = _flag(metadata, "add_bos_token", pre.adds_bos if pre is not None else True)
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
            adds_bos=adds_bos and special["bos"] is not None,
            adds_eos=_flag(metadata, "add_eos_token", False) and special["eos"] is not None,
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
    for i, entry in enumerate(value):
        if not isinstance(entry, kind) or (isinstance(entry, str) and not _is_unicode(entry)):
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


def _is_unicode(text: str) -> bool:
    """Bytes of a file that are no UTF-8 come as halves of surrogate pairs."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _token_id(metadata: Mapping[str, Any], kind: str, name: str, n_tokens: int) -> int | None:
    default = _SENTENCEPIECE_IDS.get(name) if kind == "llama" else None
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


def _pre_tokenizer(metadata: Mapping[str, Any]) -> PreTokenizer:
    name = metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(name, str) or name not in PRE_TOKENIZERS:
        raise ModelFormatError(f"tokenizer.ggml.pre: expected one of {', '.join(PRE_TOKENIZERS)}, found {name!r}")
    return PRE_TOKENIZERS[name]
