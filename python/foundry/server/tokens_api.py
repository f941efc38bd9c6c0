"""/tokenize, /detokenize and /tokenizer_info, as vLLM has them and evaluation harnesses use them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from foundry.server import conversation
from foundry.server.openai_completions import check_ids
from foundry.server.refusals import JsonResponse, Refusal
from foundry.server.state import state_of


class TokenizeRequest(msgspec.Struct):
    model: str | None = None
    prompt: str | None = None
    content: str | None = None  # llama.cpp's name for it
    messages: list[conversation.Message] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(msgspec.Struct):
    tokens: list[int]
    model: str | None = None


async def tokenize(request: Request) -> Response:
    state = state_of(request)
    asked = await state.read(request, TokenizeRequest)
    engine = await state.library.engine(asked.model)
    tokenizer = engine.model.tokenizer
    text = asked.prompt if asked.prompt is not None else asked.content
    if asked.messages is not None:
        ids = await conversation.prompt_ids(tokenizer, conversation.plain(asked.messages))
    elif text is not None:
        special = asked.add_special_tokens is not False
        ids = await asyncio.to_thread(tokenizer.encode, text, special)
    else:
        raise Refusal(400, "prompt: expected text, or messages, found neither", "prompt")
    made: dict[str, Any] = {"count": len(ids), "max_model_len": engine.context, "tokens": ids}
    if asked.return_token_strs:
        made["token_strs"] = [tokenizer.token(i) for i in ids]
    return JsonResponse(made)


async def detokenize(request: Request) -> Response:
    state = state_of(request)
    asked = await state.read(request, DetokenizeRequest)
    engine = await state.library.engine(asked.model)
    check_ids(asked.tokens, engine.model.arch.vocab_size, "tokens")
    text = engine.model.tokenizer.decode(asked.tokens, skip_special_tokens=False)
    return JsonResponse({"prompt": text, "content": text})


async def tokenizer_info(request: Request) -> Response:
    engine = await state_of(request).library.engine(request.query_params.get("model"))
    tokenizer = engine.model.tokenizer

    def named(token_id: int | None) -> str | None:
        return None if token_id is None else tokenizer.token(token_id)

    return JsonResponse(
        {
            "tokenizer_class": "FoundryTokenizer",
            "vocab_size": tokenizer.vocab_size,
            "model_max_length": engine.context,
            "bos_token": named(tokenizer.bos_id),
            "eos_token": named(tokenizer.eos_id),
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "stop_token_ids": sorted(tokenizer.stop_ids),
            "chat_template": tokenizer.chat_template,
        }
    )
