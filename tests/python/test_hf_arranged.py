"""Directories whose weights are arranged otherwise than GGUF's: experts apart and joined, heads in another order, MXFP4
in parts; and what of them is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import families
import hf_directories
import numpy as np
import pytest
from families import FAMILIES
from foundry import CompiledModel, ModelFormatError
from foundry.files import open_model
from test_families import BOUND, logits_of, off_by

ARRANGED = [name for name, family in FAMILIES.items() if family.experts or family.taps]
OWN = [name for name in ARRANGED if FAMILIES[name].arch in hf_directories.OWN_EXPERTS]
Tensors = dict[str, Any]


@pytest.mark.parametrize("name", OWN)
def test_experts_may_lie_in_one_tensor(tmp_path: Path, name: str) -> None:
    """With gates before ups, as transformers holds them."""
    tensors = hf_directories.their_weights(FAMILIES[name], joined=True)
    folder = hf_directories.write_directory(tmp_path / "hf", hf_directories.CONFIGS[name], tensors)
    apart = hf_directories.write(tmp_path / "apart", name, shards=3)
    assert not any(".experts.0." in one for one in tensors)
    assert np.array_equal(logits_of(folder), logits_of(apart))
    assert off_by(name, logits_of(folder)) < BOUND


@pytest.mark.parametrize("kind", ["", "bfloat16"])
@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("name", ARRANGED)
def test_what_is_made_is_planned_and_the_same_everywhere(tmp_path: Path, name: str, device: str, kind: str) -> None:
    """Of one thread and three; in halves as the same numbers in F32."""
    tensors, config = hf_directories.their_weights(FAMILIES[name]), hf_directories.CONFIGS[name]
    folder = hf_directories.write_directory(tmp_path / "hf", config, tensors, kind=kind)
    found = logits_of(folder, device)
    if kind:
        tensors = {key: hf_directories.rounded(values, kind) for key, values in tensors.items()}
        expected = logits_of(hf_directories.write_directory(tmp_path / "f32", config, tensors), device)
        assert np.abs(found - expected).max() < BOUND * np.ptp(expected)
    else:
        assert off_by(name, found) < BOUND
    planned = CompiledModel.plan_file(folder, device=device, threads=3)
    model = CompiledModel.load(folder, device, threads=3)
    assert planned.weights_mapped == model.memory()["weights_mapped"]
    assert planned.weights_private == model.memory()["weights_private"]


def test_saves_are_not_those_of_the_gguf_file_and_go_on(tmp_path: Path) -> None:
    folder = hf_directories.write(tmp_path / "hf", "qwen35moe", shards=2)
    model = CompiledModel.load(folder)
    with model.session() as session:
        session.forward([1, 2, 3])
        session.save(tmp_path / "s.kv")
        expected = session.forward([4])
    assert np.array_equal(CompiledModel.load(folder).restore(tmp_path / "s.kv").forward([4]), expected)
    gguf = families.write(tmp_path / "m.gguf", FAMILIES["qwen35moe"])
    with pytest.raises(ModelFormatError, match="model"):
        CompiledModel.load(gguf).restore(tmp_path / "s.kv")


def test_qwen35_beside_images_and_drafts(tmp_path: Path) -> None:
    """As it is published: text in a configuration of its own, what sees images, and layers that draft tokens."""
    text = {**hf_directories.CONFIGS["qwen35"], "mtp_num_hidden_layers": 1, "attn_output_gate": True}
    text |= {"mamba_ssm_dtype": "float32", "full_attention_interval": 4}
    theirs = {
        name.replace("model.", "model.language_model.", 1): values
        for name, values in hf_directories.their_weights(FAMILIES["qwen35"]).items()
    }
    theirs |= {"mtp.layers.0.mlp.up_proj.weight": np.ones((2, 3), np.float32)}
    theirs |= {"model.visual.merger.norm.weight": np.ones(3, np.float32)}
    config = {"model_type": "qwen3_5", "text_config": text, "vision_config": {"depth": 1}, "image_token_id": 7}
    folder = hf_directories.write_directory(tmp_path / "hf", config, theirs)
    assert off_by("qwen35", logits_of(folder)) < BOUND
    assert open_model(str(folder)).kind == "Hugging Face directory, without its 1 weights that see images"
    assert set(open_model(str(folder)).tensors) == set(families.tensors_of(FAMILIES["qwen35"]))


def test_lfm2_of_the_first_configurations(tmp_path: Path) -> None:
    """Layers that attend by their numbers, and a width that is computed: 2 / 3 of 120, in wholes of 32, is 96."""
    config = {**hf_directories.CONFIGS["lfm2"], "full_attn_idxs": [2], "block_ff_dim": 120, "block_multiple_of": 32}
    config |= {"block_auto_adjust_ff_dim": True, "rope_theta": 1e6, "num_heads": 4, "use_pos_enc": True}
    for key in ("layer_types", "rope_parameters", "intermediate_size", "head_dim", "norm_eps"):
        del config[key]
    tensors = hf_directories.their_weights(FAMILIES["lfm2"])
    folder = hf_directories.write_directory(tmp_path / "hf", config, tensors)
    assert off_by("lfm2", logits_of(folder)) < BOUND
    config["block_multiple_of"] = 64
    with pytest.raises(ModelFormatError, match=r"expected .*128"):
        CompiledModel.load(hf_directories.write_directory(folder, config, tensors))


def mxfp4(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Blocks and scales of rows, two neighbours a byte, and in place the values that they stand for."""
    blocks = values.reshape(*values.shape[:-1], -1, 32)
    table = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    scales = np.floor(np.log2(np.abs(blocks).max(-1))).astype(int) - 2 + 127
    step = np.exp2(scales - 127.0)[..., None]
    codes = np.abs((blocks / step)[..., None] - table).argmin(-1).astype(np.uint8)
    blocks[:] = table[codes] * step
    return codes[..., ::2] | codes[..., 1::2] << 4, scales.astype(np.uint8)


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("shards", [1, 3])
def test_gpt_oss_in_mxfp4(tmp_path: Path, device: str, shards: int) -> None:
    """As it is published: the same logits as of the values that its blocks stand for."""
    config = hf_directories.CONFIGS["gpt-oss"]
    family = replace(FAMILIES["gpt-oss"], expert_ffn=64)
    config = {**config, "intermediate_size": 64}
    tensors = hf_directories.their_weights(family)
    packed: Tensors = {}
    for name, values in tensors.items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            packed[name] = values
            continue
        rows = np.ascontiguousarray(values.swapaxes(1, 2))
        packed[f"{name}_blocks"], packed[f"{name}_scales"] = mxfp4(rows)
        tensors[name] = np.ascontiguousarray(rows.swapaxes(1, 2))
    expected = logits_of(hf_directories.write_directory(tmp_path / "f32", config, tensors), device)
    config |= {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}}
    config |= {"experts_per_token": 2, "initial_context_length": 64}
    folder = hf_directories.write_directory(tmp_path / "hf", config, packed, shards)
    found = logits_of(folder, device)
    # 15 bits of activations on the processor, where values in F32 have all of theirs
    assert np.abs(found - expected).max() < (1e-3 if device == "cpu" else BOUND) * np.ptp(expected)
    files = open_model(str(folder))
    assert files.tensors["blk.0.ffn_gate_exps.weight"] == ("MXFP4", (6 * 64, 64), 6 * 64 * 34)
    planned, model = CompiledModel.plan_file(folder, device=device), CompiledModel.load(folder, device)
    assert planned.weights_private == model.memory()["weights_private"]
    del packed["model.layers.1.mlp.experts.down_proj_scales"]
    with pytest.raises(ModelFormatError, match=r"blk\.1\.ffn_down_exps\.weight: expected blocks and scales, found one"):
        CompiledModel.load(hf_directories.write_directory(tmp_path / "torn", config, packed))


