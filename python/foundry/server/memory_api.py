"""GET /v1/memory: what holds the memory, for the page and whoever asks why it is full."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from foundry.server.engine import Engine
from foundry.server.refusals import JsonResponse
from foundry.server.sessions import Held
from foundry.server.state import state_of


async def memory(request: Request) -> Response:
    state = state_of(request)
    models = [_of(engine, state.sessions.of(engine)) for engine in state.library.engines]
    return JsonResponse({"models": models})


def _of(engine: Engine, held: list[Held]) -> dict[str, Any]:
    figures = engine.model.memory()
    return {
        "id": engine.name,
        "device": engine.model.device,
        "context": engine.context,
        "memory": figures,
        "running": engine.admission.running,
        "waiting": engine.admission.waiting,
        "parked": engine.parking.parked,
        "answers": _answers(engine),
        "sessions": [one.about() for one in held],
        "prefixes": engine.model.prefixes(),
    }


def _answers(engine: Engine) -> list[dict[str, Any]]:
    """Those that run. One that ends meanwhile is left out."""
    found = []
    for run in list(engine.runs):
        for choice in run.choices:
            session = choice.session
            if session is None or choice.over or session.closed:
                continue
            found.append(
                {
                    "choice": choice.index,
                    "position": session.position,
                    "promised_tokens": session.reserved_tokens,
                    "kv_bytes": session.kv_bytes,
                    "shared_bytes": session.shared_bytes,
                    "prefill": not choice.fed,
                }
            )
    return found
