"""A directory's tokenizer: tokenizer.json, which the library ``tokenizers`` runs, and what the files beside it say.

The library tokenizes text; tokens that are found whole are found as for GGUF files (``partition.py``), so that control
tokens in a message are text here too. For that the library is given the model without them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer as Backend

from foundry.errors import ModelFormatError
from foundry.files import bounded_json
from foundry.tokenizer.markers import ENDS
from foundry.tokenizer.partition import Strips
from foundry.tokenizer.vocabulary import (
    BYTE,
    CONTROL,
    MOST_TOKENS,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
)

MOST_TOKENIZER_BYTES = 128 << 20  # known ones have up to 35 MB
MOST_BYTES = 4 << 20  # of the files beside it
MODELS = ("BPE", "Unigram")
Json = dict[str, Any]


@dataclass(frozen=True)
class Prefix:
    """A space that a text is read as if it began with: none, at the beginning of a whole text, or of each part."""

    first: bool = False
    each: bool = False


class LibraryModel:
    """Text that holds no special token to ids, and nothing added."""

    def __init__(self, description: Json, prefix: Prefix) -> None:
        self._prefix = prefix
        self._description = description if prefix.first or prefix.each else {}  # it takes more than the library's own
        self._backend = _backend(description)

    def encode(self, text: str) -> list[int]:
        """As a text of its own."""
        return _encode(self._backend, text)

    def encode_behind(self, text: str) -> list[int]:
        """As what stands behind a token that was found whole."""
        return self.encode(text) if self._prefix.each else self.encode_further(text)

    def encode_further(self, text: str) -> list[int]:
        """As a part of a text, before which nothing is put."""
        return _encode(self._further, text)

    @cached_property
    def _further(self) -> Backend:
        if not (self._prefix.first or self._prefix.each):
            return self._backend
        found = _backend(_without_prefix(self._description))
        self._description = {}
        return found


def read_directory(folder: str) -> tuple[Vocabulary, LibraryModel, str | None]:
    """The vocabulary, what encodes, and the chat template.

    Raises:
        ModelFormatError: a file is missing or damaged, or the tokenizer is of a kind that is not read.
    """
    path = os.path.join(folder, "tokenizer.json")
    try:
        described = bounded_json.read(path, MOST_TOKENIZER_BYTES)
    except FileNotFoundError:
        raise ModelFormatError(f"{folder}: expected tokenizer.json, found none; other forms are not read") from None
    config = _beside(folder, "tokenizer_config.json")
    generation = _beside(folder, "generation_config.json")
    try:
        tokens, types, strips = _tokens(described)
        metadata, prefix = _metadata(described, config, tokens, types)
        vocabulary = Vocabulary.read(metadata)
        model = LibraryModel(
            _of_text(described, {tokens[i] for i, kind in enumerate(types) if kind == CONTROL}), prefix
        )
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, UnicodeError) as error:
        raise ModelFormatError(f"{path}: expected a tokenizer, found what makes none: {error!r}"[:500]) from None
    special = {name: metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "unknown", "padding")}
    ends = _ids(special["eos"]) | _ids(generation.get("eos_token_id"))
    # Of a file that says nothing this is where SentencePiece has its EOS: here it is one only by its spelling.
    numbered = _ids(vocabulary.eos_id) - _ids(special["eos"])
    ends |= vocabulary.end_ids - {i for i in numbered if tokens[i] not in ENDS}
    behind = vocabulary.ids.get(_around(described.get("post_processor"))[1] or "")
    return (
        replace(
            vocabulary,
            bos_id=special["bos"],
            eos_id=special["eos"],
            unknown_id=special["unknown"],
            padding_id=special["padding"],
            end_ids=frozenset(ends),
            adds_bos=vocabulary.adds_bos and special["bos"] is not None,
            adds_eos=vocabulary.adds_eos and special["eos"] is not None,
            strips=strips,
            closing_id=behind,  # Qwen3-Embedding's is not what its tokenizer_config.json calls EOS
        ),
        model,
        _template(folder, config),
    )


def _beside(folder: str, name: str) -> Json:
    try:
        return bounded_json.read(os.path.join(folder, name), MOST_BYTES)
    except FileNotFoundError:
        return {}


def _tokens(described: Json) -> tuple[list[str], list[int], Strips]:
    """By id: tokens and their types; and those that take spaces beside them along."""
    model = described["model"]
    if model.get("type", "BPE") not in MODELS:
        raise ModelFormatError(
            f"tokenizer.json: model: expected {' or '.join(MODELS)}, found {str(model.get('type'))[:80]!r}"
        )
    vocab = model["vocab"]
    by_id = (
        {i: token for token, i in vocab.items()} if isinstance(vocab, dict) else dict(enumerate(v[0] for v in vocab))
    )
    kinds: dict[int, int] = {}
    left, right = set(), set()
    unknown = model.get("unk_token", by_id.get(model.get("unk_id")))
    for added in described.get("added_tokens") or ():
        by_id[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added.get("special") else USER_DEFINED
        if added.get("lstrip"):
            left.add(added["content"])
        if added.get("rstrip"):
            right.add(added["content"])
    most = max(by_id, default=-1)
    if not all(type(i) is int and 0 <= i < MOST_TOKENS for i in by_id) or most < 0:
        raise ModelFormatError(f"tokenizer.json: ids: expected whole numbers below {MOST_TOKENS}, found up to {most}")
    tokens = [by_id.get(i, f"[UNUSED_{i}]") for i in range(most + 1)]
    if not all(isinstance(token, str) for token in tokens):
        raise ModelFormatError("tokenizer.json: expected tokens that are text")
    types = [kinds.get(i, NORMAL if i in by_id else UNUSED) for i in range(most + 1)]
    for i, token in enumerate(tokens):
        if token == unknown and isinstance(unknown, str):
            types[i] = UNKNOWN
        elif len(token) == 6 and token.startswith("<0x") and types[i] == NORMAL and model.get("byte_fallback"):
            types[i] = BYTE
    return tokens, types, Strips(left=frozenset(left), right=frozenset(right))


def _metadata(described: Json, config: Json, tokens: list[str], types: list[int]) -> tuple[dict[str, Any], Prefix]:
    """The vocabulary in GGUF's keys, and what a text begins with."""
    ids = {token: i for i, token in enumerate(tokens)}
    parts = [*_steps(described.get("pre_tokenizer")), *_steps(described.get("decoder"))]
    byte_level = any(step.get("type") == "ByteLevel" for step in parts)
    prefix = _prefix(described)
    begins, ends = _around(described.get("post_processor"))
    named = {name: _content(config.get(f"{name}_token")) for name in ("bos", "eos", "unk", "pad")}
    model = described["model"]
    named["unk"] = (
        named["unk"]
        or model.get("unk_token")
        or next((t for t, k in zip(tokens, types, strict=True) if k == UNKNOWN), None)
    )
    named["bos"], named["eos"] = named["bos"] or begins, named["eos"] or ends
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2" if byte_level else "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_bos_token": _flag(config, "add_bos_token", begins is not None),
        "tokenizer.ggml.add_eos_token": _flag(config, "add_eos_token", ends is not None),
        "tokenizer.ggml.add_space_prefix": prefix.first or prefix.each,
    }
    if byte_level:
        metadata["tokenizer.ggml.pre"] = "default"  # its rules are the library's own
    keys = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    for name, token in named.items():
        if token in ids:
            metadata[f"tokenizer.ggml.{keys[name]}_token_id"] = ids[token]
    return metadata, prefix