def gone(name: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.pop(name)


def cut(name: str, n: int) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name] = np.ascontiguousarray(tensors[name][:n])

    return change


def also(name: str, *shape: int) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name] = np.ones(shape, np.float32)

    return change


EXPERTS = "model.layers.1.mlp.experts"
TORN: list[tuple[str, Callable[[Tensors], None], str]] = [
    ("qwen3moe", gone(f"{EXPERTS}.3.up_proj.weight"), r"blk\.1\.ffn_up_exps\.weight: expected a tensor of each expert"),
    ("qwen3moe", gone(f"{EXPERTS}.7.up_proj.weight"), r"ffn_up_exps\.weight\": expected \[8, 40, 64\], found \[7, 40"),
    ("qwen3moe", cut(f"{EXPERTS}.3.up_proj.weight", 39), r"3\.up_proj\.weight\" as f32 \[40, 64\], like .*\[39, 64\]"),
    ("qwen3moe", also(f"{EXPERTS}.gate_up_proj", 8, 80, 64), r"expected what makes blk\.1\.ffn_gate_exps\.weight once"),
    ("qwen3moe", also(f"{EXPERTS}.3.wobble.weight", 2), r"no others, found 'model\.layers\.1\.mlp\.experts\.3\.wobble"),
    (
        "granitemoe",
        cut("model.layers.1.block_sparse_moe.input_linear.weight", 4),
        r"expected \[5, 96, 64\], found \[4,",
    ),
    ("granitemoe", also("model.layers.1.block_sparse_moe.output_linear.weight", 3, 4), r"expected 3 dimensions, exp"),
    ("gpt-oss", gone("model.layers.2.self_attn.sinks"), r'no tensor "blk\.2\.attn_sinks\.weight"'),
    ("lfm2", gone("model.layers.0.conv.conv.weight"), r'no tensor "blk\.0\.shortconv\.conv\.weight"'),
    ("qwen35", cut("model.layers.0.linear_attn.in_proj_z.weight", 30), "expected a divisor of 30, found 4"),
    ("qwen35", cut("model.layers.0.linear_attn.in_proj_qkv.weight", 30), r"expected \[128, 64\], found \[30, 64\]"),
]


