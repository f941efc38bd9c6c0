"""Model directories in Hugging Face's form: the same answers as of the GGUF file that a converter makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import families
import gguf
import hf_directories
import numpy as np
import pytest
import safetensors.numpy
import synthetic
from families import FAMILIES
from foundry import CompiledModel, ModelFormatError
from foundry.cli import main
from foundry.files import open_model
from test_families import BOUND, logits_of, off_by

# Exaone and InternLM2 have no class in transformers; their oracle is Llama's, under other names.
NOT_THEIRS = ("exaone", "internlm2", "llama fused qkv, head_dim 20")
THEIRS = [name for name in FAMILIES if name not in NOT_THEIRS]


@pytest.mark.parametrize("name", THEIRS)
def test_logits_are_those_of_transformers_and_of_the_gguf_file(tmp_path: Path, name: str) -> None:
    folder = hf_directories.write(tmp_path / "hf", name)
    found = logits_of(folder)
    of_gguf = logits_of(families.write(tmp_path / "m.gguf", FAMILIES[name]))
    off, beside = off_by(name, found), float(np.abs(found - of_gguf).max() / np.ptp(of_gguf))
    print(f"\n{name}: {off:.1e} of the range from transformers, {beside:.1e} from the GGUF file")
    assert off < BOUND and beside < BOUND


def directory(tmp_path: Path, name: str = "qwen3", **changes: Any) -> Path:
    """One whose config.json has these keys too; None: without."""
    folder = hf_directories.write(tmp_path / "hf", name)
    config = {k: v for k, v in {**hf_directories.CONFIGS[name], **changes}.items() if v != "absent"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_biases_and_heads_of_twenty_dims(tmp_path: Path) -> None:
    """GGUF's fused QKV is three weights there, each reordered; transformers has no bias of the output."""
    fused = "llama fused qkv, head_dim 20"
    tensors = hf_directories.their_weights(FAMILIES[fused])
    folder = hf_directories.write_directory(tmp_path / "hf", hf_directories.CONFIGS[fused], tensors)
    assert off_by(fused, logits_of(folder)) < BOUND


def test_exaones_names(tmp_path: Path) -> None:
    """Of a configuration of version 4, and llama3's scaling, whose divisors its GGUF file has as a tensor."""
    family = replace(FAMILIES["exaone"], factors={})
    names = {
        "model.embed_tokens": "transformer.wte",
        "model.norm": "transformer.ln_f",
        "model.layers": "transformer.h",
        "self_attn.o_proj": "attn.attention.out_proj",
        "self_attn": "attn.attention",
        "post_attention_layernorm": "ln_2",
        "input_layernorm": "ln_1",
        "mlp.gate_proj": "mlp.c_fc_0",
        "mlp.up_proj": "mlp.c_fc_1",
        "mlp.down_proj": "mlp.c_proj",
    }
    tensors = {}
    for name, values in hf_directories.their_weights(family).items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        tensors[name] = values
    llama3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    config = {
        "model_type": "exaone",
        "activation_function": "silu",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": families.CONTEXT,
        "rope_theta": 10000,
        "rope_scaling": {"rope_type": "llama3", **llama3},
        "tie_word_embeddings": False,
    }
    found = logits_of(hf_directories.write_directory(tmp_path / "hf", config, tensors))
    # llama.cpp's converter, Llama 3: a wavelength of the original context / high and shorter stays, and so on.
    divisors = []
    for i in range(8):
        wave = 2 * np.pi * 10000 ** (i / 8)
        if wave < 64 / 4:
            divisors.append(1.0)
        elif wave > 64 / 1:
            divisors.append(8.0)
        else:
            smooth = (64 / wave - 1) / (4 - 1)
            divisors.append(1 / ((1 - smooth) / 8 + smooth))
    assert len(set(divisors)) > 3
    family = replace(family, factors={"rope_freqs.weight": tuple(divisors)})
    of_gguf = logits_of(families.write(tmp_path / "m.gguf", family))
    assert np.abs(found - of_gguf).max() < BOUND * np.ptp(of_gguf)


