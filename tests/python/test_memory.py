"""The memory limit and the threads that a machine, a container and `ulimit` leave; what the plan estimates."""

from __future__ import annotations

import itertools
import json
import platform
import resource
import string
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from conftest import room_of
from foundry import CompiledModel, MemoryLimitError, machine, memory

GIB = 1 << 30
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="control groups and /proc are Linux's")
STATUS = "Name:\tpython\nVmSize:\t  900000 kB\nVmData:\t  300000 kB\nRssAnon:\t   65536 kB\nRssShmem:\t       0 kB\n"


def tree(root: Path, cgroup: str, mountinfo: str, files: dict[str, object]) -> Path:
    """A /proc and a /sys of these contents."""
    for name, content in {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mountinfo, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "\n".join(
    f"3{i} 31 0:3{i} {{root}} /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}"
    for i, name in enumerate(("cpu,cpuacct", "memory", "pids"))
)


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "files", "limit"),
    [
        ("0::/a/b", V2, {"sys/fs/cgroup/a/b/memory.max": 3 * GIB, "sys/fs/cgroup/a/memory.max": "max"}, 3 * GIB),
        (
            "0::/a/b",
            V2,
            {"sys/fs/cgroup/a/b/memory.max": 3 * GIB, "sys/fs/cgroup/a/memory.max": GIB},
            GIB,
        ),  # a parent's
        ("0::/a/b", V2, {"sys/fs/cgroup/a/b/memory.max": 3 * GIB, "sys/fs/cgroup/a/b/memory.high": GIB}, GIB),
        ("0::/a/b", V2, {"sys/fs/cgroup/a/c/memory.max": GIB}, None),  # somebody else's
        ("0::/", V2, {"sys/fs/cgroup/memory.max": GIB}, GIB),  # a namespace of its own
        ("0::/../x", V2, {"sys/fs/cgroup/memory.max": GIB}, GIB),  # and a group outside it
        ("0::/a/b", V2, {"sys/fs/cgroup/a/b/memory.max": "max"}, None),
        ("5:memory:/d/x\n0::/", V1.format(root="/"), {"sys/fs/cgroup/memory/d/memory.limit_in_bytes": GIB}, GIB),
        # A container of version 1 sees its own group mounted as the top, by the name that it has outside.
        ("5:memory:/d/x", V1.format(root="/d/x"), {"sys/fs/cgroup/memory/memory.limit_in_bytes": GIB}, GIB),
        ("5:memory:/d/xy", V1.format(root="/d/x"), {"sys/fs/cgroup/memory/y/memory.limit_in_bytes": GIB}, None),
        ("5:pids:/d", V1.format(root="/"), {"sys/fs/cgroup/pids/d/memory.limit_in_bytes": GIB}, None),
        (
            "5:memory:/d\n0::/e",
            V1.format(root="/") + "\n" + V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/two\\040words"),
            {
                "sys/fs/cgroup/memory/d/memory.limit_in_bytes": 4 * GIB,
                "sys/fs/cgroup/two words/e/memory.max": 2 * GIB,
            },
            2 * GIB,
        ),
        ("", "", {}, None),
        ("nonsense", "nonsense\n1 2 - cgroup2", {}, None),
    ],
)
def test_a_containers_memory(
    tmp_path: Path, cgroup: str, mountinfo: str, files: dict[str, object], limit: int | None
) -> None:
    assert machine.container_bytes(tree(tmp_path, cgroup, mountinfo, files)) == limit


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "files", "cpus"),
    [
        ("0::/a/b", V2, {"sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", V2, {"sys/fs/cgroup/a/b/cpu.max": "max 100000", "sys/fs/cgroup/a/cpu.max": "50000 100000"}, 0.5),
        ("0::/a/b", V2, {"sys/fs/cgroup/a/b/cpu.max": "max 100000"}, None),
        (
            "3:cpu,cpuacct:/d",
            V1.format(root="/"),
            {
                "sys/fs/cgroup/cpu,cpuacct/d/cpu.cfs_quota_us": -1,
                "sys/fs/cgroup/cpu,cpuacct/d/cpu.cfs_period_us": 100000,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": 300000,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": 100000,
            },
            3.0,
        ),
        ("", "", {}, None),
    ],
)
def test_a_containers_processors(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cgroup: str,
    mountinfo: str,
    files: dict[str, object],
    cpus: float | None,
) -> None:
    root = tree(tmp_path, cgroup, mountinfo, files)
    assert machine.container_cpus(root) == cpus
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert machine.threads(root) == {None: 8, 0.5: 1, 1.5: 2, 3.0: 3}[cpus]
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {5}, raising=False)
    assert machine.threads(root) == 1