@pytest.mark.parametrize(("name", "change", "said"), TORN, ids=[f"{one[0]}-{one[2][:20]}" for one in TORN])
def test_tensors_that_do_not_fit_together_are_refused_by_name(
    tmp_path: Path, name: str, change: Callable[[Tensors], None], said: str
) -> None:
    tensors = hf_directories.their_weights(FAMILIES[name])
    change(tensors)
    folder = hf_directories.write_directory(tmp_path / "hf", hf_directories.CONFIGS[name], tensors)
    for opened in (CompiledModel.load, CompiledModel.plan_file):
        with pytest.raises(ModelFormatError, match=said):
            opened(folder)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("qwen3moe", {"decoder_sparse_step": 2}, "decoder_sparse_step: expected 1, found 2"),
    ("qwen3moe", {"mlp_only_layers": [0]}, r"mlp_only_layers: expected \[\], found \[0\]"),
    ("qwen3moe", {"num_local_experts": None}, "expert_count: expected a whole number"),
    ("qwen3moe", {"num_experts_per_tok": 9}, "expert_used_count: expected at most the 8 experts"),
    ("gpt-oss", {"swiglu_limit": 5.0}, "swiglu_clamp_exp: expected 0 or 7"),
    ("gpt-oss", {"swiglu_alpha": 1.5}, "swiglu_alpha: expected 1.702, found 1.5"),
    ("gpt-oss", {"quantization_config": {"quant_method": "awq"}}, "F32, F16 or BF16 or mxfp4, found 'awq'"),
    ("gpt-oss", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "truncate: expected false, found true"),
    ("lfm2", {"layer_types": ["conv", "wobble"]}, "layer_types: expected full_attention or conv for each"),
    ("lfm2", {"layer_types": ["conv", "full_attention"]}, "expected a number for each of 4 layers, found 2"),
    ("lfm2", {"layer_types": None, "full_attn_idxs": None}, r"no others, found 'blk\.0\.shortconv"),
    ("lfm2", {"num_hidden_layers": "x"}, "num_hidden_layers: expected a whole number"),
    ("lfm2", {"num_hidden_layers": 1 << 30}, "num_hidden_layers: expected a whole number from 1 to 65536"),
    ("lfm2", {"block_auto_adjust_ff_dim": True, "block_multiple_of": 0}, "block_multiple_of: expected a whole number"),
    (
        "lfm2",
        {"block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": "x"},
        "multiplier: expected a number above",
    ),
    ("lfm2", {"tie_embedding": False}, "tie_embedding: expected True, found False"),
    ("qwen35", {"linear_num_key_heads": 3}, "linear_num_value_heads: expected a multiple of the 3 heads"),
    ("qwen35", {"linear_num_value_heads": 1 << 40}, "linear_num_value_heads: expected a whole number from 1 to"),
    ("qwen35", {"linear_key_head_dim": 0}, "linear_key_head_dim: expected a whole number from 1 to 256"),
    ("qwen35", {"attn_output_gate": False}, "attn_output_gate: expected True, found False"),
    ("qwen35", {"hidden_act": "relu"}, "hidden_activation: expected 'silu', found 'relu'"),
]


@pytest.mark.parametrize(("name", "changes", "said"), REFUSED, ids=str)
def test_a_configuration_that_asks_for_something_else_is_refused_by_name(
    tmp_path: Path, name: str, changes: dict[str, Any], said: str
) -> None:
    folder = hf_directories.write(tmp_path / "hf", name)
    (folder / "config.json").write_text(json.dumps(hf_directories.CONFIGS[name] | changes), encoding="utf-8")
    for opened in (CompiledModel.load, CompiledModel.plan_file):
        with pytest.raises(ModelFormatError, match=said):
            opened(folder)
