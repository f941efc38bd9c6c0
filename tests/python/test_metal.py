"""The Metal device: a Mac's GPU, or on Linux the software Metal, which ends the process where a rule is broken.

``FOUNDRY_METAL`` names it: "metal", or "metal:any" for a GPU that reports an older family than M1's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import foundry
import numpy as np
import pytest
import synthetic
from conftest import Tiny, needed_devices
from foundry import CancelledError, CompiledModel, ConsistencyError, MemoryLimitError, _core
from numpy.typing import NDArray
from test_embeddings import check_a_gpus_rows

METAL = os.environ.get("FOUNDRY_METAL", "metal")
pytestmark = pytest.mark.skipif(
    METAL not in [*_core.device_names(), *needed_devices()], reason="no Metal device in this build"
)

SHAPES = [
    {},
    {"type": "q4_0", "hidden": 96, "heads": 6, "kv_heads": 2, "tied": False},
    {"arch": "qwen2", "type": "f16", "heads": 4, "kv_heads": 4, "head_dim": 64, "hidden": 128},
    {"arch": "gemma3", "type": "bf16", "layers": 3, "head_dim": 32, "window": 24},
    {"type": "q4_k", "hidden": 256, "ffn": 256, "heads": 4, "kv_heads": 1, "head_dim": 128},  # tiles of 8 rows
]


def logits(
    model: CompiledModel, tokens: NDArray[np.int32], chunk: int, prefilled: int | None = None
) -> NDArray[np.float32]:
    """Of every position: half of them prefilled, the others a token at a time, in a session that begins with a page."""
    half = len(tokens) // 2 if prefilled is None else prefilled
    rows = []
    with model.session(prompt_tokens=1, max_new_tokens=1) as session:
        began = session.capacity
        for at in range(0, half, chunk):
            rows.append(session.forward(tokens[at : min(at + chunk, half)], all_logits=True))
        rows += [session.forward(tokens[i : i + 1])[None] for i in range(half, len(tokens))]
        assert session.position == len(tokens) and session.capacity > began
    return np.concatenate(rows)


@pytest.mark.parametrize(
    "fields", SHAPES, ids=lambda fields: fields.get("arch", "llama") + "-" + fields.get("type", "q8_0")
)
def test_a_tiny_model_in_full(tiny_path: Tiny, fields: dict[str, object]) -> None:
    path = tiny_path(max_seq_len=256, **fields)
    tokens = np.random.default_rng(3).integers(0, synthetic.VOCAB, 256).astype(np.int32)
    found, expected = (
        logits(CompiledModel.load(path, device=device, page_tokens=8, check_every_step=True), tokens, chunk=48)
        for device in (METAL, "reference")
    )
    assert np.mean(found.argmax(1) == expected.argmax(1)) >= 0.98
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02 * float(np.abs(expected).max()))


@pytest.mark.slow
@pytest.mark.model
def test_smollm2_teacher_forced(smollm2_path: Path, real_text: str) -> None:
    models = [CompiledModel.load(smollm2_path, device=device, page_tokens=16) for device in (METAL, "reference")]
    tokens = np.asarray(models[0].tokenizer.encode(real_text[:2000])[:40], dtype=np.int32)
    found, expected = (logits(model, tokens, chunk=32, prefilled=32) for model in models)
    same = np.mean(found.argmax(1) == expected.argmax(1))
    print(f"SmolLM2 on {models[0].device}: the same most likely token in {same:.1%} of {len(tokens)} positions")
    assert same >= 0.98


# What only the software Metal can show: in a process of its own, which says at its end what it did.
PROGRAM = """
import sys
import numpy as np
from foundry import CompiledModel
model = CompiledModel.load(sys.argv[1], device="metal", page_tokens=8, chunk_tokens=32)
with model.session(prompt_tokens=8) as session:
    session.forward(np.arange(100, dtype=np.int32), all_logits=True)
    for token in range(20):
        row = session.forward([token])
    print([piece.token_id for piece in session.stream([1], max_new_tokens=20, ignore_eos=True)])