def test_the_default_limit_is_the_least_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "physical_bytes", lambda: 64 * GIB)
    private = 64 << 20
    free = tree(tmp_path / "free", "", "", {"proc/self/status": STATUS})
    assert memory.default_memory_limit(free) == 62 * GIB - private
    held = tree(tmp_path / "held", "0::/", V2, {"proc/self/status": STATUS, "sys/fs/cgroup/memory.max": 4 * GIB})
    assert memory.default_memory_limit(held) == 4 * GIB - (256 << 20) - private
    (held / "sys/fs/cgroup/memory.max").write_text(f"{GIB}\n")
    assert memory.default_memory_limit(held) == GIB - (128 << 20) - private
    monkeypatch.setattr(machine.resource, "getrlimit", lambda kind: (1200000 << 10, -1))
    assert machine.left_by_process_limits(held) == 300000 << 10  # beside mapped memory too, which is in VmSize
    assert memory.default_memory_limit(held) == (300000 << 10) - (128 << 20)
    (held / "sys/fs/cgroup/memory.max").write_text(f"{64 << 20}\n")
    assert memory.default_memory_limit(held) == 1  # nothing fits any more, which is not the 0 of "no limit"


def run(code: str, *arguments: object, timeout: int = 100) -> Any:
    """The JSON that a Python of its own prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@LINUX
def test_ulimit_v_is_heeded(tiny_path: Callable[..., Path]) -> None:
    """A process that may have 300 MiB more promises no session that would take them all, and says so with figures."""
    found = run(
        """if True:
        import json, resource, sys
        from foundry import CompiledModel, MemoryLimitError, machine
        CompiledModel.load(sys.argv[1], threads=1).tokenizer  # all modules are there
        status = machine._status(machine.ROOT)
        most = status["VmSize"] + (300 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        model = CompiledModel.load(sys.argv[1], threads=1)
        fits = model.plan(10, 10).fits
        try:
            with model.session(1 << 20, 0):
                refused = None
        except MemoryLimitError as error:
            refused = [error.needed_bytes, error.available_bytes]
        with model.session(10, 10) as session:
            session.forward([1] * 10)
        print(json.dumps({"limit": model.memory()["limit"], "fits": fits, "refused": refused}))
        """,
        tiny_path(max_seq_len=1 << 20, layers=2, kv_heads=4, head_dim=64),
    )
    assert found["fits"] and 0 < found["limit"] <= 300 - 128 << 20
    assert found["refused"][0] > 1 << 30 and found["refused"][1] < found["limit"]


@LINUX
def test_want_of_memory_is_told_with_figures(tmp_path: Path) -> None:
    """However far a load comes before the system has no more, it says so, and does not call the file damaged."""
    path = large_vocabulary(tmp_path / "x.gguf", 40_000)
    outcomes = []
    for more in (10, 40, 300):
        outcomes.append(
            run(
                """if True:
                import json, resource, sys
                import foundry.session, foundry.tokenizer
                from foundry import CompiledModel, FoundryError, machine
                most = machine._status(machine.ROOT)["VmSize"] + (int(sys.argv[2]) << 20)
                resource.setrlimit(resource.RLIMIT_AS, (most, most))
                try:
                    with CompiledModel.load(sys.argv[1], threads=1).session(8, 0) as session:
                        session.forward([1] * 8)
                    print(json.dumps("works"))
                except (FoundryError, MemoryError) as error:
                    print(json.dumps(f"{type(error).__name__}: {error}"))
                """,
                path,
                more,
            )
        )
    assert outcomes[-1] == "works"
    assert all(o.startswith("MemoryLimitError: ") and "needed" in o for o in outcomes[:2]), outcomes


def test_the_containers_limit_is_the_default(
    tiny_path: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path, "0::/", V2, {"sys/fs/cgroup/memory.max": 512 << 20, "sys/fs/cgroup/cpu.max": "30000 100000"})
    monkeypatch.setattr(machine, "_read", lambda path, read=machine._read: read(root / path.relative_to("/")))
    model = CompiledModel.load(tiny_path())
    assert model.memory()["limit"] == (512 << 20) - (64 << 20)
    assert model.threads == 1
    assert CompiledModel.load(tiny_path(), memory_limit=GIB, threads=2).memory()["limit"] == GIB


def test_the_estimate_counts_against_the_limit_and_not_in_the_total(tiny_path: Callable[..., Path]) -> None:
    probe = CompiledModel.load(tiny_path(), threads=1, page_tokens=8)
    estimated = probe.memory()["estimated"]
    plan = probe.plan(100, 50)
    assert plan.estimated == estimated > 0
    assert plan.total == plan.weights + plan.kv + plan.page_tables + plan.workspace + plan.logits + plan.sampling
    assert sum("estimated" in line for line in str(plan).splitlines()) == 1
    with pytest.raises(MemoryLimitError, match="estimated for tokenizer and Python") as caught:
        CompiledModel.load(tiny_path(), threads=1, page_tokens=8, memory_limit=room_of(probe) - 1)
    assert caught.value.needed_bytes == probe.memory()["total"] == caught.value.available_bytes + 1
    for more, fits in ((0, True), (-1, False)):
        limit = plan.total + estimated + more
        model = CompiledModel.load(tiny_path(), threads=1, page_tokens=8, memory_limit=limit)
        assert model.plan(100, 50).fits is fits and model.memory()["limit"] == limit


def large_vocabulary(path: Path, n_tokens: int = 150_000) -> Path:
    """A tiny llama whose tokens are bytes, then pairs and triples of letters, each with its merge."""
    writer = gguf.GGUFWriter(str(path), "llama")
    for add, value in (
        (writer.add_context_length, 4096),
        (writer.add_embedding_length, 64),
        (writer.add_block_count, 1),
        (writer.add_feed_forward_length, 64),
        (writer.add_head_count, 1),
        (writer.add_layer_norm_rms_eps, 1e-5),
    ):
        add(value)
    letters = [*string.ascii_letters, "\u0120"]
    single = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    merges = itertools.chain(
        ((a, b) for a in letters for b in letters),
        ((a + b, c) for a in letters for b in letters for c in letters),
        ((a + b, c + d) for a in letters for b in letters for c in letters for d in letters),
    )
    pairs = list(itertools.islice(merges, n_tokens - len(single)))
    tokens = [*single, *(a + b for a, b in pairs)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges([f"{a} {b}" for a, b in pairs])
    writer.add_eos_token_id(0)
    weights = [f"blk.0.{n}" for n in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")]
    for name in ("token_embd", *weights):
        rows = len(tokens) if name == "token_embd" else 64
        writer.add_tensor(f"{name}.weight", np.full((rows, 64), 0.01, np.float16))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(64, np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path


MEASURE = """if True:
    import gc, json, sys
    import foundry.session, foundry.tokenizer
    from foundry import CompiledModel, machine
    gc.collect()
    before = machine.private_bytes()
    model = CompiledModel.load(sys.argv[1], chunk_tokens=64)
    with model.session(0, 0) as session:
        session.forward([5 + i % 90 for i in range(310)])  # all of the workspace, and of SmolLM2's slab
        session.generate("Once upon a time there was", 4, temperature=1.0, seed=1)  # and the room for draws
        memory = model.memory()
        taken = machine.private_bytes() - before - (memory["total"] - memory["weights_mapped"])
    print(json.dumps({"taken": taken, "estimated": memory["estimated"]}))
"""


@LINUX
def test_the_estimate_is_within_a_quarter_with_a_large_vocabulary(tmp_path: Path) -> None:
    found = run(MEASURE, large_vocabulary(tmp_path / "x.gguf"))
    assert 0.75 <= found["taken"] / found["estimated"] <= 1.25, found
    assert found["estimated"] > 40 << 20


@LINUX
@pytest.mark.model
@pytest.mark.slow
def test_the_estimate_is_within_a_quarter_of_smollm2s(smollm2_path: Path) -> None:
    found = run(MEASURE, smollm2_path)
    assert 0.75 <= found["taken"] / found["estimated"] <= 1.25, found


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_what_threads_have_freed_goes_back_to_the_system_when_the_prefixes_go(tiny: CompiledModel) -> None:
    """glibc keeps what is free in the middle of its heaps: a piece in a thousand that lives on keeps all below it."""
    if "glibc" not in platform.libc_ver():
        pytest.skip("other C libraries decide by themselves")

    def crowd(kept: list[Any]) -> None:
        pieces = [np.ones(8_000, np.uint8) for _ in range(4_000)]
        kept.append(pieces[-1])

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    tiny.drop_prefixes()
    before, kept = resident(), []
    threads = [threading.Thread(target=crowd, args=[kept]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert resident() - before > 16 << 20  # of 122 MiB that were there, and are free
    tiny.drop_prefixes()
    assert resident() - before < 4 << 20
