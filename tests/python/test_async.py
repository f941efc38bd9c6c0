"""The twins for event loops: the same answers, a loop that goes on, and calls that end with their task."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest
from foundry import CompiledModel, Piece

MESSAGES = [{"role": "user", "content": "Hello there"}]


def test_the_twins_give_what_their_brothers_give(tiny: CompiledModel) -> None:
    with tiny.session() as s, tiny.session() as t:

        async def both() -> list[object]:
            streamed = [piece.text async for piece in t.astream("Hello", 12, ignore_eos=True)]
            t.rewind(0)
            chatted = [piece.text async for piece in t.astream_chat(MESSAGES, 6, ignore_eos=True)]
            t.rewind(0)
            return [
                "".join(streamed),
                "".join(chatted),
                (await t.agenerate("Hello again", 7, ignore_eos=True)).token_ids,
                (await t.achat(MESSAGES, 5, ignore_eos=True)).token_ids,
            ]

        found = asyncio.run(both())
        expected: list[object] = [s.generate("Hello", 12, ignore_eos=True).text]
        s.rewind(0)
        expected.append(s.chat(MESSAGES, 6, ignore_eos=True).text)
        s.rewind(0)
        expected.append(s.generate("Hello again", 7, ignore_eos=True).token_ids)
        expected.append(s.chat(MESSAGES, 5, ignore_eos=True).token_ids)
        assert found == expected


def test_the_loop_goes_on_while_sessions_answer(tiny: CompiledModel) -> None:
    sessions = [tiny.session() for _ in range(4)]
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    async def main() -> list[list[int]]:
        heart = asyncio.create_task(beat())
        answers = await asyncio.gather(
            *(s.agenerate([i + 1] * 30, 40, ignore_eos=True) for i, s in enumerate(sessions))
        )
        heart.cancel()
        return [answer.token_ids for answer in answers]

    found = asyncio.run(main())
    assert beats > 40
    for i, ids in enumerate(found):
        with tiny.session() as alone:
            assert alone.generate([i + 1] * 30, 40, ignore_eos=True).token_ids == ids


def test_a_cancelled_task_ends_its_call_and_changes_nothing(tiny: CompiledModel) -> None:
    ids = [int(i) for i in np.random.default_rng(1).integers(0, 256, 400)]
    with tiny.session() as s:
        s.forward([1, 2, 3])
        begun = threading.Event()

        def progress(done: int, total: int) -> None:
            begun.set()
            time.sleep(0.2)  # the cancel comes meanwhile

        async def main() -> None:
            seen: list[Piece] = []

            async def answer() -> None:
                async for piece in s.astream(ids, 5, progress=progress):
                    seen.append(piece)

            task = asyncio.create_task(answer())
            while not begun.is_set():
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not seen

        asyncio.run(main())
        assert s.position == 3
        assert s.forward([4]).shape == (tiny.arch.vocab_size,)


def test_a_task_that_is_cancelled_before_its_call_begins_makes_none(tiny: CompiledModel) -> None:
    with tiny.session() as s:

        async def main() -> None:
            task = asyncio.create_task(s.agenerate([1, 2, 3], 5))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert s.position == 0
