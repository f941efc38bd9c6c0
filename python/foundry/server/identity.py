"""Ids that nobody can guess."""

from __future__ import annotations

import secrets


def fresh_id(kind: str) -> str:
    """``kind`` says what it is of; 128 random bits."""
    return f"{kind}-{secrets.token_hex(16)}"
