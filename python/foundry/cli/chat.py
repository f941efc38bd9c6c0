"""``foundry chat``: a conversation, line by line. What goes wrong in one turn ends that turn and drops its message."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator

from foundry.cli import error_as_json, template_options
from foundry.cli.progress import stderr
from foundry.cli.standard_input import Lines
from foundry.errors import ConsistencyError, FoundryError
from foundry.generate import Completion, Piece
from foundry.sampling import SamplingParams
from foundry.session import Progress, Session

COMMANDS = {
    "/help": "these lines",
    "/clear": "begins a new conversation",
    "/exit": "ends, as /quit and Ctrl-D do; Ctrl-C stops an answer",
}
Answer = Callable[[Session, Callable[[Progress], Iterator[Piece]]], Completion]  # shows what is streamed


class Chat:
    """The messages so far and the session that holds them."""

    def __init__(self, arguments: argparse.Namespace, session: Session, params: SamplingParams, answer: Answer) -> None:
        self._arguments, self._session, self._params, self._answer = arguments, session, params, answer
        self._messages = self._beginning()
        self._given = template_options.read(arguments)

    def run(self) -> int:
        """Until the end of input or /exit. The exit status is 1 where a message went without a whole answer."""
        lines, status = Lines(), 0
        while True:
            try:
                line = lines.next()
                if line is None:
                    return status
                if is_command(line):
                    if line.strip() in ("/exit", "/quit"):
                        return status
                    self._command(line.strip())
                elif line.strip():
                    self._turn(line)
            except ConsistencyError:
                raise  # ours, and nothing to go on with
            except (FoundryError, ValueError) as error:
                status = 1
                self._tell(error)

    def _beginning(self) -> list[dict[str, str]]:
        system = self._arguments.system
        return [] if system is None else [{"role": "system", "content": system}]

    def _command(self, name: str) -> None:
        if name == "/help":
            for command, what in COMMANDS.items():
                stderr.print(f"{command:<8}{what}", markup=False)
        elif name == "/clear":
            self._messages = self._beginning()
            self._session.rewind(0)
        else:
            raise ValueError(f"{name}: expected one of {', '.join(COMMANDS)}; a space before it makes it a message")

    def _turn(self, line: str) -> None:
        messages = [*self._messages, {"role": "user", "content": line}]
        said: list[str] = []

        def pieces(progress: Progress) -> Iterator[Piece]:
            most = self._arguments.max_new_tokens
            for piece in self._session.stream_chat(
                messages, most, params=self._params, progress=progress, template_variables=self._given
            ):
                said.append(piece.text)
                yield piece

        try:
            answer = self._answer(self._session, pieces)
        except KeyboardInterrupt:  # the answer ends, the conversation goes on
            print(flush=True)
            self._messages = [*messages, {"role": "assistant", "content": "".join(said)}]
            return
        self._messages = [*messages, {"role": "assistant", "content": answer.text}]
        if answer.finish_reason == "context":
            most = self._session.model.arch.max_seq_len
            raise ValueError(f"the conversation has filled the model's context of {most} tokens; /clear begins anew")

    def _tell(self, error: Exception) -> None:
        if self._arguments.json:
            print(error_as_json(error), flush=True)
        else:
            stderr.print(f"foundry: {error}", markup=False, soft_wrap=True)


def is_command(line: str) -> bool:
    """One word behind a slash. A path has more slashes; a line that begins with a space is a message."""
    return re.fullmatch(r"/[A-Za-z]+\s*", line) is not None
