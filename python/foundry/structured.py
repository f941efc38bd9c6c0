"""Answers of a given form: a grammar says before each token which may come. By llguidance (extra "structured")."""

from __future__ import annotations

import json
import threading
import weakref
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from foundry.errors import FoundryError
from foundry.sampling import SamplingParams

if TYPE_CHECKING:
    from foundry.model import CompiledModel
    from foundry.tokenizer import Tokenizer

MOST_GRAMMAR_BYTES = 1 << 20
_vocabularies: WeakKeyDictionary[Tokenizer, Any] = WeakKeyDictionary()
_making = threading.Lock()


class Matcher:
    """Where an answer stands in its grammar."""

    def __init__(self, core: Any, vocab_size: int, tokenizer: Tokenizer) -> None:
        self._core = core
        self._vocab_size = vocab_size
        self._tokenizer = tokenizer  # which the vocabulary of ``core`` asks

    def mask(self) -> npt.NDArray[np.uint32]:
        """[ceil(vocab / 32)] uint32: a bit for each token that may come, lowest first."""
        mask = np.zeros((self._vocab_size + 31) // 32, dtype=np.uint32)
        self._core.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        self._check()
        return mask

    def ends_with(self, token_id: int) -> bool:
        """Takes the token that came; nothing can follow it."""
        self._core.consume_token(token_id)
        self._check()
        return bool(self._core.is_stopped())

    def copy(self) -> Matcher:
        return Matcher(self._core.deep_copy(), self._vocab_size, self._tokenizer)

    def _check(self) -> None:
        if self._core.is_error():
            raise ValueError(f"the grammar can't go on: {self._core.get_error()}")


def matcher_for(model: CompiledModel, params: SamplingParams) -> Matcher | None:
    """At the beginning of an answer; None where its form is free. ValueError for a grammar that makes no sense."""
    if not params.constrained:
        return None
    try:
        import llguidance
    except ImportError:
        raise FoundryError(
            'schema, regex and grammar need another package: pip install "foundry-llm[structured]"'
        ) from None
    grammar = _grammar(llguidance.LLMatcher, params)
    if (size := len(grammar.encode())) > MOST_GRAMMAR_BYTES:
        raise ValueError(f"grammar: expected at most {MOST_GRAMMAR_BYTES} bytes, found {size}")
    vocabulary = _vocabulary(llguidance, model)
    limits = llguidance.LLParserLimits(verbose_errors=False)
    core = llguidance.LLMatcher(vocabulary, grammar, log_level=0, limits=limits)
    if core.is_error():
        raise ValueError(f"grammar: {core.get_error()}")
    return Matcher(core, model.arch.vocab_size, model.tokenizer)


def _grammar(matcher: Any, params: SamplingParams) -> str:
    if params.regex is not None:
        return str(matcher.grammar_from_regex(params.regex))
    if params.grammar is not None:
        return str(matcher.grammar_from_lark(params.grammar))
    schema = {"type": "object"} if params.schema is True else params.schema
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return str(matcher.grammar_from_json_schema(text))


class _Wrapped:
    """The vocabulary as llguidance asks for it. It doesn't keep the tokenizer alive, which is the key that it is kept
    under: who asks has that."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = range(tokenizer.vocab_size)
        self.eos_token_id = tokenizer.eos_id if tokenizer.eos_id is not None else min(tokenizer.stop_ids, default=0)
        self.tokens = [tokenizer.piece(i) for i in ids]
        self.special_token_ids = [i for i in ids if tokenizer.is_control(i)]
        self._tokenizer = weakref.ref(tokenizer)

    def __call__(self, text: bytes | str) -> list[int]:
        """As the model was trained to spell it: marks of calls, where they are tokens that text has, are those tokens.
        Text never is a control token."""
        data = text if isinstance(text, bytes) else text.encode()
        tokenizer = self._tokenizer()
        if tokenizer is None:
            raise ReferenceError("the tokenizer of this vocabulary is gone")
        ids = tokenizer.encode(data.decode(errors="replace"), add_special_tokens=False)
        if b"".join(map(tokenizer.piece, ids)) == data and not any(map(tokenizer.is_control, ids)):
            return ids
        return tokenizer.encode_bytes(data)


def _vocabulary(llguidance: Any, model: CompiledModel) -> Any:
    """Made once for each tokenizer."""
    tokenizer = model.tokenizer
    with _making:
        if (made := _vocabularies.get(tokenizer)) is None:
            from llguidance import LLTokenizer, TokenizerWrapper

            made = LLTokenizer(
                TokenizerWrapper(_Wrapped(tokenizer)),
                n_vocab=model.arch.vocab_size,
                eos_token=sorted(tokenizer.stop_ids),
            )
            _vocabularies[tokenizer] = made
    return made
