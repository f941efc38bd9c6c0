"""Tokenizer: a file's vocabulary and chat template, to use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foundry import _core, checks
from foundry.chat import Rendering, names_in, render_marked
from foundry.errors import ModelFormatError
from foundry.tokenizer.bpe import BytePairEncoding, spelled_bytes
from foundry.tokenizer.breakers import sequences_of
from foundry.tokenizer.library import LibraryModel, read_directory
from foundry.tokenizer.partition import Partition, Span
from foundry.tokenizer.sentencepiece import SentencePiece
from foundry.tokenizer.unigram import Unigram
from foundry.tokenizer.vocabulary import BYTE, CONTROL, SPACE, UNKNOWN, USER_DEFINED, Vocabulary

_Model = BytePairEncoding | SentencePiece | Unigram | LibraryModel
_MODELS: dict[str, Callable[[Mapping[str, Any], Vocabulary], _Model]] = {
    "gpt2": BytePairEncoding,
    "gemma4": BytePairEncoding,
    "llama": SentencePiece,
    "t5": Unigram,
}

_MOST_BREAKERS_KEPT = 4  # a server's clients may name others each


class Tokenizer:
    """Encodes and decodes as the model was trained to.

    Attributes:
        vocab_size, bos_id, eos_id: from the file; ids are None where it has none.
        stop_ids: tokens that end a generation (end of text, end of turn).
        chat_template: Jinja source, or None.
    """

    def __init__(self, metadata: Mapping[str, Any], folder: str | None = None) -> None:
        """Of a GGUF file's metadata, or of a ``folder`` that has tokenizer.json.

        Raises:
            ModelFormatError: a vocabulary makes no sense. What is left out of one is warned of.
        """
        template = metadata.get("tokenizer.chat_template")
        if folder is None:
            vocabulary = Vocabulary.read(metadata)
            self._model: _Model = _MODELS[vocabulary.kind](metadata, vocabulary)
        else:
            vocabulary, self._model, template = read_directory(folder)
        self._vocabulary = vocabulary
        of_type: dict[int, dict[str, int]] = {CONTROL: {}, UNKNOWN: {}, USER_DEFINED: {}}
        for i, kind in enumerate(vocabulary.types):
            if kind in of_type:
                of_type[kind][vocabulary.tokens[i]] = i
        self._partition = Partition(of_type[CONTROL] | of_type[UNKNOWN], of_type[USER_DEFINED], vocabulary.strips)
        self._strips_space = vocabulary.adds_space
        self._pieces: dict[int, bytes] = {}  # of the tokens decoded so far
        self._breakers: dict[tuple[str, ...], _core.SequenceBreakers] = {}  # the latest ones
        self._byte_of = {c: b for b, c in enumerate(spelled_bytes())}
        self.vocab_size = len(vocabulary.tokens)
        self.bos_id = vocabulary.bos_id
        self.eos_id = vocabulary.eos_id
        self.stop_ids = set(vocabulary.end_ids)
        self.chat_template = template if isinstance(template, str) else None

    def encode(self, text: str, add_special_tokens: bool = True, *, parse_special: bool = True) -> list[int]:
        """Token ids of ``text``; BOS is first, EOS last if the model asks.

        Control tokens that are spelled in the text are those tokens, or with ``parse_special=False`` they are text.
        User-defined ones are tokens always.
        """
        ids = self.encode_prompt(text, add_special_tokens, parse_special=parse_special)
        end = self.eos_id if self._vocabulary.closing_id is None else self._vocabulary.closing_id
        if add_special_tokens and self._vocabulary.adds_eos and ids[-1:] != [end] and end is not None:
            ids.append(end)
        return ids

    def encode_prompt(self, text: str, begins: bool = True, *, parse_special: bool = True) -> list[int]:
        """``encode`` of a text that is to be continued: no EOS, and BOS only where it ``begins`` a history."""
        ids = self._encode(checks.text("text", text), () if parse_special else [(0, len(text))])
        if begins and self._vocabulary.adds_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            return [self.bos_id, *ids]
        return ids

    def _encode(self, text: str, plain: Sequence[Span]) -> list[int]:
        """Nothing is added. In the spans that are ``plain`` there are no control tokens."""
        ids: list[int] = []
        model = self._model
        for part in self._partition.split(text, plain):
            if isinstance(part, int):
                ids.append(part)
            elif ids and isinstance(model, LibraryModel):
                ids += model.encode_behind(part)
            else:
                ids += model.encode(part)
        return ids

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids whose ``piece``s joined are ``data``: nothing is added, nothing in it is special.

        Where the vocabulary has no token for a byte, that one is missing.
        """
        ids = self._model.encode_further(data.decode(errors="replace"))
        if b"".join(map(self.piece, ids)) == data:
            return ids
        if self._vocabulary.byte_level:
            names = spelled_bytes()
            spelled = [names[b] for b in data]
        else:
            spelled = [f"<0x{b:02X}>" for b in data]
        return [self._vocabulary.ids[name] for name in spelled if name in self._vocabulary.ids]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ``ids``, from a beginning on; bytes that are no UTF-8 become U+FFFD."""
        shown = (i for i in ids if not (skip_special_tokens and self.is_control(i)))
        return self.strip_first(b"".join(map(self.piece, shown))).decode(errors="replace")

    def piece(self, token_id: int) -> bytes:
        """What a token adds to a text, special ones as they are spelled; nothing for ids past the vocabulary."""
        data = self._pieces.get(token_id)
        if data is None:
            data = self._pieces[token_id] = self._piece(token_id)
        return data

    def _piece(self, token_id: int) -> bytes:
        if not 0 <= token_id < self.vocab_size:
            return b""
        token, kind = self._vocabulary.tokens[token_id], self._vocabulary.types[token_id]
        if kind in (CONTROL, UNKNOWN) or (kind == USER_DEFINED and self._vocabulary.pre is not None):
            return token.encode()
        if self._vocabulary.byte_level:
            data = [self._byte_of.get(c) for c in token]
            return token.encode() if None in data else bytes(b for b in data if b is not None)
        if kind == BYTE or (len(token) == 6 and token.startswith("<0x")):
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                return token.encode()
        return (token.replace(SPACE, " ") if self._vocabulary.escapes_spaces else token).encode()

    def strip_first(self, data: bytes) -> bytes:
        """A text's first bytes without the space that encoding put before them."""
        return data[1:] if self._strips_space and data[:1] == b" " else data

    def sequence_breakers(self, texts: Sequence[str]) -> _core.SequenceBreakers:
        """What ``SamplingParams.dry_sequence_breakers`` are in this vocabulary; the latest few are kept."""
        key = tuple(texts)
        found = self._breakers.pop(key, None) or _core.SequenceBreakers(sequences_of(self, key))
        self._breakers[key] = found  # behind the others
        for older in list(self._breakers)[:-_MOST_BREAKERS_KEPT]:
            self._breakers.pop(older, None)
        return found

    def is_control(self, token_id: int) -> bool:
        """It is no part of the text that is shown."""
        return 0 <= token_id < self.vocab_size and self._vocabulary.types[token_id] == CONTROL

    def control_id(self, text: str) -> int | None:
        """The control token that is spelled so."""
        token_id = self._vocabulary.ids.get(text)
        return token_id if token_id is not None and self.is_control(token_id) else None

    def names_control(self, text: str) -> bool:
        """A control token is spelled somewhere in ``text``."""
        return any(map(self.is_control, self.encode(text, add_special_tokens=False)))

    def token(self, token_id: int) -> str:
        """The token as the vocabulary spells it."""
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"token_id: expected 0 to {self.vocab_size - 1}, found {token_id}")
        return self._vocabulary.tokens[token_id]

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tokenize: bool = True,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> list[int] | str:
        """The conversation as the model was trained to read it: token ids, or the text with ``tokenize=False``.

        Control tokens are the template's alone: what spells one in messages, tools or documents is text. User-defined
        tokens are tokens wherever they are.

        Args:
            messages: mappings with role and content, which is text or a list of {"type": "text", "text": ...};
                an assistant's may have tool_calls instead.
            add_generation_prompt: ends where the assistant's answer begins.
            tokenize: ids instead of text.
            tools: JSON schemas of functions that the model may call.
            documents: what the model may look things up in.
            variables: others that the template knows, such as ``enable_thinking``.

        Raises:
            ValueError: the messages make no sense, or the template refuses them.
            ModelFormatError: there is no template, it is broken, or takes more than it may.
        """
        given = {"tools": tools, "documents": documents, **variables}
        if not tokenize:
            return self._render(messages, add_generation_prompt, given, lambda _: False).text
        made = self._render(messages, add_generation_prompt, given, self._partition.may_be_special)
        plain = made.given
        if plain is None:  # then what they spell is text everywhere
            plain = self._partition.spans_of(set().union(*map(self._partition.specials, made.asked)), made.text)
        return self._encode(made.text, plain)

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        given: Mapping[str, Any],
        is_marked: Callable[[str], bool],
    ) -> Rendering:
        if self.chat_template is None:
            raise ModelFormatError(
                "tokenizer.chat_template: expected a template, found none; generate() takes plain text"
            )
        variables = {**self._special_tokens(), **given}
        return render_marked(
            self.chat_template,
            messages,
            add_generation_prompt,
            is_marked,
            tools=variables.pop("tools"),
            documents=variables.pop("documents"),
            variables=variables,
        )

    @property
    def template_variables(self) -> frozenset[str]:
        """Names that the chat template asks for, such as ``enable_thinking``."""
        return names_in(self.chat_template) if self.chat_template is not None else frozenset()

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> list[int]:
        """``apply_chat_template`` as ids, up to where the answer begins; ``variables`` are its tools and so on."""
        ids = self.apply_chat_template(messages, **variables)
        assert isinstance(ids, list)
        return ids

    def _special_tokens(self) -> dict[str, str]:
        v = self._vocabulary
        known = {"unk_token": v.unknown_id, "pad_token": v.padding_id}
        named = {name: self.token(i) for name, i in known.items() if i is not None}
        both = {"bos_token": v.bos_id, "eos_token": v.eos_id}
        return named | {name: "" if i is None else self.token(i) for name, i in both.items()}
