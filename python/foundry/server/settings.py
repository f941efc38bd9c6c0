"""What whoever starts the server decides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Settings:
    """Bounds have a default that a desktop bears; each is a flag of ``foundry serve``.

    Attributes:
        host, port: where it listens. Port 0 takes a free one.
        api_key: asked of every route but the page and /health; None asks nobody.
        allowed_hosts: names that a request's Host may have beside IP addresses and localhost; "*" for any.
        allowed_origins: of web pages that may call the server from elsewhere; "*" for any. None gets credentials.
        max_context: tokens of prompt and answer together, at most the model's own.
        default_max_tokens: tokens promised to an answer that names no bound; past them it grows as memory goes.
        max_running: answers that run at once.
        max_queue: requests that wait to begin; the next one is refused with 429.
        queue_seconds: a request waits that long to begin, then it is refused with 503.
        max_body_bytes: of a request.
        max_schema_bytes: of a JSON schema, regular expression or grammar, and of all tools together.
        max_tools, max_choices, max_prompts: in one request.
        grace_seconds: after SIGTERM answers may go on that long; then they end with what they have.
        sessions_dir: where saved sessions are; None saves none.
        max_sessions: open by ``/v1/sessions`` at once.
        keep: of a prompt whose client leaves while it is computed, what has been computed is kept in the prefix tree
            ("prefix"), or "nothing" is.
        idle_unload_seconds: a model that was loaded on demand goes when nobody has used it for that long; None never.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    max_context: int | None = None
    default_max_tokens: int = 1024
    max_running: int = 64
    max_queue: int = 512
    queue_seconds: float = 60.0
    max_body_bytes: int = 32 << 20
    max_schema_bytes: int = 256 << 10
    max_tools: int = 128
    max_choices: int = 16
    max_prompts: int = 256
    grace_seconds: float = 15.0
    sessions_dir: Path | None = None
    max_sessions: int = 64
    idle_unload_seconds: float | None = None
    keep: Literal["prefix", "nothing"] = "prefix"
