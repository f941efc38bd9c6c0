"""Who may ask: a web page of anybody's can't drive the server, and with a key nobody can who has none.

A page reaches a server on this machine in three ways, and each is closed. A request to another origin carries its
``Origin``, which is looked at. A form or an image needs no such leave, but can't say that it sends JSON. A name that
the page's owner points at this machine (DNS rebinding) is in ``Host``: only addresses, localhost and names that were
allowed are served.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foundry.server.refusals import Refusal, speaks_anthropic
from foundry.server.settings import Settings

_OPEN = ("/", "/health")  # need no key: the page has nothing of its own, and asks for the key
_METHODS = "GET, POST, DELETE, OPTIONS"
_ASKED_HEADERS = "authorization, content-type, x-api-key, anthropic-version"


class Guard:
    """The outermost layer of the app."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        try:
            self._check_host(headers)
            foreign = self._check_origin(headers)
            if scope["method"] == "OPTIONS":
                answer = Response(status_code=204, headers=_preflight(headers) if foreign else {})
                await _allowing(origin if foreign else None, answer, scope, receive, send)
                return
            self._check_key(headers, scope["path"])
            _check_content_type(headers, scope["method"])
        except Refusal as refusal:
            await refusal.response(speaks_anthropic(scope["path"]))(scope, receive, send)
            return
        await _allowing(origin if foreign else None, self._app, scope, receive, send)

    def _check_host(self, headers: Mapping[str, str]) -> None:
        name = host_name(headers.get("host", ""))
        allowed = {"localhost", self._settings.host, *self._settings.allowed_hosts}
        if name in allowed or "*" in allowed or name.endswith(".localhost") or _is_address(name):
            return
        raise Refusal(403, f"Host: expected an address, localhost or a name given with --allow-host, found {name!r}")

    def _check_origin(self, headers: Mapping[str, str]) -> bool:
        """Whether it comes from another site's page that was allowed."""
        origin = headers.get("origin")
        if origin is None or urlsplit(origin).netloc == headers.get("host"):
            return False
        if origin in self._settings.allowed_origins or "*" in self._settings.allowed_origins:
            return True
        raise Refusal(403, f"Origin: expected this server's own or one given with --allow-origin, found {origin!r}")

    def _check_key(self, headers: Mapping[str, str], path: str) -> None:
        key = self._settings.api_key
        if key is None or path in _OPEN:
            return
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = (bearer if scheme.lower() == "bearer" else "", headers.get("x-api-key", ""))
        if not any([hmac.compare_digest(one.encode("utf-8", "replace"), key.encode()) for one in given]):
            raise Refusal(
                401, "expected the server's API key, as a bearer token or in x-api-key", code="invalid_api_key"
            )


def host_name(host: str) -> str:
    """Of ``name:port``; an IPv6 address stands in brackets."""
    return host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.rpartition(":")[0] or host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_content_type(headers: Mapping[str, str], method: str) -> None:
    """Of everything that changes something: JSON can't be sent from elsewhere without a preflight."""
    if method != "POST":
        return
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, f"Content-Type: expected application/json, found {kind or 'none'}")


def _preflight(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": headers.get("access-control-request-headers", _ASKED_HEADERS),
        "Access-Control-Max-Age": "600",
    }


async def _allowing(origin: str | None, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """The app's answer, which a page of ``origin`` may read."""

    async def answer(message: Message) -> None:
        if origin is not None and message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Access-Control-Allow-Origin"] = origin
            headers.add_vary_header("Origin")
        await send(message)

    await app(scope, receive, answer)