def _flag(config: Json, name: str, default: bool) -> bool:
    value = config.get(name)
    return value if isinstance(value, bool) else default


def _content(token: Any) -> str | None:
    found = token.get("content") if isinstance(token, Mapping) else token
    return found if isinstance(found, str) else None


def _ids(value: Any) -> set[int]:
    return {i for i in (value if isinstance(value, list) else [value]) if type(i) is int}


def _steps(step: Any) -> list[Json]:
    """A step of the library's, or those that a sequence of them has."""
    if not isinstance(step, dict):
        return []
    inner = [one for key in ("normalizers", "pretokenizers", "decoders", "processors") for one in step.get(key) or ()]
    return [found for one in inner for found in _steps(one)] if inner else [step]


def _prefix(described: Json) -> Prefix:
    if any(step.get("type") == "Prepend" for step in _steps(described.get("normalizer"))):
        return Prefix(first=True, each=True)
    for step in _steps(described.get("pre_tokenizer")):
        if step.get("type") == "Metaspace":
            scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
            return Prefix(first=scheme != "never", each=scheme == "always")
        if step.get("type") == "ByteLevel" and step.get("add_prefix_space"):
            return Prefix(first=True, each=True)
    return Prefix()


def _around(processor: Any) -> tuple[str | None, str | None]:
    """The tokens that are put before and behind a text."""
    for step in _steps(processor):
        if step.get("type") == "TemplateProcessing":
            single = step["single"]
            at = next(i for i, piece in enumerate(single) if "Sequence" in piece)
            before = [piece["SpecialToken"]["id"] for piece in single[:at]]
            behind = [piece["SpecialToken"]["id"] for piece in single[at + 1 :]]
            return (before[-1] if before else None), (behind[0] if behind else None)
        if step.get("type") in ("BertProcessing", "RobertaProcessing"):
            return step["cls"][0], step["sep"][0]
    return None, None