def test_gemma3_beside_images(tmp_path: Path) -> None:
    """Its text lies in a configuration and under names of its own, and what sees images is left out."""
    shape = synthetic.Shape(arch="gemma3", layers=4, window=24, type="f32")
    path = synthetic.write(tmp_path / "m.gguf", shape)
    tensors = {t.name: np.array(t.data) for t in gguf.GGUFReader(path).tensors}
    theirs = hf_directories.their_tensors("gemma3", tensors, shape.heads, shape.kv_heads)
    theirs = {name.replace("model.", "language_model.model.", 1): values for name, values in theirs.items()}
    theirs["vision_tower.vision_model.head.weight"] = np.ones((2, 3), np.int8)
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 512,
        "sliding_window": 24,
        "sliding_window_pattern": 3,
        "rope_theta": 10000.0,
    }
    config = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 3}, "eos_token_id": [1]}
    folder = hf_directories.write_directory(tmp_path / "hf", config, theirs)
    found, of_gguf = logits_of(folder), logits_of(path)
    assert np.abs(found - of_gguf).max() < BOUND * np.ptp(of_gguf)
    text["query_pre_attn_scalar"] = 64
    hf_directories.write_directory(folder, config, theirs)
    assert np.abs(logits_of(folder) - of_gguf).max() > 100 * BOUND * np.ptp(of_gguf)


def test_qwen3_vl_beside_images(tmp_path: Path) -> None:
    """As transformers writes it: text in a configuration of its own, sections of rope, and both parts under names of
    their own. What sees images is left out, and told."""
    text = {**hf_directories.CONFIGS["qwen3vl"], "tie_word_embeddings": False}
    text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
    text["rope_scaling"] = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    theirs = {
        name.replace("model.", "model.language_model.", 1): values
        for name, values in hf_directories.their_weights(FAMILIES["qwen3vl"]).items()
    }
    theirs |= {"lm_head.weight": theirs["model.language_model.embed_tokens.weight"].copy()}
    theirs |= {f"model.visual.{name}.weight": np.ones((2, 3), np.int8) for name in ("patch_embed.proj", "merger.norm")}
    config = {
        "model_type": "qwen3_vl",
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "image_token_id": 151655,
        "text_config": text,
        "vision_config": {"model_type": "qwen3_vl", "depth": 1, "deepstack_visual_indexes": [0]},
    }
    folder = hf_directories.write_directory(tmp_path / "hf", config, theirs, shards=2)
    assert off_by("qwen3vl", logits_of(folder)) < BOUND
    files = open_model(str(folder))
    assert files.kind == "Hugging Face directory, without its 2 weights that see images"
    assert set(files.tensors) == {*families.tensors_of(FAMILIES["qwen3vl"]), "output.weight"}
    theirs["model.visual_of_another.weight"] = np.ones((2, 3), np.float32)
    hf_directories.write_directory(folder, config, theirs, shards=2)
    with pytest.raises(ModelFormatError, match=r"no others, found 'model\.visual_of_another\.weight'"):
        CompiledModel.load(folder)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["gemma2", "starcoder2", "llama yarn"])
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_halves_are_the_numbers_that_they_are(tmp_path: Path, name: str, kind: str, device: str) -> None:
    """Norms and biases too, which GGUF files have in F32: as the same numbers in F32. The plan counts their copies."""
    tensors = hf_directories.their_weights(FAMILIES[name])
    config = hf_directories.CONFIGS[name]
    half = hf_directories.write_directory(tmp_path / "half", config, tensors, kind=kind)
    same = {key: hf_directories.rounded(values, kind) for key, values in tensors.items()}
    found = logits_of(half, device)
    expected = logits_of(hf_directories.write_directory(tmp_path / "f32", config, same), device)
    assert np.abs(found - expected).max() < BOUND * np.ptp(expected)
    planned = CompiledModel.plan_file(half, device=device, threads=1)
    model = CompiledModel.load(half, device, threads=1)
    assert planned.weights_mapped == model.memory()["weights_mapped"]
    assert planned.weights_private == model.memory()["weights_private"]
    if device == "reference":
        vectors = [values for values in tensors.values() if values.ndim == 1]
        assert planned.weights_private == sum(4 * len(one) for one in vectors) + 4 * len(_constants(model))


def _constants(model: CompiledModel) -> list[float]:
    """Of yarn, the divisors of each layer's rope."""
    return [0.0] * (8 if "yarn" in model._files.metadata.get("llama.rope.scaling.type", "") else 0)


