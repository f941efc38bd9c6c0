"""Text to tokens and back, from a GGUF file's own metadata, on the library ``tokenizers``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from foundry import checks
from foundry.chat import render
from foundry.errors import ModelFormatError

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # GGUF specification, token_type

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# tokenizer.ggml.pre -> the regular expressions that split text, one after the other.
_SPLITS: dict[str, list[str]] = {
    "default": [_GPT2],
    "gpt-2": [_GPT2],
    "smollm": [r"\p{N}", _GPT2],
    "llama-bpe": [_LLAMA3],
    "llama3": [_LLAMA3],
    "qwen2": [_QWEN2],
}


class Tokenizer:
    """Encodes and decodes as the model was trained to.

    Attributes:
        vocab_size, bos_id, eos_id: from the file; ids are None where it has none.
        stop_ids: tokens that end a generation (end of text, end of turn).
        chat_template: Jinja source, or None.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        kind = metadata.get("tokenizer.ggml.model")
        tokens = metadata.get("tokenizer.ggml.tokens")
        if not isinstance(tokens, list) or not tokens:
            raise ModelFormatError("tokenizer.ggml.tokens: expected a list of tokens, found none")
        tokens = _list_of(str, "tokens", tokens, len(tokens))
        types = _list_of(
            int, "token_type", metadata.get("tokenizer.ggml.token_type") or [_NORMAL] * len(tokens), len(tokens)
        )
        if kind == "gpt2":
            self._backend = _byte_level_bpe(metadata, tokens)
        elif kind == "llama":
            self._backend = _sentencepiece_bpe(metadata, tokens)
        else:
            raise ModelFormatError(f"tokenizer.ggml.model: expected gpt2 or llama, found {kind!r}")
        special = [
            AddedToken(t, special=n == _CONTROL, normalized=False)
            for t, n in zip(tokens, types, strict=True)
            if n in (_CONTROL, _USER_DEFINED)
        ]
        self._backend.add_tokens(special)
        self._special_ids = {i for i, n in enumerate(types) if n == _CONTROL}
        self._tokens = tokens
        self.vocab_size = len(tokens)
        self.bos_id = _token_id(metadata, "bos", len(tokens))
        self.eos_id = _token_id(metadata, "eos", len(tokens))
        self.stop_ids = {i for i in (self.eos_id, _token_id(metadata, "eot", len(tokens))) if i is not None}
        ends = {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>", "<end_of_turn>"}
        self.stop_ids |= {i for i in self._special_ids if tokens[i] in ends}
        self._add_bos = bool(metadata.get("tokenizer.ggml.add_bos_token", kind == "llama")) and self.bos_id is not None
        template = metadata.get("tokenizer.chat_template")
        self.chat_template = template if isinstance(template, str) else None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of ``text``. Special tokens in it are recognised; BOS comes first where the model asks."""
        ids: list[int] = self._backend.encode(checks.text("text", text), add_special_tokens=False).ids
        if add_special_tokens and self._add_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            return [self.bos_id, *ids]
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ``ids``; bytes that are no UTF-8 become U+FFFD."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def token(self, token_id: int) -> str:
        """The token as the vocabulary spells it."""
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"token_id: expected 0 to {self.vocab_size - 1}, found {token_id}")
        return str(self._tokens[token_id])

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, tokenize: bool = True
    ) -> list[int] | str:
        """The conversation as the model was trained to read it: token ids, or the text with ``tokenize=False``."""
        if self.chat_template is None:
            raise ModelFormatError(
                "tokenizer.chat_template: expected a template, found none; generate() takes plain text"
            )
        bos, eos = ("" if i is None else self.token(i) for i in (self.bos_id, self.eos_id))
        text = render(self.chat_template, messages, add_generation_prompt, bos_token=bos, eos_token=eos)
        return self.encode(text, add_special_tokens=False) if tokenize else text

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """``apply_chat_template`` as ids, up to where the answer begins."""
        ids = self.apply_chat_template(messages)
        assert isinstance(ids, list)
        return ids


class StreamDecoder:
    """Turns tokens into text as they come; never splits a character. The pieces joined are ``decode`` of all tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # tokens before this are only context
        self._told = 0  # tokens before this have been told

    def push(self, token_id: int) -> str:
        """New text, "" while a character is incomplete."""
        self._ids.append(token_id)
        before = self._tokenizer.decode(self._ids[self._start : self._told])
        text = self._tokenizer.decode(self._ids[self._start :])
        if len(text) <= len(before) or text.endswith("\ufffd"):
            return ""
        self._start, self._told = self._told, len(self._ids)
        return text[len(before) :]

    def flush(self) -> str:
        """What is left at the end, incomplete or not."""
        before = self._tokenizer.decode(self._ids[self._start : self._told])
        text = self._tokenizer.decode(self._ids[self._start :])
        self._start = self._told = len(self._ids)
        return text[len(before) :]


def _list_of(kind: type, name: str, value: Any, size: int | None = None) -> list[Any]:
    if not isinstance(value, list) or (size is not None and len(value) != size):
        found = f"{len(value)} of them" if isinstance(value, list) else repr(value)
        raise ModelFormatError(
            f"tokenizer.ggml.{name}: expected {'a list' if size is None else f'{size} entries'}, found {found}"
        )
    for i, entry in enumerate(value):
        if not isinstance(entry, kind) or (isinstance(entry, str) and not _is_unicode(entry)):
            raise ModelFormatError(f"tokenizer.ggml.{name}[{i}]: expected {kind.__name__}, found {entry!r}")
    return value


def _is_unicode(text: str) -> bool:
    """Bytes of a file that are no UTF-8 come as halves of surrogate pairs."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _token_id(metadata: Mapping[str, Any], name: str, n_tokens: int) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{name}_token_id")
    return value if isinstance(value, int) and 0 <= value < n_tokens else None


def _byte_level_bpe(metadata: Mapping[str, Any], tokens: list[str]) -> Backend:
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(pre, str) or pre not in _SPLITS:
        raise ModelFormatError(f"tokenizer.ggml.pre: expected one of {', '.join(_SPLITS)}, found {pre!r}")
    merges = _list_of(str, "merges", metadata.get("tokenizer.ggml.merges"))
    vocab = {token: i for i, token in enumerate(tokens)}
    pairs = [
        (a, b) for a, _, b in (merge.partition(" ") for merge in merges) if a in vocab and b in vocab and a + b in vocab
    ]
    backend = Backend(models.BPE(vocab=vocab, merges=pairs, ignore_merges=pre in ("llama-bpe", "llama3")))
    splits: list[Any] = [pre_tokenizers.Split(Regex(r), behavior="isolated") for r in _SPLITS[pre]]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece_bpe(metadata: Mapping[str, Any], tokens: list[str]) -> Backend:
    """SentencePiece's BPE merges the pair whose joined token scores best: merges in order of score do the same."""
    from tokenizers import normalizers

    scores = _list_of(float, "scores", metadata.get("tokenizer.ggml.scores"), len(tokens))
    vocab = {token: i for i, token in enumerate(tokens)}
    ranked: list[tuple[float, int, str, str]] = []
    for i, token in enumerate(tokens):
        for cut in range(1, len(token)):
            if token[:cut] in vocab and token[cut:] in vocab:
                ranked.append((-scores[i], i, token[:cut], token[cut:]))
    ranked.sort(key=lambda m: (m[0], m[1]))
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    if not isinstance(unknown, int) or not 0 <= unknown < len(tokens):
        raise ModelFormatError(
            f"tokenizer.ggml.unknown_token_id: expected an id below {len(tokens)}, found {unknown!r}"
        )
    backend = Backend(
        models.BPE(
            vocab=vocab,
            merges=[(a, b) for _, _, a, b in ranked],
            byte_fallback=True,
            fuse_unk=True,
            unk_token=tokens[unknown],
        )
    )
    prefix: list[Any] = [normalizers.Prepend("\u2581")] if metadata.get("tokenizer.ggml.add_space_prefix", True) else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "\u2581")])
    strip: list[Any] = [decoders.Strip(content=" ", left=1)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return backend
