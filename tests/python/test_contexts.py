"""The largest context that fits, for each type of K and V, and the screen that shows it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import room_of
from foundry import CompiledModel, MemoryLimitError, ModelFormatError
from foundry.cli import main
from foundry.contexts import KV_TYPES, ContextPlan, largest_that_fits, plan_contexts

LONG = {"max_seq_len": 1 << 18, "head_dim": 32}


@pytest.mark.parametrize("shape", [LONG, {"arch": "gemma3", "layers": 3, "window": 64, **LONG}], ids=["full", "window"])
@pytest.mark.parametrize("kv", [*KV_TYPES, ("q8_0", "f16")], ids=str)
def test_the_largest_context_is_what_a_loaded_model_promises(
    tiny_path: Callable[..., Path], shape: dict[str, object], kv: str | tuple[str, str]
) -> None:
    """That many tokens, and not one more."""
    path = tiny_path(**shape)
    limit = room_of(CompiledModel.load(path)) + (10 << 20)
    (plan,) = plan_contexts(path, [kv], memory_limit=limit)
    model = CompiledModel.load(path, memory_limit=limit, kv_dtype=kv)
    assert 1000 < plan.largest < plan.max_seq_len == 1 << 18
    model.session(plan.largest, 0).close()
    with pytest.raises(MemoryLimitError):
        model.session(plan.largest + 1, 0)
    assert plan.kv == model.plan(plan.max_seq_len, 0).kv


def test_bytes_of_a_token(tiny_path: Callable[..., Path]) -> None:
    """Two layers of two heads of 32 values, for K and for V; blocks of 32 have a scale of two bytes."""
    path = tiny_path(**LONG)
    found = {one.k_type: one.token_bytes for one in plan_contexts(path)}
    values = 2 * 2 * 32 * 2
    assert found == {
        "f32": values * 4,
        "f16": values * 2,
        "bf16": values * 2,
        "q8_0": values * 34 // 32,
        "q4_0": values * 18 // 32,
    }


def test_a_model_that_does_not_fit_has_no_context(tiny_path: Callable[..., Path]) -> None:
    assert {one.largest for one in plan_contexts(tiny_path(), memory_limit=1 << 20)} == {0}
    assert {one.largest for one in plan_contexts(tiny_path(), memory_limit=1 << 30)} == {512}  # all of the model's


def test_searching() -> None:
    for most in (0, 1, 2, 7, 512):
        for largest in range(most + 1):
            assert largest_that_fits(lambda n, fits=largest: n <= fits, most) == largest  # type: ignore[misc]


def test_the_header_is_enough(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    """Of a file whose weights are a hole: not a byte of them is there to read."""
    whole, hollow = tiny_path(**LONG), tmp_path / "hollow.gguf"
    content = whole.read_bytes()
    header = content.rindex(b"output_norm.weight") + 200
    with hollow.open("wb") as file:
        file.write(content[:header])
        file.truncate(len(content))
    assert plan_contexts(hollow, memory_limit=1 << 26) == plan_contexts(whole, memory_limit=1 << 26)
    hollow.write_bytes(content[:16] + struct.pack("<Q", 1 << 40) + content[24:])
    with pytest.raises(ModelFormatError):
        plan_contexts(hollow)


def test_the_plans_screen(tiny_path: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_path(**LONG)
    arguments = ["plan", str(path), "--prompt-tokens", "1000", "-n", "24", "--memory-limit", "24M"]
    assert main([*arguments, "--kv-dtype", "q8_0,f16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    contexts = [ContextPlan(**one) for one in told["contexts"]]
    assert contexts == plan_contexts(path, [*KV_TYPES, ("q8_0", "f16")], memory_limit=24 << 20)
    assert main([*arguments, "--kv-dtype", "q8_0,f16"]) == 0
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert shown[0] == f"{path.name}, a context of 262144 tokens, K/V in q8_0,f16"
    assert any(line.startswith("K/V for 1024 tokens") for line in shown) and "fits" in shown
    assert any(line.startswith("of a limit of  24.0 MiB  ███") for line in shown)
    rows = {line.split()[0]: line for line in shown[-len(contexts) :]}
    for one in contexts:
        row = rows[one.k_type if one.k_type == one.v_type else f"{one.k_type},{one.v_type}"]
        assert f" {one.largest} tokens" in row
        assert row.count("█") == 24 * one.largest // one.max_seq_len
