"""What the server says when it does not do as it is asked, in the shape of each dialect."""

from __future__ import annotations

import logging
import math
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from foundry.errors import CancelledError, ContextOverflowError, FoundryError, MemoryLimitError

_log = logging.getLogger("foundry.server")
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_ANTHROPIC_TYPES = _OPENAI_TYPES | {413: "request_too_large", 503: "overloaded_error"}


class Refusal(Exception):
    """A request that is not served: the status and what the client is told.

    Attributes:
        param: the field that is wrong.
        code: a word for programs.
        figures: numbers behind the message, by name.
        retry_after: seconds after which it may be tried again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        figures: dict[str, int] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.figures = figures or {}
        self.retry_after = retry_after

    def body(self, anthropic: bool = False) -> dict[str, Any]:
        if anthropic:
            kind = _ANTHROPIC_TYPES.get(self.status, _class_of(self.status, "api_error"))
            return {"type": "error", "error": {"type": kind, "message": self.message, **self.figures}}
        kind = _OPENAI_TYPES.get(self.status, _class_of(self.status, "server_error"))
        told = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": told | self.figures}

    def response(self, anthropic: bool = False) -> Response:
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JsonResponse(self.body(anthropic), self.status, headers)


class JsonResponse(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def _class_of(status: int, fault_of_ours: str) -> str:
    return "invalid_request_error" if status < 500 else fault_of_ours


def speaks_anthropic(path: str) -> bool:
    return path.startswith("/v1/messages")


def refusal_of(error: BaseException) -> Refusal:
    """Errors of the library, by whose fault they are. Whoever runs the server is told of its own with all that is
    known."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ContextOverflowError):
        figures = {"needed_tokens": error.needed, "available_tokens": error.available}
        return Refusal(400, str(error), "messages", "context_length_exceeded", figures)
    if isinstance(error, MemoryLimitError):
        figures = {"needed_bytes": error.needed_bytes, "available_bytes": error.available_bytes}
        return Refusal(503, str(error), code="memory_limit", figures=figures, retry_after=5)
    if isinstance(error, CancelledError):
        return Refusal(503, "the server is stopping; the answer was given up", code="stopping", retry_after=5)
    if isinstance(error, ValueError):
        return Refusal(400, str(error))
    if isinstance(error, FoundryError):
        return Refusal(500, f"{type(error).__name__}: {error}")
    _log.error("a fault of the server", exc_info=error)
    return Refusal(500, f"a fault of the server: {type(error).__name__}")


async def refuse(request: Request, error: Exception) -> Response:
    """Starlette's handler for refusals, and for errors of the library that are somebody's fault."""
    return refusal_of(error).response(speaks_anthropic(request.url.path))


async def refuse_http(request: Request, error: Exception) -> Response:
    """Starlette's handler for routes that there are not."""
    status = getattr(error, "status_code", 404)
    found = f"{request.method} {request.url.path}"
    what = "a method that this route has" if status == 405 else "a route of this server"
    return Refusal(status, f"expected {what}, found {found}").response(speaks_anthropic(request.url.path))
