"""The CUDA device: a GPU of NVIDIA's, or a software driver that runs nothing before it is waited for.

    LD_LIBRARY_PATH=build/cuda/software_cuda python -m pytest -m "" tests/python/test_cuda.py

Tests that only the software driver can show look at FOUNDRY_SOFTWARE_CUDA, which is then set, if to nothing; each is a
process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import foundry
import numpy as np
import pytest
import synthetic
from conftest import Tiny, needed_devices
from foundry import CompiledModel, _core
from foundry.cli.answers import closing_line
from foundry.hardware import compiler_for
from numpy.typing import NDArray
from test_embeddings import check_a_gpus_rows

needs_cuda = pytest.mark.skipif("cuda" not in [*_core.device_names(), *needed_devices()], reason="no NVIDIA GPU here")
needs_software = pytest.mark.skipif("FOUNDRY_SOFTWARE_CUDA" not in os.environ, reason="no software driver here")

SHAPES = [
    {},
    {"type": "q4_0", "hidden": 96, "heads": 6, "kv_heads": 2, "tied": False},
    {"arch": "qwen2", "type": "f16", "heads": 4, "kv_heads": 4, "head_dim": 64, "hidden": 128},
    {"arch": "gemma3", "type": "bf16", "layers": 3, "head_dim": 32, "window": 24},
    {"type": "q4_k", "hidden": 256, "ffn": 256, "heads": 4, "kv_heads": 1, "head_dim": 128},
]


def logits(model: CompiledModel, tokens: NDArray[np.int32], chunk: int) -> NDArray[np.float32]:
    """Of every position: half of them prefilled, the others a token at a time, in a session that begins with a page."""
    half = len(tokens) // 2
    rows = []
    with model.session(prompt_tokens=1, max_new_tokens=1) as session:
        for at in range(0, half, chunk):
            rows.append(session.forward(tokens[at : min(at + chunk, half)], all_logits=True))
        rows += [session.forward(tokens[i : i + 1])[None] for i in range(half, len(tokens))]
        assert session.position == len(tokens)
    return np.concatenate(rows)


@needs_cuda
@pytest.mark.parametrize(
    "fields", SHAPES, ids=lambda fields: fields.get("arch", "llama") + "-" + fields.get("type", "q8_0")
)
def test_a_tiny_model_in_full(tiny_path: Tiny, fields: dict[str, object]) -> None:
    path = tiny_path(max_seq_len=256, **fields)
    tokens = np.random.default_rng(3).integers(0, synthetic.VOCAB, 256).astype(np.int32)
    found, expected = (
        logits(CompiledModel.load(path, device=device, page_tokens=8, check_every_step=True), tokens, chunk=48)
        for device in ("cuda", "reference")
    )
    assert np.mean(found.argmax(1) == expected.argmax(1)) >= 0.98
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02 * float(np.abs(expected).max()))


@needs_cuda
@pytest.mark.slow
@pytest.mark.model
def test_smollm2_teacher_forced(smollm2_path: Path, real_text: str) -> None:
    n = 16 if "FOUNDRY_SOFTWARE_CUDA" in os.environ else 1000
    models = [CompiledModel.load(smollm2_path, device=device) for device in ("cuda", "reference")]
    tokens = np.asarray(models[0].tokenizer.encode(real_text[: 10 * n])[:n], dtype=np.int32)
    found, expected = (logits(model, tokens, chunk=512) for model in models)
    same = np.mean(found.argmax(1) == expected.argmax(1))
    print(f"SmolLM2 on {models[0].device}: the same most likely token in {same:.1%} of {len(tokens)} positions")
    assert same >= 0.98 if n < 1000 else same >= 0.995


@needs_cuda
@pytest.mark.parametrize(
    "sampling", [{"temperature": 0}, {"temperature": 0.9, "top_p": 0.9, "seed": 5}], ids=["greedy", "drawn"]
)
def test_tokens_drawn_ahead_on_the_card_are_the_processors(tiny_path: Tiny, sampling: dict[str, float]) -> None:
    """Two generations at once, with a fork and a rewind between them."""
    cpu, cuda = (
        CompiledModel.load(tiny_path(), device=device, page_tokens=8, check_every_step=True)
        for device in ("cpu", "cuda:strict")
    )
    prompt = list(range(20))
    with cpu.session(prompt_tokens=8) as session:
        expected = list(session.generate(prompt, max_new_tokens=30, ignore_eos=True, **sampling).token_ids)
    with cuda.session(prompt_tokens=8) as session, cuda.session(prompt_tokens=8) as other:
        stream, beside = (
            one.stream(prompt, max_new_tokens=30, ignore_eos=True, **sampling) for one in (session, other)
        )
        found = [(next(stream).token_id, next(beside).token_id) for _ in range(20)]
        assert found == [(token, token) for token in expected[:20]]
        with session.fork() as fork:
            assert fork.position == session.position
            fork.forward([1, 2, 3])
        assert [piece.token_id for piece in stream if piece.token_id is not None] == expected[20:]
        session.rewind(len(prompt))
        row = session.forward([expected[0]])
    with cuda.session(prompt_tokens=8) as fresh:
        fresh.forward(prompt)
        assert np.array_equal(row, fresh.forward([expected[0]]))
    assert cuda.memory()["kv"] == 0


@needs_cuda
def test_the_strict_mode_has_bits_of_its_own_whatever_the_chunks(tiny_path: Tiny) -> None:
    path, tokens = tiny_path(head_dim=64, heads=2, hidden=128), np.arange(100, dtype=np.int32)

    def rows(chunk: int) -> NDArray[np.float32]:
        model = CompiledModel.load(path, device="cuda:strict", chunk_tokens=chunk)
        with model.session(prompt_tokens=8) as session:
            return session.forward(tokens, all_logits=True)

    first = rows(100)
    assert all(np.array_equal(rows(chunk), first) for chunk in (1, 33))


@needs_cuda
def test_embeddings(tiny_path: Tiny) -> None:
    check_a_gpus_rows(tiny_path(), "cuda")


@needs_cuda
def test_a_history_is_saved_and_restored_through_the_hosts_memory(tiny_path: Tiny, tmp_path: Path) -> None:
    model = CompiledModel.load(tiny_path(), device="cuda", page_tokens=8)
    with model.session(prompt_tokens=8) as session:
        session.forward(list(range(50)))
        session.save(tmp_path / "chat.kv")
        expected = session.forward([7])
    with model.restore(tmp_path / "chat.kv") as session:
        assert session.position == 50 and np.array_equal(session.forward([7]), expected)


@needs_cuda
def test_the_limit_is_what_the_card_has_free_whatever_the_host_can_spare(
    tiny_path: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gpu, *_) = _core.gpus()
    monkeypatch.setattr(foundry.model, "default_memory_limit", lambda: 1)
    model = CompiledModel.load(tiny_path(), device="cuda")
    assert gpu.memory_bytes // 4 <= model.memory()["limit"] < gpu.memory_bytes
    assert model.device == f"cuda:{gpu.model}"
    found = {device.name: device for device in foundry.devices()}
    assert found["cuda"].memory_bytes == gpu.memory_bytes and found["cuda:strict"].model == gpu.model
    assert found["cpu"] == ("cpu", "", 0)


@needs_cuda
def test_auto_is_the_gpu_that_can_run_the_model_or_else_the_processor(tiny_path: Tiny) -> None:
    fits = CompiledModel.load(tiny_path(), device="auto")
    assert fits.device.startswith("cuda:")
    with fits.session(prompt_tokens=8) as session:
        line = closing_line(session.generate([1, 2], max_new_tokens=2), session)
    assert line.endswith(f"| device {fits.device}")
    unread = CompiledModel.load(tiny_path(**synthetic.of_type("iq3_s")), device="auto")  # which GPUs don't read
    assert unread.device.startswith("cpu:")


# A process of its own, so that the driver is found anew. What goes wrong is said by FOUNDRY_SOFTWARE_CUDA.
PROGRAM = """
import sys
import numpy as np
from pathlib import Path
import foundry
foundry.model.kernels_dir = lambda: Path(sys.argv[2])
def load(device="cuda", **options):
    return foundry.CompiledModel.load(sys.argv[1], device=device, page_tokens=8, **options)