@pytest.mark.parametrize("shards", [1, 3])
def test_shards_are_one_model(tmp_path: Path, shards: int) -> None:
    """The same logits, plan and text, and saves that belong to all of them."""
    one = CompiledModel.load(hf_directories.write(tmp_path / "one", "qwen3"))
    model = CompiledModel.load(folder := hf_directories.write(tmp_path / "hf", "qwen3", shards))
    with one.session() as a, model.session() as b:
        assert np.array_equal(a.forward([5, 6, 7]), b.forward([5, 6, 7]))
        b.save(tmp_path / "s.kv")
    assert CompiledModel.load(folder).restore(tmp_path / "s.kv").position == 3
    weights = next(folder.glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelFormatError, match="model"):
        CompiledModel.load(folder).restore(tmp_path / "s.kv")


def test_saves_are_not_those_of_the_gguf_file(tmp_path: Path) -> None:
    """Their Q and K are in other orders."""
    model = CompiledModel.load(hf_directories.write(tmp_path / "hf", "llama yarn"))
    with model.session() as session:
        session.forward([1, 2])
        session.save(tmp_path / "s.kv")
    with pytest.raises(ModelFormatError, match="model"):
        CompiledModel.load(families.write(tmp_path / "m.gguf", FAMILIES["llama yarn"])).restore(tmp_path / "s.kv")


def test_a_directory_is_a_model_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = hf_directories.write(tmp_path / "hf", "qwen3", 2)
    assert open_model(str(folder)).kind == "Hugging Face directory"
    planned, model = CompiledModel.plan_file(folder, 8, 8), CompiledModel.load(folder)
    assert replace(planned, available=0) == replace(model.plan(8, 8), available=0, needed=planned.needed)
    with model.session() as session:
        answer = session.chat([{"role": "user", "content": "Hi"}], max_new_tokens=4)
        assert answer.usage.prompt_tokens == len("<|user\nHi|>\n|assistant\n") + 1 - 3
    assert main(["generate", "Hi", "--model", str(folder), "--max-new-tokens", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"]["completion_tokens"] <= 3
    assert main(["inspect", str(folder)]) == 0 and main(["plan", str(folder)]) == 0
    assert "Hugging Face directory" in capsys.readouterr().out


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("qwen3", {"model_type": "olmoe", "num_experts": 8}, "found 'olmoe', a mixture of experts, which is not"),
    ("qwen3", {"model_type": "lama"}, "found 'lama'; the nearest is 'llama'"),
    ("qwen3", {"model_type": "internlm2"}, "model_type 'internlm2': its Q, K and V lie mixed .* GGUF files are read"),
    ("qwen3", {"model_type": None}, "found None"),
    ("qwen3", {"num_local_experts": 8}, "num_local_experts: expected 0, found 8"),
    ("qwen3", {"quantization_config": {"quant_method": "awq"}}, "quantization_config: expected .*, found 'awq'"),
    ("qwen3", {"rope_scaling": {"rope_type": "dynamic", "factor": 2}, "rope_parameters": None}, "found 'dynamic'"),
    ("qwen3", {"rope_parameters": {"rope_type": ["yarn"]}}, r"rope_type: expected .*, found \['yarn'\]"),
    ("qwen3", {"rope_parameters": {"rope_type": "yarn", "factor": "4"}}, "factor: expected a number above 0"),
    ("qwen3", {"rope_parameters": 5}, "rope_parameters: expected keys and values, found 5"),
    ("qwen3", {"head_dim": 1 << 40}, "head_dim: expected a whole number from 1 to 65536"),
    ("qwen3", {"hidden_act": "relu"}, "hidden_activation: expected 'silu' or 'swiglu', found 'relu'"),
    ("qwen3", {"hidden_act": {}}, "hidden_act: expected a plain value"),
    ("qwen3", {"num_hidden_layers": 5}, "block_count is 5, but the file has no tensor"),
    ("qwen3", {"num_hidden_layers": 3}, "expected those of a qwen3 with 3 layers and no others, found 'blk.3"),
    ("qwen3", {"num_attention_heads": "x"}, "attention.head_count: expected a whole number"),
    ("qwen3", {"max_position_embeddings": "absent"}, "context_length: expected a whole number"),
    ("qwen3", {"layer_types": ["chunked_attention"] * 4}, "layer_types: expected sliding_attention or full_attention"),
    ("qwen3", {"text_config": []}, "text_config: expected keys and values"),
    ("qwen3", {"use_bidirectional_attention": True}, "use_bidirectional_attention: expected False, found True"),
    ("smollm3", {"no_rope_layers": [1, 0]}, "expected yes or no for each of 4 layers"),
    ("phi3 long", {"rope_scaling": None, "rope_parameters": {"rope_type": "longrope"}}, "short_factor: expected 6 num"),
    ("qwen3", {"tie_word_embeddings": False}, "expected lm_head.weight, for by config.json"),
]


@pytest.mark.parametrize(("name", "changes", "said"), REFUSED, ids=str)
def test_what_is_not_read_is_refused_by_name(tmp_path: Path, name: str, changes: dict[str, Any], said: str) -> None:
    folder = directory(tmp_path, name, **changes)
    for opened in (CompiledModel.load, CompiledModel.plan_file):
        with pytest.raises(ModelFormatError, match=said):
            opened(folder)


def test_keys_that_nobody_knows_are_warned_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="keys that are not known, .*: attention_wobble"):
        CompiledModel.load(directory(tmp_path, attention_wobble=0.5))


