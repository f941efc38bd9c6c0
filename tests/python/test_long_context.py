"""Past 2048: SmolLM2 over thousands of real tokens. Bits, pages, bytes and resident memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from foundry import CapacityPolicy, CompiledModel, ContextOverflowError, Session

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.long]
PROMPT, NEW = 6000, 1000


def uneven(total: int) -> list[int]:
    """Chunks of 1 to 700 tokens, always the same."""
    random, chunks = np.random.default_rng(11), list[int]()
    while (left := total - sum(chunks)) > 0:
        chunks.append(min(left, int(random.integers(1, 700)) if random.random() < 0.7 else int(random.integers(1, 5))))
    return chunks


def held_at_most_a_page_and_a_slab_above_need(s: Session) -> None:
    g = s.globals
    ideal_pages = -(-s.position // g["page_tokens"])
    held_pages = s.kv_bytes // g["page_bytes"]
    assert ideal_pages <= held_pages <= ideal_pages + 1
    slab_bytes = s._core.observe().groups[0].slab_bytes
    slabs = s.model.memory()["kv"]
    assert slabs < s.kv_bytes + slab_bytes  # fewer free pages than a slab has


def run(model: CompiledModel, ids: list[int], chunks: list[int], s: Session, lean: bool) -> np.ndarray:
    """[rows, vocab]: the logits after each chunk, then of a thousand greedy tokens."""
    rows, at = [], 0
    for n in chunks:
        rows.append(s.forward(ids[at : at + n]))
        at += n
        if lean:
            held_at_most_a_page_and_a_slab_above_need(s)
    for _ in range(NEW):
        rows.append(s.forward([int(rows[-1].argmax())]))
        if lean:
            held_at_most_a_page_and_a_slab_above_need(s)
    assert s.position == PROMPT + NEW
    return np.stack(rows)


def test_a_session_for_16_tokens_is_fed_6000_and_generates_1000(smollm2_path: Path, real_text: str) -> None:
    model = CompiledModel.load(smollm2_path, threads=2, check_every_step=True)
    ids = model.tokenizer.encode(real_text[:40_000])[:PROMPT]
    assert len(ids) == PROMPT
    chunks = uneven(PROMPT)
    with model.session(16, 0) as s:
        assert (s.capacity, s.reserved_tokens) == (64, 16)
        grown = run(model, ids, chunks, s, lean=True)
        assert s.pages_added == s.kv_bytes // s.globals["page_bytes"] - 1
    single = CompiledModel.load(smollm2_path, threads=1)
    with single.session(8192, 0, CapacityPolicy(eager=True)) as s:
        assert s.capacity == 8192
        whole = run(single, ids, [PROMPT], s, lean=False)
    # The last row of the prompt and every generated one: other chunks, other pages, other threads, the same bits.
    assert np.array_equal(grown[len(chunks) - 1 :], whole)


def test_token_8193_overflows_and_the_session_goes_on(smollm2: CompiledModel, real_text: str) -> None:
    ids = smollm2.tokenizer.encode(real_text[:60_000])[:8192]
    with smollm2.session(16, 0) as s:
        s.forward(ids[:8190])
        out = s.generate(ids[8190:8191], 10, ignore_eos=True)
        assert out.finish_reason == "context"
        s.rewind(8190)
        s.forward(ids[8190:])
        assert s.position == s.capacity == 8192
        with pytest.raises(ContextOverflowError) as caught:
            s.forward([1])
        assert (caught.value.needed, caught.value.available) == (8193, 8192)
        assert s.position == 8192
        s.rewind(8000)
        again = s.forward(ids[8000:8100])
        with smollm2.session(8100, 0) as fresh:
            assert np.array_equal(again, fresh.forward(ids[:8100]))


RESIDENT = """
import re, sys
from pathlib import Path
from foundry import CompiledModel

def resident(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

model = CompiledModel.load(sys.argv[1])
model.tokenizer
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
loaded, private = resident("VmRSS"), resident("RssAnon")
with model.session(8000, 0) as s:
    s.forward([i % 40000 + 100 for i in range(8000)])
    peak = resident("VmHWM") - loaded
    figures = [peak, s.kv_bytes, model.memory()["kv"], model.memory()["workspace"]]
    s.rewind(0)
    print(*figures, resident("RssAnon") - private)  # without the file's own pages, which the system may drop
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_memory_at_8000_tokens(smollm2_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(smollm2_path)], check=True, stdout=subprocess.PIPE, text=True
    )
    grown, kv, slabs, workspace, rewound = map(int, done.stdout.split())
    above = grown - slabs - workspace
    print(
        f"peak resident above load: {grown >> 20} MiB; slabs {slabs >> 20}, workspace {workspace >> 20}, rest {above}"
    )
    assert kv <= slabs
    assert above <= 40 << 20
    assert rewound - workspace <= 8 << 20  # what the pages took is the system's again