def _of_text(described: Json, control: set[str]) -> Json:
    """The tokenizer without what is found whole, and without what is put around a text."""
    model = dict(described["model"])
    model.setdefault("type", "BPE")
    control -= {model.get("unk_token")}
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        if control & vocab.keys():
            model["vocab"] = {token: i for token, i in vocab.items() if token not in control}
            model["merges"] = [
                merge for merge in model["merges"] if not {*_pair(merge), "".join(_pair(merge))} & control
            ]
    else:  # ids are places, so that they stay, under names that no text has
        unknown = model.get("unk_id")
        model["vocab"] = [
            [f"\U0010ffff{i}" if token in control and i != unknown else token, score]
            for i, (token, score) in enumerate(vocab)
        ]
    return {
        **described,
        "model": model,
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }


def _pair(merge: Any) -> list[str]:
    return merge.split(" ", 1) if isinstance(merge, str) else list(merge)


def _without_prefix(described: Json) -> Json:
    def changed(step: Any) -> Any:
        if not isinstance(step, dict):
            return step
        found = {
            key: [changed(one) for one in value] if isinstance(value, list) else value for key, value in step.items()
        }
        for key in ("normalizers", "pretokenizers"):
            if key in found:
                found[key] = [one for one in found[key] if one is not None]
        if step.get("type") == "Prepend":
            return None
        if step.get("type") == "Metaspace":
            found.pop("add_prefix_space", None)
            found["prepend_scheme"] = "never"
        if step.get("type") == "ByteLevel":
            found["add_prefix_space"] = False
        return found

    return {**described, **{key: changed(described.get(key)) for key in ("normalizer", "pre_tokenizer")}}


def _backend(described: Json) -> Backend:
    try:
        return Backend.from_str(json.dumps(described))
    except BaseException as error:  # of damaged files also a panic, which is no Exception
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ModelFormatError(f"tokenizer.json: expected a tokenizer, found: {error}"[:500]) from None
        raise


def _encode(backend: Backend, text: str) -> list[int]:
    try:
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ModelFormatError(f"tokenizer.json: a text could not be encoded: {error}"[:500]) from None
        raise
    return ids


def _template(folder: str, config: Json) -> str | None:
    """The chat template: a file of its own, or in tokenizer_config.json; of several the one named default."""
    try:
        with open(os.path.join(folder, "chat_template.jinja"), "rb") as file:
            return file.read(MOST_BYTES).decode(errors="surrogateescape")
    except FileNotFoundError:
        pass
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None
