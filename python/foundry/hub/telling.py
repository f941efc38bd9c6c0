"""What the package huggingface_hub says, in Foundry's words: many errors as a few, and its screens kept away."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from foundry.hub.shortages import shortage_in


@contextmanager
def quiet() -> Iterator[None]:
    """huggingface_hub's own bars and its words of retries are not shown."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown, logger = not are_progress_bars_disabled(), logging.getLogger("huggingface_hub")
    level = logger.level
    try:
        if shown:
            disable_progress_bars()
        logger.setLevel(logging.ERROR)
        yield
    finally:
        logger.setLevel(level)
        if shown:
            enable_progress_bars()


@contextmanager
def telling(repo: str) -> Iterator[None]:
    """This machine's shortages stay what they are; the hub's many errors become a few, which say what helps."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if (short := shortage_in(error)) is not None:
            raise OSError(short.errno, f"{repo}: {short.strerror}", short.filename) from error
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if status in (401, 403) or type(error).__name__ == "GatedRepoError":
            gated = getattr(response, "headers", {}).get("X-Error-Code") == "GatedRepo"
            why = (
                "its owner wants a licence to be accepted on its page, and a token"
                if gated
                else "there is none for everybody: a private one wants a token"
            )
            raise PermissionError(f"{repo}: {why} that may read it, as HF_TOKEN or --token (HTTP {status})") from error
        if status == 404:
            raise ValueError(f"{repo}: expected a repository of the hub, found none") from error
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ConnectionError(f"{repo}: {said[0]}") from error
