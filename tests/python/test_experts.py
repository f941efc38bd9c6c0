"""Mixtures of experts: what a file says of them is done or refused by name, of equal scores the lower number is chosen,
and experts that are not chosen change nothing."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import families
import hf_directories
import numpy as np
import numpy.typing as npt
import pytest
from families import FAMILIES, HIDDEN
from foundry import CompiledModel, ModelFormatError, SamplingParams
from foundry.cli import main
from foundry.contexts import plan_contexts
from foundry.generate import stream
from test_families import BOUND, logits_of, off_by

MOE, GRANITE, SHARED, OSS = "qwen3moe", "granitemoe", "granitemoe shared", "gpt-oss"
UP, DOWN, ROUTER = "blk.1.ffn_up_exps.weight", "blk.0.ffn_down_exps.weight", "blk.2.ffn_gate_inp.weight"


def of_shape(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, np.float32)


KEYS: list[tuple[str, Mapping[str, Any], str]] = [
    (MOE, {"expert_used_count": 9}, "qwen3moe.expert_used_count: expected at most the 8 experts .*, found 9"),
    (MOE, {"expert_used_count": 0}, "qwen3moe.expert_used_count: expected a whole number from 1 .*, found 0"),
    (MOE, {"expert_used_count": None}, "qwen3moe.expert_used_count: expected a whole number .*, found None"),
    (MOE, {"expert_count": None}, "qwen3moe.expert_count: expected a whole number .*, found None"),
    (MOE, {"expert_count": 0}, "qwen3moe.expert_count: expected a whole number from 1 .*, found 0"),
    (MOE, {"expert_count": 65537}, "qwen3moe.expert_count: expected a whole number from 1 below 65537, found 65537"),
    (MOE, {"expert_count": "8"}, "qwen3moe.expert_count: expected a whole number .*, found '8'"),
    (MOE, {"expert_feed_forward_length": None}, "qwen3moe.expert_feed_forward_length: expected a whole number"),
    (MOE, {"expert_feed_forward_length": 0}, "qwen3moe.expert_feed_forward_length: expected a whole number from 1"),
    (MOE, {"expert_gating_func": 4}, r"expert_gating_func: expected 1 or 3 \(softmax\) or 2 \(sigmoid\), found 4"),
    (MOE, {"expert_weights_norm": 1}, "expert_weights_norm: expected yes or no, found 1"),
    (MOE, {"expert_weights_scale": -1.0}, "expert_weights_scale: expected a number that is not below 0"),
    (MOE, {"expert_group_count": 2}, "expert_group_count: expected 0 or 1, found 2, which is not supported"),
    (MOE, {"expert_group_used_count": 2}, "expert_group_used_count: expected 0 or 1, found 2"),
    (MOE, {"expert_shared_count": 1}, "expert_shared_count: expected 0, found 1"),
    (MOE, {"expert_shared_feed_forward_length": 8}, "expert_shared_feed_forward_length: expected 0, found 8"),
    (MOE, {"leading_dense_block_count": 1}, "leading_dense_block_count: expected 0, found 1"),
    (MOE, {"interleave_moe_layer_step": 2}, "interleave_moe_layer_step: expected 0 or 1, found 2"),
    (MOE, {"moe_every_n_layers": 2}, "moe_every_n_layers: expected 0 or 1, found 2"),
    # Another number than the tensors have.
    (MOE, {"expert_count": 7}, r'"blk.0.ffn_gate_inp.weight": expected \[7, 64\], found \[8, 64\]'),
    (MOE, {"expert_feed_forward_length": 41}, r'ffn_\w+_exps.weight": expected \[8, .*41.*\], found \[8, .*40.*\]'),
    (GRANITE, {"feed_forward_length": 48}, r'ffn_\w+_exps.weight": expected \[5, .*48.*\], found \[5, .*96.*\]'),
    (GRANITE, {"expert_shared_feed_forward_length": 56}, 'no tensor "blk.0.ffn_gate_shexp.weight"'),
    (OSS, {"expert_used_count": 7}, "gpt-oss.expert_used_count: expected at most the 6 experts .*, found 7"),
    (OSS, {"attention.sliding_window": None}, "gpt-oss.attention.sliding_window: expected a whole number"),
    (OSS, {"swiglu_clamp_exp": 5.0}, "gpt-oss.swiglu_clamp_exp: expected 0 or 7, found 5"),
    (SHARED, {"expert_shared_feed_forward_length": 0}, "found 'blk.0.ffn_down_shexp.weight' and 11 more"),
    (SHARED, {"expert_shared_feed_forward_length": 55}, r'shexp.weight": expected \[.*55.*\], found \[.*56.*\]'),
]


@pytest.mark.parametrize(("name", "keys", "said"), KEYS, ids=str)
def test_a_key_that_makes_no_sense_is_refused_by_name(
    tmp_path: Path, name: str, keys: Mapping[str, Any], said: str
) -> None:
    path = families.write(tmp_path / "m.gguf", FAMILIES[name], keys)
    with pytest.raises(ModelFormatError, match=said):
        CompiledModel.load(path)
    with pytest.raises(ModelFormatError, match=said):
        CompiledModel.plan_file(path)


TENSORS: list[tuple[Mapping[str, Any], str]] = [
    ({UP: of_shape(7, 40, HIDDEN)}, rf'tensor "{UP}": expected \[8, 40, 64\], found \[7, 40, 64\]'),
    ({UP: of_shape(4, 80, HIDDEN)}, r"expected \[8, 40, 64\], found \[4, 80, 64\]"),  # as many values
    ({UP: of_shape(320, HIDDEN)}, r"expected \[8, 40, 64\], found \[1, 320, 64\]"),
    ({UP: of_shape(2, 4, 40, HIDDEN)[:, :3]}, r"expected \[8, 40, 64\], found \[6, 40, 64\]"),
    ({DOWN: of_shape(8, 40, HIDDEN)}, rf'tensor "{DOWN}": expected \[8, 64, 40\], found \[8, 40, 64\]'),
    ({DOWN: None}, rf'no tensor "{DOWN}"; expected \[8, 64, 40\]'),
    ({ROUTER: of_shape(9, HIDDEN)}, rf'tensor "{ROUTER}": expected \[8, 64\], found \[9, 64\]'),
    ({ROUTER: None}, f'no tensor "{ROUTER}"'),
    ({"blk.0.ffn_up.weight": of_shape(96, HIDDEN)}, "found 'blk.0.ffn_up.weight'"),
    ({"blk.0.exp_probs_b.bias": of_shape(8)}, "found 'blk.0.exp_probs_b.bias'"),
]


@pytest.mark.parametrize(("tensors", "said"), TENSORS, ids=[said for _, said in TENSORS])
def test_a_tensor_of_another_shape_is_refused_by_name(tmp_path: Path, tensors: Mapping[str, Any], said: str) -> None:
    path = families.write(tmp_path / "m.gguf", FAMILIES[MOE], tensors=tensors)
    with pytest.raises(ModelFormatError, match=said):
        CompiledModel.load(path)


BIASES: list[tuple[Mapping[str, Any], str]] = [
    ({"blk.1.ffn_up_exps.bias": of_shape(5, 40)}, r'up_exps.bias": expected \[6, 1, 40\], found \[5, 1, 40\]'),
    ({"blk.1.ffn_up_exps.bias": of_shape(6, 39)}, r'up_exps.bias": expected \[6, 1, 40\], found \[6, 1, 39\]'),
    ({"blk.1.ffn_down_exps.bias": of_shape(240)}, r'down_exps.bias": expected \[6, 1, 64\], found \[1, 1, 240\]'),
    ({"blk.3.attn_sinks.weight": of_shape(3)}, r'attn_sinks.weight": expected \[1, 4\], found \[1, 3\]'),
    ({"blk.3.attn_sinks.weight": None}, 'no tensor "blk.3.attn_sinks.weight"'),
]


@pytest.mark.parametrize(("tensors", "said"), BIASES, ids=[said for _, said in BIASES])
def test_biases_and_sinks_of_another_shape_are_refused_by_name(
    tmp_path: Path, tensors: Mapping[str, Any], said: str
) -> None:
    path = families.write(tmp_path / "m.gguf", FAMILIES[OSS], tensors=tensors)
    with pytest.raises(ModelFormatError, match=said):
        CompiledModel.load(path)


def test_a_key_of_experts_that_nobody_knows_is_told(tmp_path: Path) -> None:
    path = families.write(tmp_path / "m.gguf", FAMILIES[MOE], {"expert_wobble": 1})
    with pytest.warns(UserWarning, match=r"not known.*: qwen3moe\.expert_wobble"):
        CompiledModel.load(path)


def test_keys_that_say_what_is_done_anyway_are_taken(tmp_path: Path) -> None:
    keys = {"expert_weights_norm": True, "expert_weights_scale": 0.0, "expert_gating_func": 1, "expert_group_count": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert off_by(MOE, logits_of(families.write(tmp_path / "m.gguf", FAMILIES[MOE], keys))) < BOUND


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_of_equal_scores_the_lower_numbers_are_chosen(tmp_path: Path, device: str) -> None:
    """A router of zeros chooses the first three of eight, whatever the others hold."""
    tensors = families.tensors_of(FAMILIES[MOE])
    blind = {name: np.zeros_like(values) for name, values in tensors.items() if "gate_inp" in name}
    found = logits_of(families.write(tmp_path / "a.gguf", FAMILIES[MOE], tensors=blind), device)
    for first, same in ((3, True), (2, False)):
        other = dict(blind)
        for name, values in tensors.items():
            if "_exps" in name:
                other[name] = values.copy()
                other[name][first:] *= -3
        changed = logits_of(families.write(tmp_path / "b.gguf", FAMILIES[MOE], tensors=other), device)
        assert np.array_equal(changed, found) == same


def test_inspect_shows_what_is_routed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = families.write(tmp_path / "m.gguf", FAMILIES[MOE])
    assert main(["inspect", str(path), "--graph"]) == 0
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in (
        "route route [n, 8] -> [n, 3], [n, 3] used 3, gate 0, normalise 1",
        "linear_routed ffn_up_exps [n, 64], [n, 3] -> [n, 120] ffn_up_exps.weight [8, 40, 64]",
        "sum_routed experts sum [n, 192], [n, 3] -> [n, 64]",
    ):
        assert line in shown


def test_a_file_larger_than_memory_runs(tmp_path: Path) -> None:
    """Of a file, and of a directory whose experts are put together: the same bits with fewer packed at once, as a limit
    or the caller has it; plan and ledger agree, and the plan says how many."""
    path, folder = families.write(tmp_path / "m.gguf", FAMILIES[MOE]), hf_directories.write(tmp_path / "hf", MOE)
    ids = [int(i) for i in np.random.default_rng(4).integers(0, 256, 60)]
    options: dict[str, Any] = {"device": "cpu", "threads": 2, "page_tokens": 8, "chunk_tokens": 16}

    def logits(model: CompiledModel) -> npt.NDArray[np.float32]:
        with model.session(max_new_tokens=0) as session:
            return session.forward(ids, all_logits=True)

    for one in (path, folder):
        whole = CompiledModel.plan_file(one, **options)
        assert (whole.experts_kept, whole.experts_count) == (8, 8) and "experts" not in str(whole)
        expected = logits(CompiledModel.load(one, **options))
        held = whole.weights + whole.workspace + whole.sampling
        for bound in ({"expert_cache_bytes": whole.experts // 2}, {"memory_limit": held + whole.estimated - 1}):
            planned = CompiledModel.plan_file(one, **options, **bound)
            model = CompiledModel.load(one, **options, **bound)
            assert 1 <= planned.experts_kept < 8 and planned.experts < whole.experts
            assert planned.weights_private == model.memory()["weights_private"]
            assert whole.weights_private - planned.weights_private == whole.experts - planned.experts
            assert f"for {planned.experts_kept} of 8 experts" in str(planned)
            if "memory_limit" not in bound:  # which has room for the smallest slab of pages or for experts
                assert np.array_equal(logits(model), expected)
    with pytest.raises(ValueError, match=r"expert_cache_bytes: expected at least \d+, an expert of each .*, found 5"):
        CompiledModel.load(path, **options, expert_cache_bytes=5)
    with pytest.raises(ValueError, match="expert_cache_bytes"):
        CompiledModel.load(path, **options, expert_cache_bytes=0)


@pytest.mark.parametrize("name", ["qwen3moe", "lfm2moe"])
def test_experts_leave_room_for_a_session(tmp_path: Path, name: str) -> None:
    """Whatever the limit is from one expert and a context on; the plan says how many are kept then."""
    family = replace(FAMILIES[name], expert_ffn=4096, keys=FAMILIES[name].keys | {"expert_feed_forward_length": 4096})
    path = families.write(tmp_path / "m.gguf", family)
    options: dict[str, Any] = {"device": "cpu", "threads": 1, "page_tokens": 8, "chunk_tokens": 16}
    options["state_cache_bytes"] = 1
    whole = CompiledModel.plan_file(path, 0, -1, **options)
    held, context = whole.total - whole.kv - whole.page_tables + whole.estimated, whole.kv + whole.page_tables
    of_one = whole.experts // whole.experts_count
    assert whole.experts_kept == whole.experts_count and whole.states < whole.kv
    least = held - whole.experts + of_one + context
    for limit in (least, held, held + 1, held + of_one, held + context - 1, held + context):
        planned = CompiledModel.plan_file(path, 0, -1, **options, memory_limit=limit)
        assert planned.fits and (planned.experts_kept == whole.experts_count) == (limit >= held + context)
        model = CompiledModel.load(path, **options, memory_limit=limit)
        with model.session(0, -1) as session:
            *_, last = stream(session, [1, 2, 3], 20, SamplingParams(temperature=0, ignore_eos=True))
            assert last.usage is not None and last.usage.completion_tokens == 20
            assert session.reserved_tokens == planned.reserved_tokens


def test_the_plan_counts_every_expert(tmp_path: Path) -> None:
    """What a header alone tells is what loading takes; twice the experts are twice their bytes."""
    totals = []
    for count in (8, 16):
        family = replace(FAMILIES[MOE], experts=count, keys={**FAMILIES[MOE].keys, "expert_count": count})
        path = families.write(tmp_path / f"{count}.gguf", family)
        planned = CompiledModel.plan_file(path, device="cpu", threads=2, page_tokens=8)
        model = CompiledModel.load(path, device="cpu", threads=2, page_tokens=8)
        memory = model.memory()
        private = memory["weights_private"]
        assert planned.weights_mapped == memory["weights_mapped"] and planned.weights_private == private
        assert planned.workspace == memory["workspace"]
        totals.append(private)
    of_expert = 4 * 64 * (48 + 48) * 4 + 4 * 64 * 40 * 4  # rows of gate and up filled up to 48, in F32, of four layers
    assert totals[1] - totals[0] == 8 * of_expert  # a router of 8 and one of 16 are a panel each


def test_the_command_line_bounds_what_is_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan and its contexts, an answer, and what is too little; as Python has it."""
    path = families.write(tmp_path / "m.gguf", FAMILIES[MOE])
    given: dict[str, Any] = {"device": "cpu", "threads": 2, "memory_limit": 1 << 30}
    whole = CompiledModel.plan_file(path, **given)
    half = whole.experts // 2
    flags = ["-m", str(path), "--device", "cpu", "--threads", "2", "--memory-limit", "1GiB"]

    def told(*command: str) -> dict[str, Any]:
        assert main([*command, *flags, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    plan = told("plan", "--expert-cache", f"{half / 1024}KiB")
    assert (plan["experts_kept"], plan["experts_count"], plan["experts"]) == (4, 8, half)
    assert plan["total"] == CompiledModel.plan_file(path, **given, expert_cache_bytes=half).total < whole.total
    contexts = plan_contexts(path, **given, expert_cache_bytes=half)
    assert plan["contexts"] == [asdict(one) for one in contexts] and told("plan")["experts_kept"] == 8
    assert main(["plan", *flags, "--expert-cache", str(half)]) == 0
    assert "for 4 of 8 experts" in capsys.readouterr().out
    answer = ("generate", "Hello", "--raw", "-n", "8", "--ignore-eos")
    assert told(*answer, "--expert-cache", str(half))["token_ids"] == told(*answer)["token_ids"]
    for command in (["generate", "Hello", "--raw"], ["plan"], ["chat"], ["serve", str(path)]):
        more = flags[2:] if command[0] == "serve" else flags
        assert main([*command, *more, "--expert-cache", "5"]) == 1
        assert "expert_cache_bytes: expected at least" in capsys.readouterr().err
