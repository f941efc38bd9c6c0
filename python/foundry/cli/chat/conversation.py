"""A conversation: its messages, and the session whose pages hold as much of them as has been computed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry.capacity import CapacityPolicy
from foundry.errors import FoundryError
from foundry.session import Session

Message = dict[str, Any]


class Conversation:
    """Messages are the truth and the session follows: what it holds of them is never computed again.

    Attributes:
        session: of this conversation alone.
        system: the message that stands before all others, or None.
        turns: [user, assistant] messages, in the order in which they were said.
    """

    def __init__(
        self, session: Session, system: str | None, turns: list[tuple[Message, Message]] | None = None
    ) -> None:
        self.session = session
        self.system = system
        self.turns = list(turns or [])

    def messages(self, question: str | None = None) -> list[Message]:
        """All of them, and a new one of the user's behind them."""
        said = [] if self.system is None else [{"role": "system", "content": self.system}]
        said += [message for turn in self.turns for message in turn]
        return said if question is None else [*said, {"role": "user", "content": question}]

    def answered(self, question: str, answer: str) -> None:
        self.turns.append(({"role": "user", "content": question}, {"role": "assistant", "content": answer}))

    def rewind(self, n: int, variables: Mapping[str, Any]) -> None:
        """Takes the last ``n`` turns back, and gives the pages back that held them. ValueError where there are fewer.

        ``variables`` are the chat template's.
        """
        if not 1 <= n <= len(self.turns):
            there = f"{len(self.turns)} turn{'s' if len(self.turns) != 1 else ''}"
            raise ValueError(f"/rewind: expected a number of turns from 1 to those there are, found {n} of {there}")
        kept = self.turns[:-n]
        session, keep = self.session, 0
        if kept:
            ids = session.model.tokenizer.encode_chat(Conversation(session, self.system, kept).messages(), **variables)
            keep = session.common_with(ids)
        session.rewind(keep)
        self.turns = kept

    def clear(self) -> None:
        """Takes all turns back; the system message stays."""
        self.session.rewind(0)
        self.turns = []

    def fork(self) -> Conversation:
        """Another one that has said the same so far, on the same pages. MemoryLimitError as of ``Session.fork``."""
        return Conversation(self.session.fork(), self.system, self.turns)

    def save(self, path: Path) -> None:
        """Writes the messages as JSON, and what is computed of them beside it, to ``<path>.kv``. OSError."""
        self.session.save(context_path(path))
        _write_whole(path, json.dumps({"messages": self.messages()}, ensure_ascii=False, indent=1) + "\n")

    def load(self, path: Path, max_new_tokens: int, policy: CapacityPolicy) -> str | None:
        """Goes on with what ``save`` wrote, in place of what was said here.

        Returns None, or why the context has to be computed anew: only messages go from one model to another.

        Raises:
            OSError: the file can't be read.
            ValueError: it holds no conversation. Nothing has changed.
        """
        system, turns = _read(path)
        anew = None
        try:
            session = self.session.model.restore(context_path(path), max_new_tokens, policy)
        except (FoundryError, OSError) as error:
            anew = str(error)
            self.session.rewind(0)
        else:
            self.session.close()
            self.session = session
        self.system, self.turns = system, turns
        return anew


def context_path(path: Path) -> Path:
    """Where what is computed lies, beside the messages."""
    return path.with_name(path.name + ".kv")


def _read(path: Path) -> tuple[str | None, list[tuple[Message, Message]]]:
    expected = f"{path}: expected a conversation as /save writes it"
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON, or of UTF-8
        raise ValueError(f"{expected}, found what is no JSON: {error}") from None
    messages = held.get("messages") if isinstance(held, dict) else held
    if not isinstance(messages, list):
        raise ValueError(f"{expected}, found no list of messages")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError(f"{expected}, found a message without text: {str(message)[:60]}")
    roles = [message.get("role") for message in messages]
    begins = 1 if roles[:1] == ["system"] else 0
    questions, answers = messages[begins::2], messages[begins + 1 :: 2]
    if roles[begins::2] != ["user"] * len(answers) or roles[begins + 1 :: 2] != ["assistant"] * len(answers):
        raise ValueError(
            f"{expected}, found messages that are no turns of user and assistant: {', '.join(map(str, roles))}"
        )
    return messages[0]["content"] if begins else None, list(zip(questions, answers, strict=True))


def _write_whole(path: Path, text: str) -> None:
    """Whole or not at all."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
