"""Session: a conversation's tokens and the K/V pages that hold them."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from foundry import _core
from foundry import generate as generation
from foundry.asynchronous import acollect, beside_the_loop
from foundry.checks import is_default, text, whole
from foundry.choices import MOST_CHOICES, choices
from foundry.generate import Completion, FinishReason, Piece
from foundry.parsing import family_of, message_of, parser_for
from foundry.sampling import MOST_LOGPROBS, SAMPLING, SamplingParams, sampling_params
from foundry.token_ids import TokenIds, as_ids, named

if TYPE_CHECKING:
    from foundry.model import CompiledModel

_PROMPT_END = 16  # tokens; a template that opens the reasoning spells its mark there
Progress = Callable[[int, int], None]
_GLOBALS = (
    "max_seq_len",
    "n_pages",
    "first_page",
    "window",
    "page_tokens",
    "tile_tokens",
    "page_bytes",
    "layer_stride_bytes",
    "head_stride_bytes",
    "k_part_bytes",
    "n_kv_heads",
    "head_dim",
)


class TokenStream:
    """A generation's tokens, each computed when it is asked for."""

    def __init__(self, session: Session, core: _core.Generation) -> None:
        self._session = session
        self._core = core

    def next(self, mask: npt.NDArray[np.uint32] | None = None) -> tuple[_core.NextToken, FinishReason | None]:
        """The next token, or why there is none. ``mask`` [ceil(vocab / 32)] uint32 has a bit for each token that may
        come. ValueError once another call of the session has ended the generation."""
        with named(self._session):
            drawn = self._core.next(mask)
        return drawn, cast("FinishReason | None", drawn.finish_reason)