def told(call):
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""


def run(path: Path, cache: Path, program: str, machine: str = "", **env: str) -> str:
    environment = {**os.environ, "FOUNDRY_SOFTWARE_CUDA": machine, **env}
    command = [sys.executable, "-c", PROGRAM + program, str(path), str(cache)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_driver_the_error_says_what_is_missing(tiny_path: Tiny) -> None:
    if _core.gpus():
        pytest.skip("there is a driver")
    if sys.platform != "linux":
        pytest.skip("a build without cuda names the devices there are")
    with pytest.raises(ValueError, match=r"expected an NVIDIA GPU and its driver for cuda, found no driver \(libcuda"):
        CompiledModel.load(tiny_path(), device="cuda")
    assert CompiledModel.load(tiny_path(), device="auto").device.startswith("cpu:")


def test_the_compiler_is_looked_for_where_the_device_may_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(name: str) -> SimpleNamespace:
        asked.append(name)
        if len(asked) > 2:
            raise RuntimeError("not found")
        return SimpleNamespace(abs_path="/somewhere/libnvrtc.so.13")

    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", SimpleNamespace(load_nvidia_dynamic_lib=load))
    assert compiler_for("cpu") == compiler_for("reference") == "" and asked == []
    assert compiler_for("cuda") == compiler_for("cuda:1:strict") == "/somewhere/libnvrtc.so.13"
    assert compiler_for("cuda") == "" and asked == ["nvrtc"] * 3
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)  # not installed
    assert compiler_for("cuda") == ""


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cudas", "cuda:strict:1"])
def test_what_only_looks_like_a_gpu_is_told_with_the_names_there_are(tiny_path: Tiny, name: str) -> None:
    with pytest.raises(ValueError, match=r"expected one of auto, reference, cpu"):
        CompiledModel.load(tiny_path(), device=name)


