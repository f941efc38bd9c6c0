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
from starlette.applications import Starlette

REPLICAS = 2


def app() -> Starlette:
    """Called in each replica."""
    model = foundry.CompiledModel.load(foundry.pull(), threads=1, prefix_cache_bytes=256 << 20)
    return app_for(model, "smollm2", Settings(allowed_hosts=("*",)))


@serve.deployment(num_replicas=REPLICAS, ray_actor_options={"num_cpus": 1})
@serve.ingress(app)
class Foundry:
    """A replica. What ``app`` made answers."""


application = Foundry.bind()
