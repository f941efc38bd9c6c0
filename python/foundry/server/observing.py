"""/health, /metrics, /v1/models."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from foundry.server.library import unknown
from foundry.server.metrics import CONTENT_TYPE
from foundry.server.refusals import JsonResponse
from foundry.server.state import state_of

_page = functools.cache(lambda: Path(__file__).with_name("page.html").read_bytes())
_PAGE_HEADERS = {  # nothing of others', and in nobody's frame
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
    " connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


async def health(request: Request) -> Response:
    return JsonResponse({"status": "ok"})


async def page(request: Request) -> Response:
    return HTMLResponse(_page(), headers=_PAGE_HEADERS)


async def metrics(request: Request) -> Response:
    return Response(state_of(request).metrics.text(), media_type=CONTENT_TYPE)


async def models(request: Request) -> Response:
    return JsonResponse({"object": "list", "data": state_of(request).library.about()})


async def model(request: Request) -> Response:
    name = request.path_params["name"]
    found = state_of(request).library.about()
    for one in found:
        if one["id"] == name:
            return JsonResponse(one)
    raise unknown(name, [one["id"] for one in found])


async def drop_cache(request: Request) -> Response:
    """DELETE /v1/cache: the prefix trees are emptied, but for what sessions hold."""
    engines = state_of(request).library.engines
    dropped = {engine.name: await asyncio.to_thread(engine.model.drop_prefixes) for engine in engines}
    return JsonResponse({"dropped_bytes": dropped})