@needs_software
@pytest.mark.parametrize(
    ("machine", "said", "auto"),
    [
        ("gpus=0", "ValueError: device: expected an NVIDIA GPU for cuda, found a driver and no GPU", "cpu:"),
        ("gpus=1", "ValueError: device: expected cuda:0, found cuda:1", "cuda:"),
        (
            "gpus=2 capability=75",
            "of compute capability 8.0 (Ampere, 2020) or later for cuda, found Software GPU of 7.5",
            "cpu:",
        ),
        (
            "gpus=2 version=12080",
            "expected NVRTC 12 or older for this driver of CUDA 12, found 13.0: pip install",
            "cpu:",
        ),
        (
            "gpus=2 capability=210",
            "ValueError: device: expected an NVRTC that knows Software GPU of compute capability 21.0",
            "cpu:",
        ),
        ("gpus=2", "cuda:Software GPU", "cuda:"),
    ],
)
def test_a_gpu_that_is_asked_for_is_had_or_told_why_not_and_auto_goes_on(
    tiny_path: Tiny, tmp_path: Path, machine: str, said: str, auto: str
) -> None:
    code = 'print(told(lambda: load("cuda:1").device)); print(load("auto").device)'
    found = run(tiny_path(), tmp_path, code, machine)
    assert said in found
    assert found.splitlines()[-1].startswith(auto)