def test_a_window_that_is_not_used_is_none(tmp_path: Path) -> None:
    """As Qwen's have it; where the key is missing it is not used either."""
    for said in (False, "absent"):
        folder = directory(tmp_path, sliding_window=4, use_sliding_window=said, layer_types="absent")
        assert off_by("qwen3", logits_of(folder)) < BOUND
    used = directory(tmp_path, sliding_window=4, use_sliding_window=True, max_window_layers=1, layer_types="absent")
    assert off_by("qwen3", logits_of(used)) > 10 * BOUND


def test_layers_without_positions_are_the_configurations(tmp_path: Path) -> None:
    same = directory(tmp_path, "smollm3", no_rope_layers=[1, 1, 1, 0])
    assert off_by("smollm3", logits_of(same)) < BOUND
    assert off_by("smollm3", logits_of(directory(tmp_path, "smollm3", no_rope_layers=[1, 0, 1, 1]))) > 10 * BOUND


def test_weights_that_are_not_there_are_told(tmp_path: Path) -> None:
    folder = directory(tmp_path)
    weights = folder / "model.safetensors"
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelFormatError, match=r"expected weights in .*, found pytorch_model.bin; pickled weights are"):
        CompiledModel.load(folder)
    (folder / "config.json").unlink()
    (folder / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelFormatError, match=r"found no config.json; of the GGUF files there name one: x\.gguf"):
        CompiledModel.load(folder)


INDICES: list[tuple[Any, str]] = [
    ({}, "weight_map: expected a file for each tensor"),
    ({"weight_map": {"a": "../secret.safetensors"}}, "weight_map: expected names of files beside it, found '../secret"),
    ({"weight_map": {"a": "gone.safetensors"}}, r"gone.safetensors: expected the file, as .* has it, found none"),
    ({"weight_map": {"a": "shard.safetensors"}}, "shard.safetensors: expected tensor 'a', as .* has it, found none"),
    ({"weight_map": {"model.norm.weight": 7}}, "weight_map: expected a file for each tensor"),
]


@pytest.mark.parametrize(("index", "said"), INDICES, ids=str)
def test_an_index_that_does_not_agree_is_refused(tmp_path: Path, index: Any, said: str) -> None:
    folder = directory(tmp_path)
    (folder / "model.safetensors").rename(folder / "shard.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ModelFormatError, match=said):
        CompiledModel.load(folder)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = hf_directories.write(tmp_path / "hf", "qwen3", 2)
    last = folder / "model-00002-of-00002.safetensors"
    both = safetensors.numpy.load_file(last) | {"model.embed_tokens.weight": np.ones((259, 64), np.float32)}
    safetensors.numpy.save_file(both, last)
    with pytest.raises(ModelFormatError, match=r"tensor \"token_embd.weight\": expected each name once, found it in"):
        CompiledModel.load(folder)


def test_other_types_of_weights_are_refused_by_name(tmp_path: Path) -> None:
    folder = hf_directories.write(tmp_path / "hf", "qwen3")
    tensors = hf_directories.their_weights(FAMILIES["qwen3"])
    tensors["model.norm.weight"] = np.ones(64, np.int8)
    hf_directories.write_directory(folder, hf_directories.CONFIGS["qwen3"], tensors)
    with pytest.raises(ModelFormatError, match=r"'model.norm.weight': expected F32, F16, BF16, found I8 of 64 bytes"):
        CompiledModel.load(folder)
    tensors["model.norm.weight"] = np.ones(64, np.float32)
    tensors["model.layers.0.mlp.wobble.weight"] = np.ones(64, np.float32)
    hf_directories.write_directory(folder, hf_directories.CONFIGS["qwen3"], tensors)
    with pytest.raises(ModelFormatError, match=r"no others, found 'model.layers.0.mlp.wobble.weight'"):
        CompiledModel.load(folder)
