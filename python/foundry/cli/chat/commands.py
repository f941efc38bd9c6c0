"""The chat's commands: what each takes and does. They print to stderr, for stdout has the answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundry.capacity import CapacityPolicy
from foundry.cli.opening import promised
from foundry.cli.progress import stderr
from foundry.cli.screens import session_screen

if TYPE_CHECKING:
    from foundry.cli.chat.talk import Talk

_COMMAND = re.compile(r"/([A-Za-z]+)(?:\s+(.*?))?\s*", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """``takes`` is what stands behind the name, in brackets where it may be left out; "" for nothing."""

    takes: str
    what: str
    run: Callable[[Talk, str], None]


def parse(line: str) -> tuple[str, str] | None:
    """("name", what stands behind it), or None for a message: no word behind a slash, or a space before it."""
    found = _COMMAND.fullmatch(line)
    return None if found is None else (found[1], found[2] or "")


def run(talk: Talk, name: str, given: str) -> None:
    """ValueError for what is no command, or takes something else."""
    command = COMMANDS.get(name)
    if command is None:
        names = ", ".join(f"/{name}" for name in COMMANDS)
        raise ValueError(f"/{name}: expected one of {names}; a space before it makes it a message")
    if given and not command.takes:
        raise ValueError(f"/{name}: expected nothing behind it, found {given!r}")
    if not given and command.takes and not command.takes.startswith("["):
        raise ValueError(f"/{name}: expected {command.takes} behind it, found nothing")
    command.run(talk, given)


def _say(text: str) -> None:
    stderr.print(text, markup=False, soft_wrap=True)


def _number(name: str, given: str, default: int) -> int:
    if given and not given.isdecimal():
        raise ValueError(f"/{name}: expected a whole number, found {given!r}")
    return int(given) if given else default


def _help(talk: Talk, given: str) -> None:
    for name, command in COMMANDS.items():
        _say(f"{f'/{name} {command.takes}':<18}{command.what}")
    _say("Enter sends; Alt-Enter, or Esc and Enter, begins a new line. A paste of many lines is one message.")


def _exit(talk: Talk, given: str) -> None:
    talk.leaves = True


def _clear(talk: Talk, given: str) -> None:
    talk.now.clear()


def _rewind(talk: Talk, given: str) -> None:
    talk.now.rewind(_number("rewind", given, 1), talk.given)
    turns = len(talk.now.turns)
    _say(f"{turns} turn{'s' if turns != 1 else ''} left, {talk.now.session.position} tokens")


def _save(talk: Talk, given: str) -> None:
    path = Path(given).expanduser()
    talk.now.save(path)
    _say(f"saved: {path}, and what is computed beside it, {path.name}.kv")


def _load(talk: Talk, given: str) -> None:
    path = Path(given).expanduser()
    anew = talk.now.load(path, promised(talk.arguments), CapacityPolicy(headroom=256))
    turns = len(talk.now.turns)
    _say(f"{turns} turn{'s' if turns != 1 else ''}, {talk.now.session.position} tokens of them ready")
    if anew is not None:
        _say(f"the rest is computed with the next message: {anew}")


def _plan(talk: Talk, given: str) -> None:
    stderr.print(session_screen(talk.now.session), soft_wrap=True)


def _system(talk: Talk, given: str) -> None:
    if given:
        talk.now.system = given
    else:
        _say("no system message but the template's own" if talk.now.system is None else talk.now.system)


def _fork(talk: Talk, given: str) -> None:
    if given:
        at = _number("fork", given, 1)
        if not 1 <= at <= len(talk.all):
            raise ValueError(f"/fork: expected a conversation from 1 to {len(talk.all)}, found {at}")
    else:
        talk.all.append(talk.now.fork())
        at = len(talk.all)
    talk.at = at - 1
    turns = len(talk.now.turns)
    _say(f"conversation {at} of {len(talk.all)}, {turns} turn{'s' if turns != 1 else ''}; /fork N goes to another")


COMMANDS = {
    "help": Command("", "these lines", _help),
    "clear": Command("", "begins a new conversation", _clear),
    "rewind": Command("[N]", "takes the last turn back, or the last N, and gives their memory back", _rewind),
    "fork": Command("[N]", "goes on in a copy, on the same memory; with N, goes to the Nth conversation", _fork),
    "system": Command("[TEXT]", "sets the system message, or shows it", _system),
    "save": Command("FILE", "writes the conversation, and what is computed of it to FILE.kv", _save),
    "load": Command("FILE", "goes on with a saved conversation", _load),
    "plan": Command("", "the memory that is held, and how much more conversation fits", _plan),
    "exit": Command("", "ends, as /quit and Ctrl-D do; Ctrl-C stops an answer", _exit),
    "quit": Command("", "the same", _exit),
}