@needs_software
def test_without_a_compiler_the_error_says_what_to_type_and_auto_is_the_processor(
    tiny_path: Tiny, tmp_path: Path
) -> None:
    without = 'foundry.model.compiler_for = lambda device: "/nowhere/libnvrtc.so.13"\n'
    found = run(tiny_path(), tmp_path, without + 'print(told(load), load("auto").device)')
    assert "ValueError: device: expected NVIDIA's compiler NVRTC for cuda, found none" in found
    assert "pip install 'foundry-llm[cuda]'" in found and found.split()[-1].startswith("cpu:")


@needs_software
def test_a_lost_context_is_told_and_then_refused_and_the_processor_goes_on(tiny_path: Tiny, tmp_path: Path) -> None:
    program = """
model = load()
with model.session(prompt_tokens=8) as session:
    print(told(lambda: session.forward([1, 2, 3])), session.position)
    print(told(lambda: session.forward([1, 2, 3])), session.position)
print(told(load))
with load("cpu").session(prompt_tokens=8) as session:
    session.forward([1, 2, 3])
    print(session.position)
"""
    lines = run(tiny_path(), tmp_path, program, "illegal_at=10").splitlines()
    lost = "ConsistencyError: cuda: the GPU context is lost: CUDA_ERROR_ILLEGAL_ADDRESS on Software GPU"
    lost += "; restart the process"
    assert lines == [f"{lost} 0", f"{lost} 0", lost, "3"]


@needs_software
def test_steps_ahead_of_a_lost_context_are_told_and_the_process_ends_well(tiny_path: Tiny, tmp_path: Path) -> None:
    program = """
model = load()
session = model.session(prompt_tokens=8)
pieces = []
def generate():
    for piece in session.stream([1, 2, 3], max_new_tokens=200, ignore_eos=True):
        pieces.append(piece.token_id)
print(told(generate), len(pieces) > 2)
session.close()
"""
    said = run(tiny_path(), tmp_path, program, "illegal_at=400")
    assert "the GPU context is lost" in said and said.endswith("True\n")


@needs_software
def test_a_card_without_memory_is_a_limit_and_all_goes_on(tiny_path: Tiny, tmp_path: Path) -> None:
    program = """
print(told(load))
model = load()
with model.session(prompt_tokens=8) as session:
    session.forward([1, 2, 3])
    print(session.position)
"""
    first, second = run(tiny_path(), tmp_path, program, "no_memory_at=5").splitlines()
    assert first.startswith("MemoryLimitError: cuda: memory of the card: needed ") and "available" in first
    assert second == "3"
    small = run(tiny_path(), tmp_path, "print(told(load))", "memory=100000")
    assert small.startswith("MemoryLimitError: the model's weights and workspace: needed ")


@needs_software
def test_kernels_are_compiled_once_kept_and_made_anew_where_damaged(tiny_path: Tiny, tmp_path: Path) -> None:
    log, cache = tmp_path / "log", tmp_path / "kernels"
    program = """
with load().session(prompt_tokens=8) as session:
    print(float(session.forward([1, 2, 3]).sum()))
"""

    def compiled(**env: str) -> list[str]:
        log.write_text("")
        results.append(run(tiny_path(), cache, program, FOUNDRY_SOFTWARE_NVRTC_LOG=str(log), **env))
        return sorted(log.read_text().split("\n")[:-1])

    results: list[str] = []
    first = compiled()
    assert len(first) == len(set(first)) >= 8 and any("linear_q8_0" in line for line in first)
    (folder,) = cache.iterdir()
    assert folder.name.startswith("cuda-sm-90a-Software-GPU-13000-nvrtc13.0-")
    assert len(list(folder.iterdir())) == len(first)
    assert compiled() == []
    files = sorted(folder.iterdir())
    files[0].write_bytes(files[0].read_bytes()[:-1])
    files[1].write_bytes(files[1].read_bytes()[:30] + b"x" + files[1].read_bytes()[31:])
    files[2].write_bytes(b"")
    assert len(compiled()) == 3 and compiled() == []
    assert len(compiled(FOUNDRY_SOFTWARE_CUDA="version=13010")) == len(first)  # another driver
    assert len(set(results)) == 1
