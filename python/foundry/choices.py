"""Several answers to one prompt: it is computed once, and the answers go on in forks, in steps that they share."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from foundry import generate as generation
from foundry.generate import Completion
from foundry.sampling import SamplingParams

if TYPE_CHECKING:
    from foundry.session import Progress, Session

MOST_CHOICES = 128


def choices(
    session: Session,
    prompt_ids: list[int],
    n: int,
    max_new_tokens: int | None,
    params: SamplingParams,
    progress: Progress | None = None,
) -> list[Completion]:
    """All or none: where one fails, the others end."""
    params = params.seeded()
    forks: list[Session] = []
    with ThreadPoolExecutor(max_workers=n) as pool, ExitStack() as stack:
        answers: list[Future[Completion]] = []

        def fork() -> None:
            last = int(session.token_ids[-1])
            forks.extend(stack.enter_context(session.fork()) for _ in range(n - 1))
            for i, one in enumerate(forks, 1):
                answers.append(pool.submit(_answer, one, last, max_new_tokens, params.of_choice(i)))

        try:
            pieces = generation.stream(session, prompt_ids, max_new_tokens, params, progress, fed=fork)
            first = generation.collect(pieces)
            return [first, *(_of_the_whole(first, answer.result()) for answer in answers)]
        except BaseException:
            for one in forks:
                one.cancel()
            raise


def _answer(fork: Session, last: int, max_new_tokens: int | None, params: SamplingParams) -> Completion:
    """The prompt's last row once more, for its logits: the same token at the same position has the same bits."""
    fork.rewind(fork.position - 1)
    return generation.collect(generation.stream(fork, [last], max_new_tokens, params))


def _of_the_whole(first: Completion, one: Completion) -> Completion:
    """With the usage of the prompt that it is an answer to."""
    usage = replace(first.usage, completion_tokens=one.usage.completion_tokens)
    return replace(one, usage=usage)
