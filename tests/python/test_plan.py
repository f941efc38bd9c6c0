"""The plan before load: from the header alone, to the byte what the ledger then holds; and what sessions hold beside
their pages, in the ledger and resident."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from conftest import room_of
from foundry import CapacityPolicy, CompiledModel, ContextOverflowError, MemoryLimitError, _core
from foundry._core import device_names

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
PARTS = ("weights_mapped", "weights_private", "kv", "page_tables", "workspace", "logits", "sampling")
SHAPES = [
    ({"type": "q8_0", "head_dim": 32}, "f16"),
    ({"type": "q4_0", "tied": False, "head_dim": 32}, ("q8_0", "f32")),
    ({"arch": "qwen2", "type": "f16"}, "bf16"),
    ({"arch": "gemma3", "layers": 3, "window": 16, "head_dim": 32, "max_seq_len": 2048}, ("q4_0", "f16")),
]


def run(code: str, *arguments: object) -> Any:
    """The JSON that a Python of its own prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("device", [*device_names(), "auto"])
def test_the_plan_of_a_file_is_what_its_load_takes(tiny_path: Callable[..., Path], device: str) -> None:
    sizes = [(1, 512, 8), (2, 16, 64), (1, 7, 32), (3, 100, 8)]
    for (shape, kv), (threads, chunk, page) in zip(SHAPES, sizes, strict=True):
        path = tiny_path(**shape)
        options = {"threads": threads, "chunk_tokens": chunk, "page_tokens": page, "kv_dtype": kv}
        plan = CompiledModel.plan_file(path, 100, 60, device=device, **options)
        model = CompiledModel.load(path, device, **options)
        held = model.memory()
        for part in ("weights_mapped", "weights_private", "workspace", "sampling"):
            assert getattr(plan, part) == held[part], (part, shape)
        assert plan.needed == plan.total and plan.estimated == held["estimated"]
        loaded = model.plan(100, 60)
        assert loaded.total == plan.total
        assert loaded.needed == plan.kv + plan.page_tables == plan.total - held["total"]
        with model.session(100, 60) as s:
            assert model.memory()["promised"] == plan.kv
            assert model.memory()["page_tables"] == plan.page_tables
            s.forward([1 + i % 90 for i in range(100)])
            s.generate([5], 59, temperature=1.0, seed=1, ignore_eos=True)
            assert model.memory()["page_tables"] == plan.page_tables
            if "window" not in shape:
                assert model.memory()["total"] == plan.total == sum(model.memory()[part] for part in PARTS)
        assert model.memory() == held


def test_a_limit_that_is_just_enough(tiny_path: Callable[..., Path]) -> None:
    """Of what the plan says nothing is missing, and not a byte is too much."""
    options: dict[str, Any] = {"threads": 1, "page_tokens": 8}
    plan = CompiledModel.plan_file(tiny_path(), 40, 20, **options)
    assert plan.fits and plan.needed <= plan.available
    limit = plan.total + plan.estimated
    just = CompiledModel.plan_file(tiny_path(), 40, 20, memory_limit=limit, **options)
    assert just.fits and just.needed == just.available == plan.total
    model = CompiledModel.load(tiny_path(), memory_limit=limit, **options)
    with model.session(40, 20, CapacityPolicy(eager=True)) as s:
        s.generate([1] * 40, 20, temperature=1.0, seed=3, ignore_eos=True)
        assert model.memory()["total"] == plan.total == limit - plan.estimated
        messages = [{"role": "user", "content": "Hi"}]
        s.chat(messages, 5, temperature=1.0, ignore_eos=True)  # goes back if it fails, and needs no more for that
        with pytest.raises(MemoryLimitError):
            s.fork()  # tables of its own
    less = CompiledModel.plan_file(tiny_path(), 40, 20, memory_limit=limit - 1, **options)
    assert not less.fits and (less.needed, less.available) == (plan.total, plan.total - 1)
    assert "does not fit" in str(less) and "needed" in str(less) and "available" in str(less)
    small = CompiledModel.plan_file(tiny_path(), 40, 20, memory_limit=1, **options)
    assert not small.fits and small.available == 0 and small.total == plan.total
    with pytest.raises(ContextOverflowError):
        CompiledModel.plan_file(tiny_path(), 10**6, 0, **options)


def test_all_logits_are_in_the_plan(tiny_path: Callable[..., Path]) -> None:
    one, all_of_them = (CompiledModel.plan_file(tiny_path(), 50, 0, all_logits=a, threads=1) for a in (False, True))
    assert all_of_them.logits == 50 * 259 * 4 and all_of_them.total == one.total + all_of_them.logits


