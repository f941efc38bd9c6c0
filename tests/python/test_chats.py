"""A chat's prompt replaces what the session holds: whole, or not at all."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from conftest import Tiny, room_of
from foundry import CancelledError, CompiledModel, MemoryLimitError, Session

FIRST = [{"role": "user", "content": "The first of the questions"}]
OTHER = [{"role": "user", "content": "Something else " * 3}]


def state(s: Session) -> tuple[list[int], int, int]:
    return s.token_ids.tolist(), s.rewindable_to, s.reserved_tokens


def test_a_stream_that_nobody_iterates_changes_nothing(tiny: CompiledModel) -> None:
    with tiny.session() as s:
        s.chat(FIRST, 5, ignore_eos=True)
        before = state(s)
        s.stream_chat(OTHER, 5)
        assert state(s) == before


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("fault", ["no memory", "cancelled", "a callback that throws"])
def test_a_chat_that_fails_leaves_the_session_as_it_was(tiny_path: Tiny, fault: str, windows: bool) -> None:
    shape = {"arch": "gemma3", "layers": 3, "window": 32} if windows else {}
    path = tiny_path(max_seq_len=2048, **shape)
    options = {"threads": 1, "page_tokens": 8, "chunk_tokens": 16, "check_every_step": True}
    probe = CompiledModel.load(path, **options)
    room = room_of(probe) + probe.plan(120, 0).kv + 3 * probe.plan(2048, 0).page_tables
    limit = room if fault == "no memory" else None
    model = CompiledModel.load(path, memory_limit=limit, **options)
    with model.session(0, 0) as s, model.session(0, 0) as again:
        answer = s.chat(FIRST, 6, ignore_eos=True)
        before = state(s)
        if fault == "no memory":
            with pytest.raises(MemoryLimitError):
                s.chat([{"role": "user", "content": "x" * 1500}], 5)
        elif fault == "cancelled":
            with pytest.raises(CancelledError):
                s.chat(OTHER, 5, progress=lambda done, total: s.cancel() if done else None)
        else:

            def throws(done: int, total: int) -> None:
                if done:
                    raise LookupError("the caller's own")

            with pytest.raises(LookupError):
                s.chat(OTHER, 5, progress=throws)
        assert state(s) == before
        s.check_consistency()
        # The answer's last token, which was given and not fed, is still there to be fed.
        again.generate(s.model.tokenizer.encode_chat(FIRST), 6, ignore_eos=True)
        assert np.array_equal(again.token_ids, s.token_ids)
        more = s.generate([65, 66], 4, ignore_eos=True).token_ids
        assert more == again.generate([65, 66], 4, ignore_eos=True).token_ids
        assert len(answer.token_ids) == 6


def test_a_chat_goes_on_from_what_the_session_holds(tiny: CompiledModel) -> None:
    with tiny.session() as s, tiny.session() as fresh:
        answer = s.chat(FIRST, 5, ignore_eos=True)
        then = [*FIRST, {"role": "assistant", "content": answer.text}, *OTHER]
        found, expected = s.chat(then, 5, ignore_eos=True), fresh.chat(then, 5, ignore_eos=True)
        assert found.token_ids == expected.token_ids
        assert found.usage.prompt_tokens == expected.usage.prompt_tokens
        assert found.usage.cached_tokens > 0 and expected.usage.cached_tokens == 0


def test_chats_from_several_threads_give_what_each_gives_alone(tiny: CompiledModel) -> None:
    messages = [[{"role": "user", "content": f"Question {i} " * (i + 1)}] for i in range(4)]
    expected = []
    for one in messages:
        with tiny.session() as alone:
            expected.append(alone.chat(one, 20, ignore_eos=True).token_ids)
    found: dict[int, list[int]] = {}

    def run(i: int) -> None:
        with tiny.session() as s:
            found[i] = s.chat(messages[i], 20, ignore_eos=True).token_ids

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(4)] == expected