class Session:
    """Made by ``CompiledModel.session``; a context manager. Calls are atomic: they complete, or change nothing.

    Methods may be called from several threads; steps then run one after another, without the GIL.
    """

    def __init__(self, model: CompiledModel, core: _core.Session) -> None:
        self.model = model
        self._core = core

    def forward(
        self,
        token_ids: TokenIds,
        all_logits: bool = False,
        progress: Progress | None = None,
        *,
        allow_nonfinite: bool = False,
    ) -> npt.NDArray[np.float32]:
        """Feeds tokens and returns logits.

        Args:
            token_ids: [n], at least one.
            all_logits: every row's logits instead of the last one's.
            progress: called with (tokens done, tokens in all) after each chunk.
            allow_nonfinite: return rows with NaN or infinity too, instead of raising NumericError.

        Returns:
            [vocab] float32, or [n, vocab] with ``all_logits``.

        Raises:
            ContextOverflowError: position + n passes ``max_seq_len``.
            MemoryLimitError: the pages can't be had.
            CancelledError: ``cancel`` was called.
            NumericError: a row that is returned has a NaN or +infinity, or nothing but -infinity.
            ValueError: no tokens, an id outside the vocabulary, or a closed session.
        """
        with named(self):
            return self._core.forward(as_ids(token_ids), all_logits, progress, allow_nonfinite)

    def score(self, token_ids: TokenIds, progress: Progress | None = None) -> npt.NDArray[np.float32]:
        """[n] float32: log p(token_ids[i] | history, token_ids[:i]) in nats. NaN for a session's first token."""
        with named(self):
            return self._core.score(as_ids(token_ids), progress)

    def score_top(
        self, token_ids: TokenIds, top: int, progress: Progress | None = None
    ) -> list[generation.TokenLogprobs | None]:
        """``score`` with the ``top`` most likely tokens in each one's place; None for a session's first token."""
        ids = as_ids(token_ids)
        with named(self):
            scored = self._core.score_top(ids, whole("top", top, most=MOST_LOGPROBS), progress)
        found = zip(ids.tolist(), scored.logprobs, scored.top, strict=True)
        return [None if math.isnan(p) else generation.TokenLogprobs(i, p, best) for i, p, best in found]

    def generate(
        self,
        prompt: str | TokenIds,
        max_new_tokens: int | None = 256,
        *,
        params: SamplingParams | None = None,
        progress: Progress | None = None,
        parse_special: bool = True,
        **sampling: Any,
    ) -> Completion:
        """Continues the history, the last answer included, with ``prompt`` and what the model adds.

        ``max_new_tokens`` of None or -1 goes on to the context's end. Sampling is ``params``, or the fields of
        ``SamplingParams`` as keywords (temperature, top_p, seed, stop, logprobs, schema, ...). What spells a control
        token in the prompt is one, or with ``parse_special=False`` it is text.
        ``finish_reason`` is "stop" (an end token or stop string), "length" (max_new_tokens) or "context" (max_seq_len).
        """
        params = sampling_params("generate", params, sampling)
        pieces = self.stream(prompt, max_new_tokens, params=params, progress=progress, parse_special=parse_special)
        return generation.collect(pieces)

    def stream(
        self,
        prompt: str | TokenIds,
        max_new_tokens: int | None = 256,
        *,
        params: SamplingParams | None = None,
        progress: Progress | None = None,
        parse_special: bool = True,
        **sampling: Any,
    ) -> Iterator[Piece]:
        """Like ``generate``, a piece of text at a time; never a part of a character."""
        params = sampling_params("stream", params, sampling)
        return generation.stream(self, self._prompt_ids(prompt, parse_special), max_new_tokens, params, progress)

    def _prompt_ids(self, prompt: str | TokenIds, parse_special: bool) -> list[int]:
        if isinstance(prompt, str):
            tokenizer = self.model.tokenizer
            return tokenizer.encode_prompt(prompt, begins=self.position == 0, parse_special=parse_special)
        ids: list[int] = as_ids(prompt).tolist()
        return ids

    def generate_n(
        self,
        prompt: str | TokenIds,
        n: int,
        max_new_tokens: int | None = 256,
        *,
        params: SamplingParams | None = None,
        progress: Progress | None = None,
        parse_special: bool = True,
        **sampling: Any,
    ) -> list[Completion]:
        """``n`` answers to one prompt, which is computed once: the others go on in forks, all of them together.

        The first is the one that ``generate`` gives, and stays the session's history; each other draws with a seed made
        of the given one and its place.
        """
        params = sampling_params("generate_n", params, sampling)
        ids = self._prompt_ids(prompt, parse_special)
        return choices(self, ids, whole("n", n, 1, MOST_CHOICES), max_new_tokens, params, progress)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_new_tokens: int | None = 256,
        *,
        params: SamplingParams | None = None,
        progress: Progress | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> Completion:
        """Answers a conversation. What the session holds of it already is kept; only new tokens are computed.

        ``tools``, ``documents`` and ``template_variables`` are for the template: see ``Tokenizer.apply_chat_template``.
        Other keywords are SamplingParams' fields, or variables that the template asks for, such as
        ``enable_thinking=False``.

        The answer's ``message`` is its text parted into content, reasoning and calls of the tools, as the template's
        family writes them; ``message.to_dict()`` goes on with the conversation.

        Raises:
            TypeError: a keyword that is neither. ``template_variables`` may have any name.
        """
        sampling, variables = self._told_apart("chat", named, template_variables)
        pieces = self.stream_chat(
            messages,
            max_new_tokens,
            params=sampling_params("chat", params, sampling),
            progress=progress,
            tools=tools,
            documents=documents,
            template_variables=variables,
        )
        return self._parted(generation.collect(pieces), tools)

    def _parted(self, answer: Completion, tools: Sequence[Mapping[str, Any]] | None) -> Completion:
        """A chat's answer with its message. Whether the prompt has begun the reasoning is told by its last tokens."""
        tokenizer = self.model.tokenizer
        prompt = self.token_ids[: answer.usage.prompt_tokens].tolist()
        prompt_end = tokenizer.decode(prompt[-_PROMPT_END:], skip_special_tokens=False)
        parser = parser_for(tokenizer, tools, prompt_end=prompt_end)
        return replace(answer, message=message_of([*parser.push(answer.text), *parser.finish()]))

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_new_tokens: int | None = 256,
        *,
        params: SamplingParams | None = None,
        progress: Progress | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> Iterator[Piece]:
        """Like ``chat``, a piece of text at a time. The text has the marks of calls and of reasoning, those that are
        control tokens included: ``foundry.parsing.parser_for`` reads them as they come."""
        sampling, variables = self._told_apart("stream_chat", named, template_variables)
        params = sampling_params("stream_chat", params, sampling)
        if not params.spelled:
            params = replace(params, spelled=family_of(self.model.tokenizer.chat_template).marks)
        lists = {"tools": tools, "documents": documents}
        variables |= {name: value for name, value in lists.items() if value is not None}
        ids = self.model.tokenizer.encode_chat(messages, **variables)
        return generation.stream(self, ids, max_new_tokens, params, progress, replaces=True)

    def _told_apart(
        self, function: str, named: Mapping[str, Any], variables: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Keywords of sampling, and the template's variables: those that it asks for among them."""
        others = named.keys() - SAMPLING
        asked = {name: named[name] for name in others & self.model.tokenizer.template_variables} if others else {}
        if twice := asked.keys() & (variables or {}).keys():
            raise ValueError(f"{function}: expected each variable once, found {', '.join(sorted(twice))} twice")
        return {name: value for name, value in named.items() if name not in asked}, {**(variables or {}), **asked}

    def agenerate(
        self, prompt: str | TokenIds, max_new_tokens: int | None = 256, **keywords: Any
    ) -> Awaitable[Completion]:
        """``generate`` for an event loop, which it never blocks; cancelling the task cancels the call."""
        return acollect(self.astream(prompt, max_new_tokens, **keywords))

    def astream(
        self, prompt: str | TokenIds, max_new_tokens: int | None = 256, **keywords: Any
    ) -> AsyncIterator[Piece]:
        """``stream`` for an event loop, with the same keywords."""
        return beside_the_loop(self, lambda: self.stream(prompt, max_new_tokens, **keywords))

    def achat(
        self, messages: Sequence[Mapping[str, Any]], max_new_tokens: int | None = 256, **keywords: Any
    ) -> Awaitable[Completion]:
        """``chat`` for an event loop, with the same keywords."""

        async def parted() -> Completion:
            answer = await acollect(self.astream_chat(messages, max_new_tokens, **keywords))
            return self._parted(answer, keywords.get("tools"))

        return parted()

    def astream_chat(
        self, messages: Sequence[Mapping[str, Any]], max_new_tokens: int | None = 256, **keywords: Any
    ) -> AsyncIterator[Piece]:
        """``stream_chat`` for an event loop, with the same keywords."""
        return beside_the_loop(self, lambda: self.stream_chat(messages, max_new_tokens, **keywords))

    def common_with(self, ids: Sequence[int]) -> int:
        """Of the history, the tokens that a history of ``ids`` can go on from; at least one of them is left to feed."""
        held = self._core.tokens()
        n = min(len(held), len(ids) - 1)
        differ = np.nonzero(held[:n] != np.asarray(ids[:n], dtype=np.int32))[0]
        common = int(differ[0]) if differ.size else n
        return common if common >= self.rewindable_to else 0

    def begin(
        self,
        prompt_ids: TokenIds,
        max_new_tokens: int | None,
        params: SamplingParams,
        stop_ids: list[int],
        progress: Progress | None = None,
        keep: int | None = None,
        *,
        answered: int = 0,
        keeps_cancelled: bool = False,
    ) -> TokenStream:
        """Feeds the prompt of a generation, which then gives its tokens one after the other.

        With ``keep``, behind the first so many tokens of the history: the others give way, and come back if it fails.
        ``answered``: so many of the prompt's last tokens are an answer's that goes on. ``keeps_cancelled``: of a prompt
        that is cancelled on an empty session, the model's prefix cache keeps what has been computed.
        """
        everything = self.model.arch.max_seq_len
        most = everything if is_default(max_new_tokens) else whole("max_new_tokens", max_new_tokens)
        options = _core.GenerationOptions()
        options.max_new_tokens = most
        options.sampling = params.seeded().core(self.model.tokenizer)
        options.stop_ids = stop_ids
        options.top_logprobs = params.logprobs
        options.constrained = params.constrained
        options.answered = whole("answered", answered)
        options.keeps_cancelled = keeps_cancelled
        with named(self):
            core = self._core.generate(as_ids(prompt_ids), options, progress, keep)
        return TokenStream(self, core)

    def hold(self, position: int) -> None:
        """While a generation runs, layers with a sliding window keep what ``end_at(position)`` needs, as far as the
        pages go that are promised for a step."""
        self._core.hold(whole("position", position))

    def end_at(self, position: int, token_ids: TokenIds) -> None:
        """Of the history the first ``position`` tokens stay, the others give way to ``token_ids``; what does not fit in
        the context is left out. A window that has passed ``position`` is computed again."""
        kept = self.token_ids[:position]
        more = as_ids(token_ids)[: self.model.arch.max_seq_len - position]
        if position and position < self.rewindable_to:
            self.rewind(0)
            more = np.concatenate([kept, more])
        else:
            self.rewind(position)
        if more.size:
            self.forward(more)

    @property
    def has_windows(self) -> bool:
        """Some layer has a sliding window."""
        return any(group.window for group in self._core.globals())

    @property
    def position(self) -> int:
        """Tokens in the history."""
        return self._core.position

    @property
    def capacity(self) -> int:
        """Tokens that the held pages cover, at most ``max_seq_len``. It grows on demand.

        Layers with a sliding window take the same pages again and again; they count only where there are no others.
        """
        return self._core.capacity

    @property
    def rewindable_to(self) -> int:
        """The least position, apart from 0, that ``rewind`` can go back to: 0 where no layer has a sliding window."""
        return self._core.rewindable_to

    @property
    def reserved_tokens(self) -> int:
        """Tokens promised: they will fit, whatever other sessions do."""
        return self._core.reserved_tokens

    @property
    def kv_bytes(self) -> int:
        """Bytes of the pages held."""
        return self._core.kv_bytes

    @property
    def shared_bytes(self) -> int:
        """Of ``kv_bytes``, those of pages that forks or the prefix cache hold too."""
        return self._core.shared_bytes

    @property
    def pages_added(self) -> int:
        """Pages by which the session has grown since it began."""
        return self._core.pages_added

    @property
    def globals(self) -> dict[str, Any]:
        """What kernels are given about this session's context memory, by name; ``groups`` has it for each layer group.

        The figures at the top are those of the group that sees everything, or of the first where all have windows.
        """
        groups = [{name: getattr(group, name) for name in _GLOBALS} for group in self._core.globals()]
        first = next((group for group in groups if group["window"] == 0), groups[0])
        return {**first, "groups": groups}

    @property
    def token_ids(self) -> npt.NDArray[np.int32]:
        """[position] int32: the history."""
        return self._core.tokens()

    @property
    def cached_tokens(self) -> int:
        """Of the last prompt: tokens found in the model's prefix cache, and not computed again."""
        return self._core.cached_tokens

    @property
    def replayed_tokens(self) -> int:
        """Of the last call that fed tokens: those that ran again before them. 0 where no layer is recurrent: see
        ``replay``."""
        return self._core.replayed_tokens

    @property
    def state_bytes(self) -> int:
        """Of ``kv_bytes``, those of recurrent layers' states."""
        return self._core.state_bytes

    def replay(self, position: int | None = None) -> int:
        """Tokens that will run again where the history is cut to ``position`` (by default it stays) and goes on.

        Recurrent layers go on from a state that has seen all tokens up to its own position. Of those before the
        history's end some are held: the last two at ends of pages, those nearest to the ends of turns, and of others
        the fewer the further back, as many as ``load``'s ``state_cache_bytes`` allow. What lies between the nearest one
        and ``position`` is computed again, with the same bits; at the end of a turn that is less than a page.

        Raises:
            ValueError: past the history.
        """
        return self._core.replay(self.position if position is None else whole("position", position))

    @property
    def closed(self) -> bool:
        return self._core.closed

    def reserve(self, n_tokens: int) -> None:
        """Promises room for ``n_tokens`` in all.

        Raises:
            ContextOverflowError: past ``max_seq_len``.
            MemoryLimitError: it can't be promised.
        """
        self._core.reserve(whole("n_tokens", n_tokens))

    def fork(self) -> Session:
        """Another session with the same history and promise, on the same pages: no K/V byte is copied.

        The first write to a page that is shared, by either session, copies that page.

        Raises:
            MemoryLimitError: what it may still grow by can't be promised.
        """
        return Session(self.model, self._core.fork())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the history and its K/V to a file; ``CompiledModel.restore`` goes on from it. Whole or not at all.

        The last token of an answer, which no step has seen yet, is not part of it. A symbolic link is followed; an old
        file's mode is kept. What a killed save left in that folder is removed.

        Raises:
            OSError: the file can't be written, or there is something else than a regular file; what was there stays.
            ModelFormatError: the model's file was written to since it was loaded, so its weights are not known.
        """
        self._core.save(text("path", os.fsdecode(path)))

    def rewind(self, position: int) -> None:
        """Back to the first ``position`` tokens; the pages behind them are given back at once.

        Raises:
            ValueError: past the history, or between 0 and ``rewindable_to``.
        """
        self._core.rewind(whole("position", position))

    def cancel(self) -> None:
        """From any thread: the call that runs ends with CancelledError and changes nothing."""
        self._core.cancel()

    def close(self) -> None:
        """Gives all memory and the promise back. Closing twice is fine."""
        self._core.close()

    def check_consistency(self) -> None:
        """Raises ConsistencyError where what kernels are told and what is allocated differ.

        Steps that grow a session check so before they run, and all steps with ``check_every_step``.
        """
        self._core.check()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Session(position={self.position}, capacity={self.capacity}, reserved_tokens={self.reserved_tokens})"