def giant(path: Path) -> int:
    """The header of a llama of 80 layers in Q8_0, and a hole where its weights would be. Returns their bytes."""
    hidden, kv, ffn, layers, vocab = 8192, 1024, 28672, 80, 32000
    writer = gguf.GGUFWriter(str(path), "llama")
    for add, value in (
        (writer.add_context_length, 131072),
        (writer.add_embedding_length, hidden),
        (writer.add_block_count, layers),
        (writer.add_feed_forward_length, ffn),
        (writer.add_head_count, 64),
        (writer.add_head_count_kv, 8),
        (writer.add_layer_norm_rms_eps, 1e-5),
    ):
        add(value)
    total = 0

    def tensor(name: str, *shape: int) -> None:
        nonlocal total
        kind = gguf.GGMLQuantizationType.F32 if len(shape) == 1 else gguf.GGMLQuantizationType.Q8_0
        n = shape[-1] * (1 if len(shape) == 1 else shape[0])
        n_bytes = 4 * n if len(shape) == 1 else n // 32 * 34
        writer.add_tensor_info(name + ".weight", shape, np.dtype(np.float32), n_bytes, kind)
        total += n_bytes

    tensor("token_embd", vocab, hidden)
    for layer in range(layers):
        at = f"blk.{layer}."
        tensor(at + "attn_norm", hidden)
        for name, rows, cols in (
            ("attn_q", hidden, hidden),
            ("attn_k", kv, hidden),
            ("attn_v", kv, hidden),
            ("attn_output", hidden, hidden),
            ("ffn_gate", ffn, hidden),
            ("ffn_up", ffn, hidden),
            ("ffn_down", hidden, ffn),
        ):
            tensor(at + name, rows, cols)
        tensor(at + "ffn_norm", hidden)
    tensor("output_norm", hidden)
    tensor("output", vocab, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, path.stat().st_size + 32 + total)  # sizes here are whole multiples of the alignment
    return total


@LINUX
def test_a_file_larger_than_memory_is_planned_from_its_header(tmp_path: Path) -> None:
    """In a process that could not even map it."""
    path = tmp_path / "giant.gguf"
    weights = giant(path)
    assert weights > 70e9 and path.stat().st_blocks * 512 < 1 << 20
    found = run(
        """if True:
        import json, resource, sys, time
        from dataclasses import asdict
        from foundry import CompiledModel, machine
        CompiledModel  # all modules are there
        most = machine._status(machine.ROOT)["VmSize"] + (2 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        began = time.perf_counter()
        plans = [asdict(CompiledModel.plan_file(sys.argv[1], 4000, 96, device=device, threads=1, memory_limit=8 << 30))
                 for device in ("cpu", "reference")]
        print(json.dumps([plans, time.perf_counter() - began]))
        """,
        path,
    )
    (cpu, reference), seconds = found
    print(f"{seconds / 2 * 1000:.0f} ms a plan")
    assert reference["weights_mapped"] == weights and reference["weights_private"] == 0
    assert cpu["weights_private"] > 0.9 * weights and not cpu["fits"]
    assert cpu["kv"] == reference["kv"] == 4096 * 80 * 2 * 1024 * 2
    assert cpu["needed"] == cpu["total"] > cpu["available"] == (8 << 30) - cpu["estimated"]


def test_a_header_longer_than_what_is_mapped_first(tmp_path: Path) -> None:
    n = 70 << 20
    path = tmp_path / "long.gguf"
    with path.open("wb") as file:
        name = b"general.padding"
        file.write(b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, len(name)) + name + struct.pack("<IIQ", 9, 0, n))
        file.seek(n, os.SEEK_CUR)  # zeros
        file.write(struct.pack("<Q", 1) + b"w" + struct.pack("<IQIQ", 1, 8, 0, 0))
        file.write(bytes(64 - file.tell() % 32) + bytes(32))
    whole, header = _core.GgufFile(str(path)), _core.GgufFile(str(path), header_only=True)
    assert header.tensors == whole.tensors == {"w": ("F32", (1, 8), 32)}
    assert header.file_bytes == whole.file_bytes == path.stat().st_size


def test_page_tables_come_and_go_with_sessions(tiny_path: Callable[..., Path]) -> None:
    path = tiny_path(max_seq_len=1 << 15)
    model = CompiledModel.load(path, threads=1, page_tokens=8)
    before = model.memory()
    assert before["page_tables"] == before["logits"] == 0
    with model.session(0, 0) as s:
        assert model.memory()["page_tables"] == model.plan(0, 0).page_tables < 2000  # its own objects
        s.forward([1] * 20)
        one = model.memory()["page_tables"]
        assert one == model.plan(20, 0).page_tables
        with s.fork(), s.fork():
            assert model.memory()["page_tables"] == 3 * one
        assert model.memory()["page_tables"] == one
        s.reserve(1 << 15)
        assert model.memory()["page_tables"] == model.plan(1 << 15, 0).page_tables > 9 * one
        s.rewind(0)
        s.generate([7, 8], 5, temperature=1.0, seed=1)
    assert model.memory() == before
    # What does not fit is refused before anything is taken.
    plan = model.plan(20, 0)
    tight = CompiledModel.load(path, threads=1, page_tokens=8, memory_limit=room_of(model) + plan.needed - 1)
    with pytest.raises(MemoryLimitError) as caught:
        tight.session(20, 0)
    assert (caught.value.needed_bytes, caught.value.available_bytes) == (plan.needed, plan.needed - 1)
    assert tight.memory()["total"] == before["total"] and tight.memory()["promised"] == 0


