"""A person at a terminal: editing, history, completion of commands and pastes of many lines, by prompt_toolkit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from platformdirs import user_state_path
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer, Completion, NestedCompleter, PathCompleter
from prompt_toolkit.completion.base import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPressEvent
from prompt_toolkit.output import create_output

from foundry.cli.progress import stderr

_FILES = ("/save", "/load")


def history_path() -> Path:
    """What was typed in chats, for the arrow keys of the next one."""
    return user_state_path("foundry") / "chat_history"


class Terminal:
    """Reads from the terminal and shows what is typed there, also where stdout is a file or a pipe."""

    interactive = True

    def __init__(self, commands: Sequence[str], keeps_history: bool) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=_history() if keeps_history else InMemoryHistory(),
            completer=_Commands(commands),
            complete_while_typing=False,
            key_bindings=_keys(),
            prompt_continuation="  ",
            output=create_output(always_prefer_tty=True),
        )

    def next(self) -> str | None:
        """A message or command; None at Ctrl-D. Ctrl-C drops what is typed."""
        while True:
            try:
                return self._session.prompt("> ").translate(_NO_HALVES)
            except KeyboardInterrupt:
                stderr.print("Ctrl-D or /exit ends the chat", style="dim")
            except EOFError:
                return None


_NO_HALVES = dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)  # bytes that are no text, where the locale is lenient


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


class _Commands(Completer):
    """The commands' names, and files behind those that take one. A message completes to nothing."""

    def __init__(self, commands: Sequence[str]) -> None:
        files = PathCompleter(expanduser=True)
        self._nested = NestedCompleter.from_nested_dict({name: files if name in _FILES else None for name in commands})

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        if document.text.startswith("/"):
            yield from self._nested.get_completions(document, complete_event)


def _history() -> History:
    """In a file that only its owner may read; in memory where there can be none."""
    path = history_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))
