"""The app: routes, the guard before them, and refusals for what goes wrong behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from foundry.errors import FoundryError
from foundry.server import (
    anthropic_messages,
    memory_api,
    observing,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_responses,
    sessions_api,
    tokens_api,
)
from foundry.server.faults import Faults
from foundry.server.library import Library
from foundry.server.metrics import Metrics
from foundry.server.refusals import Refusal, refuse, refuse_http
from foundry.server.security import Guard
from foundry.server.settings import Settings
from foundry.server.state import State
from foundry.server.streams import Gone


def create_app(library: Library, settings: Settings, metrics: Metrics) -> Starlette:
    """An ASGI app over models that are loaded."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        dropping = asyncio.ensure_future(library.drop_idle())
        try:
            yield
        finally:
            dropping.cancel()
            library.stop()
            library.end()

    app = Starlette(
        routes=_routes(),
        middleware=[Middleware(Guard, settings=settings), Middleware(Faults)],
        exception_handlers={
            Refusal: refuse,
            FoundryError: refuse,
            ValueError: refuse,
            HTTPException: refuse_http,
            Gone: _gone,
        },
        lifespan=lifespan,
    )
    state = State(library, settings, metrics)
    library.in_use = lambda engine: bool(state.sessions.of(engine))
    app.state.foundry = state
    return app


def _routes() -> list[Route]:
    return [
        Route("/", observing.page),
        Route("/health", observing.health),
        Route("/v1/memory", memory_api.memory),
        Route("/metrics", observing.metrics),
        Route("/v1/models", observing.models),
        Route("/v1/models/{name:path}", observing.model),
        Route("/v1/chat/completions", openai_chat.chat_completions, methods=["POST"]),
        Route("/v1/completions", openai_completions.completions, methods=["POST"]),
        Route("/v1/responses", openai_responses.responses, methods=["POST"]),
        Route("/v1/messages", anthropic_messages.messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", anthropic_messages.count_tokens, methods=["POST"]),
        Route("/v1/sessions", sessions_api.listed),
        Route("/v1/sessions", sessions_api.create, methods=["POST"]),
        Route("/v1/sessions/saved/{name}", sessions_api.delete_saved, methods=["DELETE"]),
        Route("/v1/sessions/{id}", sessions_api.get),
        Route("/v1/sessions/{id}", sessions_api.rename, methods=["POST"]),
        Route("/v1/sessions/{id}", sessions_api.delete, methods=["DELETE"]),
        Route("/v1/sessions/{id}/fork", sessions_api.fork, methods=["POST"]),
        Route("/v1/sessions/{id}/rewind", sessions_api.rewind, methods=["POST"]),
        Route("/v1/sessions/{id}/save", sessions_api.save, methods=["POST"]),
        Route("/v1/embeddings", openai_embeddings.embeddings, methods=["POST"]),
        Route("/v1/cache", observing.drop_cache, methods=["DELETE"]),
        Route("/tokenize", tokens_api.tokenize, methods=["POST"]),
        Route("/detokenize", tokens_api.detokenize, methods=["POST"]),
        Route("/tokenizer_info", tokens_api.tokenizer_info),
    ]


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it