print(model.device, float(np.abs(row).sum()), int(row.argmax()))
"""
needs_software = pytest.mark.skipif(sys.platform == "darwin", reason="this is Apple's Metal")


def run(path: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "FOUNDRY_METAL_REPORT": "1", **settings}
    return subprocess.run([sys.executable, "-c", PROGRAM, str(path)], env=env, capture_output=True, text=True)


def answer(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    report = re.search(r"(\d+) passes, (\d+) launches of (\d+) kernels, (\d+) live objects", done.stderr)
    assert report is not None, done.stderr
    assert int(report[2]) > 100 and int(report[4]) == 0, report[0]
    return done.stdout


@needs_software
def test_bits_do_not_depend_on_the_order_of_what_may_run_at_once(tiny_path: Tiny) -> None:
    path = tiny_path()
    first = answer(run(path))
    for schedule in "12":
        assert answer(run(path, FOUNDRY_METAL_SCHEDULE=schedule)) == first
    assert answer(run(path, FOUNDRY_METAL_MACOS="14")) == first  # useResources in place of a residency set


@needs_software
def test_a_missing_barrier_fence_or_resident_buffer_is_found(tiny_path: Tiny) -> None:
    path = tiny_path()
    right = answer(run(path))
    assert "not resident" in run(path, FOUNDRY_METAL_FAULT="residency").stderr
    without_fences = run(path, FOUNDRY_METAL_FAULT="fences")
    assert without_fences.returncode != 0 or without_fences.stdout != right
    without_barriers = run(path, FOUNDRY_METAL_FAULT="barriers", FOUNDRY_METAL_SCHEDULE="1")
    assert without_barriers.returncode != 0 or without_barriers.stdout != right


@needs_software
@pytest.mark.parametrize(("fault", "error"), [("memory", MemoryLimitError), ("page fault", ConsistencyError)])
def test_a_fault_of_the_gpu_is_a_typed_error_and_the_session_goes_on(
    tiny_path: Tiny, tmp_path: Path, fault: str, error: type[Exception]
) -> None:
    program = f"""
import sys
import foundry, numpy as np
from foundry import CompiledModel
model = CompiledModel.load(sys.argv[1], device="metal", page_tokens=8)
with model.session(prompt_tokens=8) as session:
    try:
        session.forward([1, 2, 3])
    except foundry.{error.__name__} as error:
        print(type(error).__name__, session.position)
    again = session.forward([1, 2, 3])
with model.session(prompt_tokens=8) as session:
    print(np.array_equal(again, session.forward([1, 2, 3])))
"""
    env = {**os.environ, "FOUNDRY_METAL_FAULT": fault}
    done = subprocess.run([sys.executable, "-c", program, str(tiny_path())], env=env, capture_output=True, text=True)
    assert done.stdout == f"{error.__name__} 0\nTrue\n", done.stderr


@needs_software
def test_a_fault_on_a_new_queue_too_says_to_restart(tiny_path: Tiny) -> None:
    program = """
import sys
from foundry import CompiledModel
model = CompiledModel.load(sys.argv[1], device="metal", page_tokens=8)
with model.session(prompt_tokens=8) as session:
    for _ in range(2):
        try:
            session.forward([1, 2, 3])
        except Exception as error:
            print(type(error).__name__, "restart the process" in str(error), session.position)
"""
    env = {**os.environ, "FOUNDRY_METAL_FAULT": "dead"}
    done = subprocess.run([sys.executable, "-c", program, str(tiny_path())], env=env, capture_output=True, text=True)
    assert done.stdout == "ConsistencyError False 0\nOSError True 0\n", done.stderr


@needs_software
def test_a_saved_history_is_of_one_build_of_the_system(tiny_path: Tiny, tmp_path: Path) -> None:
    program = """
import sys
from foundry import CompiledModel, ModelFormatError
path, file, do = sys.argv[1:]
model = CompiledModel.load(path, device="metal", page_tokens=8)
if do == "save":
    with model.session(prompt_tokens=8) as session:
        session.forward([1, 2, 3])
        session.save(file)
else:
    try:
        with model.restore(file) as session:
            print(session.position)
    except ModelFormatError as error:
        print(error)
