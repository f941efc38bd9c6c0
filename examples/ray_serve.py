"""Foundry's server on many machines by Ray Serve: each replica loads the model and serves the same ASGI app.

    pip install 'foundry-llm[server]' 'ray[serve]'
    serve run examples.ray_serve:application

Ray spreads requests over the replicas. Sessions (/v1/sessions) live in one replica, so this is for requests that bring
their whole conversation.
"""

from __future__ import annotations

import foundry
from foundry.server import app_for
from foundry.server.settings import Settings
from ray import serve
from starlette.types import ASGIApp, Receive, Scope, Send

REPLICAS = 2
_app: ASGIApp | None = None  # of this replica's process


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The app, made on the replica's own event loop by the first request."""
    global _app
    if _app is None:
        model = foundry.CompiledModel.load(foundry.pull(), threads=1, prefix_cache_bytes=256 << 20)
        _app = app_for(model, "smollm2", Settings(allowed_hosts=("*",)))
    await _app(scope, receive, send)


@serve.deployment(num_replicas=REPLICAS, ray_actor_options={"num_cpus": 1})
@serve.ingress(app)
class Foundry:
    """A replica. ``app`` answers."""


application = Foundry.bind()
