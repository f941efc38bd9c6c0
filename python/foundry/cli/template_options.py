"""The chat template that the command line names, and what it hands to it: tools, documents, and variables by name."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_file(command: argparse._ActionsContainer) -> None:
    command.add_argument("--chat-template", metavar="FILE", help="a Jinja template in place of the file's own")


def add(command: argparse.ArgumentParser) -> None:
    add_file(command)
    for name, what in (("tools", "JSON schemas of functions that the model may call"), ("documents", "documents")):
        command.add_argument(f"--{name}", metavar="FILE", help=f"{what}: a list in JSON, for the chat template")
    command.add_argument(
        "--template-variable",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for the chat template, such as enable_thinking=false; the value is JSON, or else text; may be repeated",
    )


def template(arguments: argparse.Namespace) -> str | None:
    """The template's text; None for the model's own. ValueError for a file that is no text, OSError for none."""
    if arguments.chat_template is None:
        return None
    try:
        return Path(arguments.chat_template).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        found = f"byte {error.object[error.start]:#x} at {error.start}"
        raise ValueError(f"--chat-template: expected UTF-8 in {arguments.chat_template}, found {found}") from None


def read(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keywords for ``Tokenizer.encode_chat``. ValueError for what makes no sense, OSError for a file."""
    found: dict[str, Any] = {name: _listed(name, getattr(arguments, name)) for name in ("tools", "documents")}
    for said in arguments.template_variable:
        name, equals, value = said.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--template-variable: expected NAME=VALUE, found {said!r}")
        if name in found or name in ("messages", "add_generation_prompt", "tokenize"):
            raise ValueError(f"--template-variable: expected a variable of the template's own, found {name!r}")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _listed(name: str, path: str | None) -> Any:
    if path is None:
        return None
    with open(path, encoding="utf-8") as file:
        try:
            value = json.load(file)
        except ValueError as error:
            raise ValueError(f"--{name}: expected JSON in {path}, found {error}") from None
    if not isinstance(value, list):
        raise ValueError(f"--{name}: expected a list in {path}, found {type(value).__name__}")
    return value