"""

    def run_on(build: str, do: str) -> str:
        command = [sys.executable, "-c", program, str(tiny_path()), str(tmp_path / "chat.kv"), do]
        env = {**os.environ, "FOUNDRY_METAL_BUILD": build}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    run_on("24A1", "save")
    assert run_on("24A1", "restore") == "3\n"
    refused = run_on("24B2", "restore")
    assert "system 24A1" in refused and "system 24B2" in refused


def test_pipelines_are_kept_between_runs_and_a_damaged_archive_is_made_anew(
    tiny_path: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foundry.model, "kernels_dir", lambda: tmp_path / "kernels")

    def row() -> NDArray[np.float32]:
        with CompiledModel.load(tiny_path(), device=METAL).session(prompt_tokens=8) as session:
            return session.forward([1, 2, 3])

    first = row()
    (archive,) = (tmp_path / "kernels").iterdir()
    written = archive.stat().st_mtime_ns
    assert np.array_equal(row(), first) and archive.stat().st_mtime_ns == written  # nothing to add
    archive.write_bytes(b"damaged")
    assert np.array_equal(row(), first)
    assert archive.stat().st_size > 100


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0}, {"temperature": 0.9, "top_p": 0.9, "seed": 5}], ids=["greedy", "drawn"]
)
@pytest.mark.parametrize("mode", [METAL, f"{METAL}:strict"])
def test_steps_ahead_change_no_token(tiny_path: Tiny, sampling: dict[str, float], mode: str) -> None:
    """Tokens that the device feeds itself, whatever comes between: others' steps, forks, rewinds, an end on the way."""
    cpu, metal = (
        CompiledModel.load(tiny_path(), device=device, page_tokens=8, check_every_step=True) for device in ("cpu", mode)
    )
    prompt = list(range(20))

    def generated(model: CompiledModel, n: int) -> list[int]:
        with model.session(prompt_tokens=8) as session:
            return list(session.generate(prompt, max_new_tokens=n, ignore_eos=True, **sampling).token_ids)

    expected = generated(cpu, 40)
    assert generated(metal, 40) == expected
    with metal.session(prompt_tokens=8) as session, metal.session(prompt_tokens=8) as other:
        stream = session.stream(prompt, max_new_tokens=40, ignore_eos=True, **sampling)
        others = other.stream(prompt, max_new_tokens=30, ignore_eos=True, **sampling)
        found, beside = [], []
        for i, piece in enumerate(stream):
            found.append(piece.token_id)
            if i < 30:
                beside.append(next(others).token_id)
            if i == 10:
                with session.fork() as fork:
                    assert fork.position == session.position
                    fork.forward([1, 2, 3])
            if i == 12:
                other.cancel()
                with pytest.raises(CancelledError):
                    next(others)
                others = iter(())
                break
        assert (found, beside) == (expected[:13], expected[:13])
        session.rewind(len(prompt))  # while steps are under way
        row, fresh = session.forward([expected[0]]), fresh_row(metal, [*prompt, expected[0]])
        # A chunk beside decodes has as many rows as there is time for: without `strict`, bits depend on that.
        np.testing.assert_allclose(row, fresh, rtol=0, atol=0 if mode.endswith(":strict") else 2e-3)
    with metal.session(prompt_tokens=8) as session:
        next(iter(session.stream(prompt, max_new_tokens=40, **sampling)))  # closed while steps are under way
    assert metal.memory()["kv"] == 0


def fresh_row(model: CompiledModel, tokens: list[int]) -> NDArray[np.float32]:
    with model.session(prompt_tokens=8) as session:
        session.forward(tokens[:-1])
        return session.forward(tokens[-1:])


def test_the_strict_mode_has_bits_of_its_own_whatever_the_chunks(tiny_path: Tiny) -> None:
    path, tokens = tiny_path(head_dim=64, heads=2, hidden=128), np.arange(100, dtype=np.int32)

    def rows(chunk: int) -> NDArray[np.float32]:
        model = CompiledModel.load(path, device=f"{METAL}:strict", chunk_tokens=chunk)
        with model.session(prompt_tokens=8) as session:
            return session.forward(tokens, all_logits=True)

    first = rows(100)
    assert all(np.array_equal(rows(chunk), first) for chunk in (1, 33))


def test_embeddings(tiny_path: Tiny) -> None:
    check_a_gpus_rows(tiny_path(), METAL)


def test_more_than_the_gpu_has_is_refused(tiny_path: Tiny) -> None:
    with pytest.raises(MemoryLimitError):
        CompiledModel.load(tiny_path(), device=METAL, memory_limit=1000)
