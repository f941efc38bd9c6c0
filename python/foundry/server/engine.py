"""A model that answers requests: what fits is let in, what never can is refused with figures."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from foundry.capacity import CapacityDecision, CapacityPolicy
from foundry.errors import CancelledError
from foundry.generate import TokenLogprobs
from foundry.memory import format_bytes
from foundry.model import CompiledModel
from foundry.sampling import SamplingParams
from foundry.server.admission import Admission
from foundry.server.metrics import Metrics
from foundry.server.refusals import Refusal
from foundry.server.reuse import Reuse
from foundry.server.run import Room, Run, Work
from foundry.server.settings import Settings
from foundry.server.shortage import Parking
from foundry.session import Session
from foundry.structured import Matcher, matcher_for

T = TypeVar("T")
foundry_version = functools.cache(lambda: version("foundry-llm"))


class _OnDemand(CapacityPolicy):
    """The whole promise, and no page before it is needed: most of a prompt's may be in the prefix cache."""

    def decide(self, prompt_tokens: int, max_new_tokens: int, max_seq_len: int) -> CapacityDecision:
        return replace(super().decide(prompt_tokens, max_new_tokens, max_seq_len), initial=0)


class Engine:
    """One model, and everything that runs on it."""

    def __init__(self, name: str, model: CompiledModel, settings: Settings, metrics: Metrics) -> None:
        self.name = name
        self.model = model
        self.settings = settings
        self.metrics = metrics
        self.created = int(time.time())
        self.used = time.monotonic()
        self.parking = Parking(self._cleared)
        self.admission = Admission(settings, self.parking)
        self._loop: asyncio.AbstractEventLoop | None = None  # that it runs on
        self.runs: set[Run] = set()
        self.reuse = Reuse(model._core.plan(1, 1).page_tokens)
        self._stopping = False
        metrics.watch(self)

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        most = self.model.arch.max_seq_len
        return min(most, self.settings.max_context or most)

    @property
    def fingerprint(self) -> str:
        """What an answer's bits depend on beside the request: the version and the device."""
        return f"foundry-{foundry_version()}-{self.model.device}"

    def check_prompt(self, tokens: int, param: str = "messages") -> int:
        """Tokens that an answer may have behind such a prompt. Refusal where there is none."""
        if tokens >= self.context:
            raise Refusal(
                400,
                f"context: expected a prompt of at most {self.context - 1} tokens, for the context has {self.context}"
                f" and the answer needs one; found {tokens}",
                param,
                "context_length_exceeded",
                {"needed_tokens": tokens + 1, "available_tokens": self.context},
            )
        if tokens == 0:
            raise Refusal(400, "prompt: expected at least one token, found none", param)
        return self.context - tokens

    async def start(self, work: Work, held: Session | None = None, param: str = "messages") -> Run:
        """Lets the request in and begins it.

        Raises:
            Refusal: 400 for what can never fit; 429 and 503 as ``Admission.enter`` says.
        """
        before = held.position if held is not None and work.append else 0
        room = self.check_prompt(before + len(work.ids), param)
        bounded = work.max_new is not None and work.max_new < room
        work = replace(work, max_new=min(room, work.max_new) if work.max_new is not None else room)
        promised = work.max_new if bounded else min(room, self.settings.default_max_tokens)
        assert promised is not None
        self.check_memory(len(work.ids), promised, work.n)
        work = replace(work, keeps_cancelled=self.settings.keep == "prefix")
        self._loop = asyncio.get_running_loop()
        asked = time.monotonic()
        opened = await self.admission.enter(work.n, lambda: self._open(len(work.ids), promised, work.n, held))
        self.used = asked
        self.metrics.admitted(self, time.monotonic() - asked)

        def done() -> None:
            self.runs.discard(run)
            self.admission.leave(work.n)
            self.used = time.monotonic()

        run = Run(work, opened, self.parking, lambda: None, done)
        self.runs.add(run)
        if self._stopping:
            run.end()
        return run

    def check_memory(self, prompt: int, new: int, n: int = 1) -> None:
        """Refusal of what would not fit if nothing else were there."""
        needed = self._needed_bytes(prompt, new) + (n - 1) * self._needed_bytes(0, new)
        found = self.model.memory()
        if not found["limit"]:
            return
        fixed = found["weights_mapped"] + found["weights_private"] + found["workspace"] + found["estimated"]
        most = found["limit"] - fixed
        if needed > most:
            what = f"prompt of {prompt} tokens and {n} x {new} new ones" if n > 1 else f"{prompt} + {new} tokens"
            raise Refusal(
                400,
                f"memory: the K/V of {what} needs {needed} bytes ({format_bytes(needed)}), and this server never has"
                f" more than {most} ({format_bytes(most)}): its limit less the model's weights",
                "max_tokens",
                "memory_limit",
                {"needed_bytes": needed, "available_bytes": most},
            )

    def _needed_bytes(self, prompt: int, new: int) -> int:
        return self.model.plan(prompt, new).kv if prompt + new else 0

    def _open(self, prompt: int, new: int, n: int, held: Session | None) -> Room:
        """On a thread. MemoryLimitError opens nothing."""
        policy = _OnDemand()
        room = Room(self._again, self.parking, keeps=held is not None)
        self.parking.begin(room)
        try:
            if held is None:
                room.first = self.model.session(prompt, new, policy)
            else:
                held.reserve(max(held.reserved_tokens, min(self.model.arch.max_seq_len, prompt + new)))
                room.first = held
        except BaseException:
            self.parking.leave(room)
            raise
        try:
            for _ in range(n - 1):  # each has a page of its own where the prompt's last one ends
                room.others.append(self.model.session(0, new, policy))
        except BaseException:
            room.close()
            raise
        return room

    def _again(self, n_tokens: int, more: int) -> Session:
        """On a thread, for an answer that had been parked."""
        most = self.model.arch.max_seq_len
        return self.model.session(min(n_tokens, most), min(more, max(self.context - n_tokens, 0)), _OnDemand())

    def _cleared(self) -> None:
        """On a thread: nobody is parked any more, so that others may begin."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is over
                self._loop.call_soon_threadsafe(self.admission.freed)

    async def score(self, ids: list[int], top: int) -> list[TokenLogprobs | None]:
        """What the model makes of a prompt, computed anew: nothing comes from the prefix cache."""
        self.check_prompt(len(ids), "prompt")
        self.check_memory(len(ids), 1)
        room = await self.admission.enter(1, lambda: self._open(len(ids), 1, 1, None))
        session = room.first
        try:
            return await beside(session, lambda: session.score_top(ids, top))
        finally:
            await asyncio.to_thread(room.close)
            self.admission.leave(1)

    async def embed(self, texts: list[list[int]], dimensions: int | None) -> npt.NDArray[np.float32]:
        """Rows of length 1. It begins when the longest text's K/V can be had; a task that is cancelled ends the call
        with the step that runs.

        Raises:
            Refusal: 400 for what can never fit; 429 and 503 as ``Admission.enter`` says.
        """
        longest = max(map(len, texts))
        self.check_memory(longest, 0)
        await self.admission.enter(1, lambda: self.model._core.session(0, longest).close())  # it may make no text
        given_up = threading.Event()

        def told(done: int, total: int) -> None:
            if given_up.is_set() or self._stopping:
                raise CancelledError("the embeddings were given up")

        def call() -> npt.NDArray[np.float32]:
            return self.model.embed(texts, normalize=True, dimensions=dimensions, progress=told)

        running = asyncio.ensure_future(asyncio.to_thread(call))
        try:
            rows = await asyncio.shield(running)
            self.metrics.embedded(self, sum(map(len, texts)))
            return rows
        except asyncio.CancelledError:
            given_up.set()
            await asyncio.wait([running])
            running.exception()
            raise
        finally:
            self.used = time.monotonic()
            self.admission.leave(1)

    async def matcher(self, params: SamplingParams) -> Matcher | None:
        """Of a grammar, made on a thread. Refusal of one that makes no sense."""
        if not params.constrained:
            return None
        try:
            return await asyncio.to_thread(matcher_for, self.model, params)
        except ValueError as error:
            raise Refusal(400, str(error), "response_format", "invalid_schema") from None

    def freed(self) -> None:
        """A session was closed that was nobody's answer."""
        self.admission.freed()
        self.parking.freed()

    def stop(self) -> None:
        """Nobody begins any more; who runs goes on."""
        self.admission.stop()

    def end(self) -> None:
        """Who runs ends with what there is."""
        self._stopping = True
        for run in list(self.runs):
            run.end()

    def close(self) -> None:
        self.metrics.forget(self)

    def about(self) -> dict[str, Any]:
        """As /v1/models tells it."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "foundry",
            "max_model_len": self.context,
            "max_context": self.model.arch.max_seq_len,
            "loaded": True,
            "device": self.model.device,
        }


async def beside(session: Session, call: Callable[[], T]) -> T:
    """A call of ``session`` on a thread. A task that is cancelled cancels it, and waits for its end."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            session.cancel()
            await asyncio.wait([running], timeout=0.05)
        running.exception()
        raise
