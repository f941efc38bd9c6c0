"""The turns of a chat: a line is a message or a command, and an error ends one of them alone."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from foundry.cli import error_as_json
from foundry.cli.answers import show
from foundry.cli.chat import commands
from foundry.cli.chat.conversation import Conversation
from foundry.cli.progress import stderr
from foundry.errors import ConsistencyError, FoundryError
from foundry.generate import Piece
from foundry.sampling import SamplingParams
from foundry.session import Progress


class Source(Protocol):
    """Where messages and commands come from."""

    interactive: bool  # a person, whose Ctrl-C stops an answer and not the chat

    def next(self) -> str | None:
        """The next one, None at the end. ValueError for what is no text; the call after it goes on behind that."""


class Talk:
    """Attributes:
    all, at: the conversations, and which of them is talked in.
    given: the chat template's variables.
    leaves: no more lines are read.
    """

    def __init__(
        self, arguments: argparse.Namespace, first: Conversation, params: SamplingParams, given: Mapping[str, Any]
    ) -> None:
        self.arguments, self._params, self.given = arguments, params, given
        self.all, self.at = [first], 0
        self.leaves = False

    @property
    def now(self) -> Conversation:
        """The conversation that goes on."""
        return self.all[self.at]

    def close(self) -> None:
        for conversation in self.all:
            conversation.session.close()

    def run(self, source: Source) -> int:
        """Until the end of input or /exit. The exit status is 1 where a line of a pipe went without what it asked for;
        a person has seen it.

        Raises:
            KeyboardInterrupt: through pipes, where no person goes on.
        """
        status = 0
        while not self.leaves:
            try:
                line = source.next()
                if line is None:
                    break
                if (command := commands.parse(line)) is not None:
                    commands.run(self, *command)
                elif line.strip():
                    self._turn(line, source.interactive)
            except KeyboardInterrupt:  # while a command ran, or before an answer's first token: nothing has changed
                if not source.interactive:
                    raise
                stderr.print("stopped", style="dim")
            except ConsistencyError:
                raise  # ours, and nothing to go on with
            except (FoundryError, ValueError, OSError) as error:
                if isinstance(error, BrokenPipeError):
                    raise  # nobody reads the answers
                status = 0 if source.interactive else 1
                self._tell(error)
        return status

    def _turn(self, question: str, interactive: bool) -> None:
        conversation = self.now
        said: list[str] = []

        def pieces(progress: Progress) -> Iterator[Piece]:
            most = self.arguments.max_new_tokens
            for piece in conversation.session.stream_chat(
                conversation.messages(question),
                most,
                params=self._params,
                progress=progress,
                template_variables=self.given,
            ):
                said.append(piece.text)
                yield piece

        try:
            answer = show(self.arguments, conversation.session, pieces)
        except KeyboardInterrupt:
            if not interactive or not any(said):
                raise
            if not (self.arguments.json or self.arguments.json_lines):
                print(flush=True)
            stderr.print("stopped; what was said so far stays in the conversation", style="dim")
            conversation.answered(question, "".join(said))
            return
        conversation.answered(question, answer.text)
        if answer.finish_reason == "context":
            most = conversation.session.model.arch.max_seq_len
            raise ValueError(
                f"the conversation has filled the model's context of {most} tokens; /clear begins anew, /rewind goes"
                " back a turn"
            )

    def _tell(self, error: Exception) -> None:
        if self.arguments.json or self.arguments.json_lines:
            print(error_as_json(error), flush=True)
        else:
            stderr.print(f"foundry: {error}", markup=False, soft_wrap=True)