FORKS = """if True:
    import gc, json, sys
    import foundry.session, foundry.tokenizer
    from foundry import CompiledModel, machine
    model = CompiledModel.load(sys.argv[1], threads=1, page_tokens=8)
    n, count = int(sys.argv[2]), int(sys.argv[3])
    session = model.session(0, 0)
    session.forward([1 + i % 90 for i in range(n)])
    warm = [session.fork() for _ in range(64)]
    gc.collect()
    private, ledger = machine.private_bytes(), model.memory()["total"]
    forks = [session.fork() for _ in range(count)]
    resident, held = machine.private_bytes() - private, model.memory()["total"] - ledger
    for fork in [*forks, *warm, session]:
        fork.close()
    closed = machine.private_bytes() - private
    print(json.dumps({"resident": resident, "ledger": held, "closed": closed, "after": model.memory()}))
"""


@LINUX
@pytest.mark.parametrize("n", [64, 400])
def test_what_forks_hold_is_in_the_ledger(tiny_path: Callable[..., Path], n: int) -> None:
    """Within a tenth, for what the allocator adds to each piece."""
    found = run(FORKS, tiny_path(), n, 5000)
    print(found["resident"] / 5000, found["ledger"] / 5000, found["closed"] / 5000)
    assert found["ledger"] > 5000 * (4096 + 4 * n)
    assert 0.9 <= found["resident"] / found["ledger"] <= 1.1, found
    assert found["after"]["page_tables"] == found["after"]["kv"] == 0
    assert found["closed"] < 0.5 * found["resident"], found  # what the allocator keeps, and objects that Python has


@LINUX
def test_sessions_keep_no_room_for_draws(tiny_path: Callable[..., Path]) -> None:
    """One room serves all who draw: a session whose generation has ended, or waits for its caller, has none."""
    found = run(
        """if True:
        import gc, json, sys
        import foundry.session, foundry.tokenizer
        from foundry import CompiledModel, machine
        model = CompiledModel.load(sys.argv[1], threads=1, page_tokens=8)
        model.tokenizer
        def drawing(session):
            return session.begin([1, 2, 3], 5, foundry.SamplingParams(temperature=1.0, seed=1), [])
        def open_one():
            session = model.session(3, 5)
            stream = drawing(session)
            stream.next()
            return session, stream
        warm = [open_one() for _ in range(32)]
        gc.collect()
        private, ledger = machine.private_bytes(), model.memory()
        kept = [open_one() for _ in range(1000)]
        now = model.memory()
        print(json.dumps({"resident": machine.private_bytes() - private, "ledger": now["total"] - ledger["total"],
                          "room": [ledger["sampling"], now["sampling"], now["logits"]]}))
        """,
        tiny_path(),
    )
    assert found["room"] == [259 * 12, 259 * 12, 0]
    assert found["resident"] <= 1.3 * found["ledger"], found


def test_a_constrained_answer_holds_a_row_until_its_first_token(tiny_path: Callable[..., Path]) -> None:
    """The mask comes with the call for the token, so the prompt's logits wait for it, in the ledger."""
    model = CompiledModel.load(tiny_path(), threads=1, page_tokens=8)
    row = 259 * 4
    options = _core.GenerationOptions()
    options.max_new_tokens, options.constrained = 4, True
    only = np.zeros((259 + 31) // 32, np.uint32)
    only[1] = 1 << 5  # token 37
    ids = np.array([1, 2, 3], np.int32)
    with model.session(8, 8) as s:
        stream = s._core.generate(ids, options, None, None)
        assert model.memory()["logits"] == row
        with pytest.raises(ValueError, match="mask"):
            stream.next(np.zeros(1, np.uint32))
        assert model.memory()["logits"] == row
        assert stream.next(only).token_id == 37
        assert model.memory()["logits"] == 0
        assert stream.next(only).token_id == 37
        stream = s._core.generate(ids, options, None, None)
        s.rewind(0)
        assert model.memory()["logits"] == 0  # the generation has ended, though it is still held here
        stream = s._core.generate(ids, options, None, None)
    assert model.memory()["logits"] == 0 and stream is not None
    least = CompiledModel.plan_file(tiny_path(), 8, 8, threads=1, page_tokens=8)
    limit = least.total + least.estimated + row - 1
    tight = CompiledModel.load(tiny_path(), threads=1, page_tokens=8, memory_limit=limit)
    with tight.session(8, 8) as s:
        with pytest.raises(MemoryLimitError) as caught:
            s._core.generate(ids, options, None, None)
        assert (caught.value.needed_bytes, caught.value.available_bytes) == (row, row - 1)
        assert s.position == 0
        s.generate([1, 2, 3], 4)
