"""What a file says of its model is done, or refused by name: no tensor and no key is left out in silence."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import synthetic
from foundry import CompiledModel, ModelFormatError, _core
from foundry.models import build_graph
from foundry.models.understood import HARMLESS_KEYS, OFF, OFF_GROUPS

Tiny = Callable[..., Path]
GEMMA = {"arch": "gemma3", "window": 16, "layers": 3}
SHAPES = [{}, {"arch": "qwen2"}, GEMMA, {"window": 16}, {"rope_factors": True, "tied": False}]


def of(path: Path, **changes: Any) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    file = _core.GgufFile(str(path))
    metadata = {k: v for k, v in {**file.metadata, **changes}.items() if v is not None}
    return metadata, {name: shape for name, (_, shape, _) in file.tensors.items()}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_tensor_of_a_plain_file_is_used(tiny_path: Tiny, shape: dict[str, Any]) -> None:
    metadata, tensors = of(tiny_path(**shape))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(build_graph(metadata, tensors).weight_names()) == tensors.keys()


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ({}, "output_norm.bias"),
        ({}, "blk.0.attn_q_norm.weight"),
        ({}, "blk.1.attn_norm.bias"),
        ({}, "blk.0.attn_sinks.weight"),
        ({}, "blk.0.ffn_gate_inp.weight"),
        ({}, "blk.0.ffn_norm.bias"),
        ({}, "blk.1.post_attention_norm.weight"),
        ({}, "blk.0.attn_q.scale"),
        ({}, "blk.0.ffn_down.input_scale"),
        ({}, "blk.2.attn_norm.weight"),  # of a layer past block_count
        ({}, "rope_factors_long.weight"),
        ({}, "rope_factors_short.weight"),
        ({}, "token_embd_norm.weight"),
        ({}, "position_embd.weight"),
        ({}, "blk.0.attn_q.weight.lora_a"),
        ({"arch": "qwen2"}, "blk.0.attn_k_norm.weight"),
        (GEMMA, "rope_freqs.weight"),
        (GEMMA, "blk.0.layer_output_scale.weight"),
    ],
)
def test_a_tensor_that_is_not_used_is_refused_by_name(tiny_path: Tiny, shape: dict[str, Any], name: str) -> None:
    metadata, tensors = of(tiny_path(**shape))
    with pytest.raises(ModelFormatError, match="found '" + name.replace(".", r"\.")):
        build_graph(metadata, {**tensors, name: (1, 64)})
    with pytest.raises(ModelFormatError, match="and 1 more"):
        build_graph(metadata, {**tensors, name: (1, 64), "zzz": (1, 1)})


@pytest.mark.parametrize(
    "name",
    [
        "blk.0.attn_rot_embd",
        "blk.1.attn_rot_embd.weight",
        "rope.freqs",
        "layers.0.attention.rotary_emb.inv_freq",
        "v.blk.0.attn_q.weight",
        "mm.input_projection.weight",
    ],
)
def test_tensors_that_change_nothing_are_let_be(tiny_path: Tiny, name: str) -> None:
    metadata, tensors = of(tiny_path())
    built = build_graph(metadata, {**tensors, name: (1, 8)})
    assert built.serialize() == build_graph(metadata, tensors).serialize()


ASKING = {
    **{key: 2.5 for key in OFF},
    **{group + "x": 4 for group in OFF_GROUPS},
    "attention.causal": False,
    "use_parallel_residual": True,
    "swiglu_clamp_exp": [0.0, 7.0],
    "rope.dimension_sections": [8, 4, 4, 0],
    "attention.scale": 0.5,
    "embedding_scale": 12.0,
    "hidden_activation": "relu",
    "embedding_length_out": 32,
}


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3"])
def test_a_key_that_asks_for_more_is_refused_by_name(tiny_path: Tiny, arch: str) -> None:
    metadata, tensors = of(tiny_path(**(GEMMA if arch == "gemma3" else {"arch": arch})))
    for key, value in ASKING.items():
        if arch == "gemma3" and key in ("attention.scale", "final_logit_softcapping"):
            continue  # it is done
        with pytest.raises(ModelFormatError, match=r"expected .*, found ") as caught:
            build_graph({**metadata, f"{arch}.{key}": value}, tensors)
        assert str(caught.value).startswith(f"{arch}.{key}: "), caught.value


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3"])
def test_a_key_that_asks_for_what_is_done_anyway_is_taken(tiny_path: Tiny, arch: str) -> None:
    metadata, tensors = of(tiny_path(**(GEMMA if arch == "gemma3" else {"arch": arch})))
    plain = build_graph(metadata, tensors).serialize()
    off: dict[str, Any] = {key: value for key, values in OFF.items() for value in values}
    off |= {group + "x": 0 for group in OFF_GROUPS} | {key: 77 for key in HARMLESS_KEYS}
    off |= {
        "attention.scale": float(np.float32(1 / math.sqrt(16))),
        "embedding_scale": math.sqrt(64) if arch == "gemma3" else 1.0,
        "hidden_activation": "gelu_pytorch_tanh" if arch == "gemma3" else "silu",
        "swiglu_clamp_exp": [0.0, 0.0],
        "expert_gating_func": 1,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for key, value in off.items():
            assert build_graph({**metadata, f"{arch}.{key}": value}, tensors).serialize() == plain, key


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"llama.attention.sliding_window_pattern": [True, False, True]}, "each of 2 layers, found 3 values"),
        ({"llama.rope.freq_base_swa": 5e5}, "expected 10000, found 500000"),
        ({"llama.attention.key_length_swa": 8}, "expected 16, found 8"),
        ({"llama.rope.dimension_count_swa": 8}, "expected 16, found 8"),
    ],
    ids=str,
)
def test_windows_of_another_kind_are_refused(tiny_path: Tiny, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelFormatError, match=said):
        build_graph(*of(tiny_path(window=16), **changes))
    build_graph(*of(tiny_path(), **changes))  # without a window they say nothing


def test_a_key_that_nobody_knows_is_told_once(tiny_path: Tiny) -> None:
    metadata, tensors = of(tiny_path(), **{"llama.attention.wobble": 3, "llama.new": "x", "general.anything": 1})
    with pytest.warns(UserWarning, match=r"not known.*: llama\.attention\.wobble, llama\.new$") as told:
        build_graph(metadata, tensors)
    assert len(told) == 1


@pytest.mark.parametrize("kind", ["adapter", "mmproj", "imatrix", "vocab"])
def test_files_that_are_no_model_say_so(tiny_path: Tiny, kind: str) -> None:
    with pytest.raises(ModelFormatError, match=f"general.type: expected model, found '{kind}'"):
        build_graph(*of(tiny_path(), **{"general.type": kind}))


def write(path: Path, keys: dict[str, int], tensors: dict[str, np.ndarray[Any, Any]]) -> Path:
    writer = gguf.GGUFWriter(str(path), "llama")
    for key, value in keys.items():
        writer.add_uint16(key, value)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path


def test_a_part_that_only_its_name_tells(tmp_path: Path) -> None:
    path = write(tmp_path / "m-Q8_0-00002-of-00004.gguf", {}, {"a": np.zeros(32, np.float32)})
    with pytest.raises(ModelFormatError, match=r"no tensor|expected") as caught:
        CompiledModel.load(path)
    assert "part 2 of 4" in str(caught.value) and "All 4 parts" in str(caught.value)


def test_one_part_of_one_is_whole(tmp_path: Path) -> None:
    path = synthetic.write(tmp_path / "m-00001-of-00001.gguf")
    build_graph(*of(path, **{"split.no": 0, "split.count": 1}))
    CompiledModel.load(synthetic.write(tmp_path / "m-00001-of-00002.gguf"))  # it has everything, whatever its name


def test_what_is_refused_is_refused_before_weights_are_prepared(tiny_path: Tiny, tmp_path: Path) -> None:
    whole = tiny_path().read_bytes()
    old = b"llama.rope.freq_base"
    assert whole.count(old) == 1  # a key of the same length, whose value 10000.0 is no residual scale
    path = tmp_path / "x.gguf"
    path.write_bytes(whole.replace(old, b"llama.residual_scale"))
    told: list[float] = []
    with pytest.raises(ModelFormatError, match=r"llama\.residual_scale: expected 0 or 1, found 10000"):
        CompiledModel.load(path, progress=told.append)
    assert told == []
