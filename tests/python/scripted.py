"""Sessions that answer what a test says, over a tiny model and a vocabulary of the test's own."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from foundry import CompiledModel, Session
from foundry.token_ids import TokenIds
from foundry.tokenizer import Tokenizer


class ScriptedSession(Session):
    """Answers are ``script``; all else, pages and history, is real. The last token is given before it is fed."""

    def __init__(self, model: CompiledModel, script: Sequence[int]) -> None:
        super().__init__(model, model._core.session(0, 0))
        self.script = list(script)
        self._pending: list[int] = []
        self._ends: set[int] = set()

    def begin(
        self, prompt_ids: TokenIds, max_new_tokens: int, params: Any, stop_ids: list[int], *_: Any, **__: Any
    ) -> Any:
        self.forward([*self._pending, *prompt_ids])
        self._pending, self._ends = [], set(stop_ids)
        return self  # it gives its tokens itself

    def next(self, mask: None = None) -> tuple[Any, Any]:
        token, reason = self._next()
        return SimpleNamespace(token_id=token), reason

    def _next(self) -> tuple[int, Any]:
        if not self.script:
            return -1, "length"
        token = self.script.pop(0)
        if self._pending:
            self.forward(self._pending)
            self._pending = []
        if token in self._ends:
            return -1, "stop"
        self._pending = [token]
        return token, None

    def rewind(self, position: int) -> None:
        self._pending = []
        super().rewind(position)

    def hold(self, position: int) -> None:
        pass  # forward() would let it go


def with_vocabulary(model: CompiledModel, metadata: dict[str, Any]) -> CompiledModel:
    tokenizer = Tokenizer(metadata)
    assert tokenizer.vocab_size <= model.arch.vocab_size
    model.__dict__["tokenizer"] = tokenizer
    return model
