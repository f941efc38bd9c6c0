"""POST /v1/embeddings: texts as rows of numbers, of models whose files say how they are pooled."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import Response

from foundry.errors import FoundryError
from foundry.server.engine import Engine
from foundry.server.openai_completions import check_ids
from foundry.server.refusals import JsonResponse, Refusal
from foundry.server.state import State, state_of
from foundry.server.streams import unless_gone

_FORMATS = ("float", "base64")


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: str | None = None
    dimensions: int | None = None


async def embeddings(request: Request) -> Response:
    state = state_of(request)
    asked = await state.read(request, EmbeddingsRequest)
    return JsonResponse(await unless_gone(request, _answer(state, asked)))


async def _answer(state: State, asked: EmbeddingsRequest) -> dict[str, Any]:
    engine = await state.library.engine(asked.model)
    if engine.model.pooling is None:
        raise Refusal(
            400, "embeddings: expected a model that makes them; this one makes text", "model", "no_embeddings"
        )
    form = asked.encoding_format or "float"
    if form not in _FORMATS:
        raise Refusal(400, f"encoding_format: expected {' or '.join(_FORMATS)}, found {form!r}", "encoding_format")
    most = engine.model.arch.hidden_size
    if asked.dimensions is not None and not 1 <= asked.dimensions <= most:
        raise Refusal(400, f"dimensions: expected 1 to {most}, found {asked.dimensions}", "dimensions")
    texts = await _texts(engine, asked.input, state.settings.max_prompts)
    rows = await engine.embed(texts, asked.dimensions)
    tokens = sum(map(len, texts))
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": _spelled(row, form)} for i, row in enumerate(rows)],
        "model": engine.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


async def _texts(engine: Engine, given: str | list[str | int | list[int]], most: int) -> list[list[int]]:
    """Token ids of each."""
    listed: list[Any] = [given] if isinstance(given, str) or all(isinstance(one, int) for one in given) else list(given)
    if listed == [[]]:
        raise Refusal(400, "input: expected text, token ids or a list of either, found none", "input")
    if any(isinstance(one, int) for one in listed):
        raise Refusal(400, "input: expected text or token ids, found them mixed", "input")
    if len(listed) > most:
        raise Refusal(400, f"input: expected at most {most} texts, found {len(listed)}", "input")
    return await asyncio.to_thread(lambda: [_ids(engine, one, place) for place, one in enumerate(listed)])


def _ids(engine: Engine, given: str | list[int], place: int) -> list[int]:
    name = f"input[{place}]"
    try:
        ids = engine.model.tokenizer.encode(given) if isinstance(given, str) else given
    except (ValueError, FoundryError) as error:
        raise Refusal(400, f"{name}: {error}", "input") from None
    check_ids(ids, engine.model.arch.vocab_size, "input")
    if not ids:
        raise Refusal(400, f"{name}: expected at least one token, found none", "input")
    if len(ids) > engine.context:
        figures = {"needed_tokens": len(ids), "available_tokens": engine.context}
        message = f"{name}: expected at most {engine.context} tokens, the context, found {len(ids)}"
        raise Refusal(400, message, "input", "context_length_exceeded", figures)
    return ids


def _spelled(row: npt.NDArray[np.float32], form: str) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    return [float(value) for value in row]
