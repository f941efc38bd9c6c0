"""What README's table of support says, cell by cell: each test notes its cell and how much it has compared.

``tests/support_table.py`` runs these and writes the table. What other tests do in more depth by default is slow here.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import families
import gguf
import numpy as np
import pytest
import synthetic
import test_families
import test_formats
import test_oracle
import test_templates
import test_tokenizer_oracle
from conftest import exact_devices, is_gpu
from family_vocabularies import TOKENIZERS, same_pre
from foundry import CompiledModel, ModelFormatError, _core
from foundry._core import device_names
from foundry.models import architectures
from foundry.tokenizer import Tokenizer
from llama_cpp_files import models
from numpy_decoder import NumpyDecoder
from tokenizer_cases import pre_texts, vocabulary_texts, with_pre

Note = Callable[[str, object], None]
IDS = [int(i) for i in np.random.default_rng(3).integers(0, 256, 75)]
WINDOW = 24
HOST_ONLY = [f.name for f in _core.formats() if f.linear == _core.Readers.host]
DEVICES = [pytest.param(name, marks=[] if name == "cpu" else pytest.mark.slow) for name in exact_devices()]

# How the chat templates of a family's models are named among those of llama.cpp's tests.
TEMPLATES = {
    "llama": ("meta-llama", "mistralai-Mistral", "Mistral-Small", "unsloth-mistral", "Distill-Llama", "NousResearch"),
    "qwen2": ("Qwen2.5", "QwQ", "Distill-Qwen"),
    "qwen3": ("Qwen-Qwen3-0.6B",),
    "qwen3moe": ("Qwen-Qwen3-0.6B",),
    "gemma2": ("gemma-2-",),
    "gpt-oss": ("openai-gpt-oss",),
    "mistral3": ("Ministral-3",),
    "smollm3": ("SmolLM3",),
    "granite": ("granite-3.3",),
    "granitemoe": ("granite-3.3",),
    "phi3": ("Phi-3.5",),
}
# A small file of each; of the families that have windows one with them.
SMALL = {arch: next((one for one in families.FAMILIES.values() if one.arch == arch), None) for arch in architectures}
WINDOWED = {one.arch: one for one in families.FAMILIES.values() if "attention.sliding_window" in one.keys}


@pytest.fixture
def note(record_property: Note) -> Note:
    """Notes the cell, before anything can fail, and then how much has been compared."""
    return record_property


def small(arch: str, tmp_path: Path, tiny_path: Callable[..., Path], windowed: bool = False) -> Path:
    family = WINDOWED.get(arch) if windowed else SMALL[arch]
    if family is None:
        return tiny_path(arch=arch, layers=3, window=WINDOW)
    return families.write(tmp_path / "m.gguf", family)


def load(path: Path, **options: Any) -> CompiledModel:
    return CompiledModel.load(path, threads=1, page_tokens=8, chunk_tokens=32, check_every_step=True, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", [f.name for f in _core.formats()])
def test_blocks_are_ggmls(note: Note, name: str) -> None:
    form = next(f for f in _core.formats() if f.name == name)
    note("cell", f"formats|{form.file_name}|blocks")
    test_formats.test_values_are_ggmls_bit_for_bit([f.name for f in _core.formats()].index(name))
    note("checked", 4000)


@pytest.mark.slow
@pytest.mark.parametrize("device", device_names())
@pytest.mark.parametrize("name", synthetic.TYPES)
def test_weights_of_each_format(note: Note, tiny_path: Callable[..., Path], name: str, device: str) -> None:
    """Logits beside a float64 forward pass, of a model whose layers and table are in the format. What a GPU does not
    read it refuses by name."""
    note("cell", f"formats|{gguf.GGMLQuantizationType(synthetic.TYPES[name]).name}|{device}")
    path = tiny_path(**synthetic.of_type(name))
    if name in HOST_ONLY and is_gpu(device):
        with pytest.raises(ModelFormatError, match=f"on a GPU, found {name}$"):
            CompiledModel.load(path, device=device)
        note("checked", 0)
        return
    expected = NumpyDecoder(path).forward(IDS)
    with CompiledModel.load(path, device=device, kv_dtype="f32", page_tokens=16).session() as s:
        found = s.forward(IDS, all_logits=True)
    assert np.abs(found - expected).max() < 5e-3 * expected.std()
    note("checked", len(IDS))


@pytest.mark.slow
@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("name", [*families.FAMILIES, "gemma3"])
def test_logits(note: Note, tmp_path: Path, tiny_path: Callable[..., Path], name: str, device: str) -> None:
    note("cell", f"families|{families.FAMILIES[name].arch if name in families.FAMILIES else name}|logits")
    if name == "gemma3":
        test_oracle.test_gemma3_beside_hugging_face(tiny_path, device)
        note("checked", len(test_oracle.oracle("gemma3.json")["logits"]))
    else:
        test_families.test_logits_are_those_of_transformers(tmp_path, name, device)
        note("checked", len(test_families.ORACLE["positions"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({name for names in TOKENIZERS.values() for name in names}))
def test_tokenizer(note: Note, tmp_path: Path, name: str) -> None:
    note("cell", ",".join(f"families|{arch}|tokenizer" for arch, names in TOKENIZERS.items() if name in names))
    oracle = test_tokenizer_oracle.ORACLE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.startswith("pre:"):
            pre, vocabulary = same_pre(name)
            path = with_pre(models() / f"ggml-vocab-{vocabulary}.gguf", pre, tmp_path / "vocabulary")
            texts, expected = pre_texts(), oracle["pre_tokenizers"][pre]
            metadata = _core.GgufFile(str(path)).metadata
        else:
            metadata = _core.GgufFile(str(models() / f"ggml-vocab-{name}.gguf")).metadata
            texts, expected = vocabulary_texts(metadata), oracle["vocabularies"][name]
        assert test_tokenizer_oracle.differing(Tokenizer(metadata), texts, expected) == []
    note("checked", 2 * len(texts))


def public_templates() -> Iterator[tuple[str, str]]:
    for arch, parts in TEMPLATES.items():
        for template in test_templates.ORACLE["public"]:
            if any(part in template for part in parts):
                yield arch, template


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "template"), [*public_templates()])
def test_template(note: Note, monkeypatch: pytest.MonkeyPatch, arch: str, template: str) -> None:
    """Those conversations that transformers renders."""
    note("cell", f"families|{arch}|template")
    monkeypatch.setattr("foundry.chat.environment.datetime", test_templates.Then)
    source = (models() / "templates" / template).read_text(encoding="utf-8")
    oracle, compared = test_templates.ORACLE, 0
    for conversation, expected in oracle["public"][template].items():
        if expected is not None:
            text = test_templates.rendered(source, **json.loads(json.dumps(oracle["conversations"][conversation])))
            assert hashlib.sha256(text.encode()).hexdigest()[:16] == expected.partition(" ")[0], conversation
            compared += 1
    assert compared
    note("checked", compared)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("arch", [*WINDOWED, "gemma3"])
def test_windows(note: Note, tmp_path: Path, tiny_path: Callable[..., Path], arch: str, device: str) -> None:
    """Token by token far past the window, where a layer that has one holds no more than it and a page: the same bits as
    in chunks."""
    note("cell", f"families|{arch}|windows")
    path = small(arch, tmp_path, tiny_path, windowed=True)
    model = load(path, device=device)
    with model.session() as chunks, model.session() as single:
        expected = chunks.forward(IDS, all_logits=True)
        found = np.stack([single.forward([i]) for i in IDS])
        groups = [group for group in single.globals["groups"] if group["window"]]
        assert groups and all(group["n_pages"] - group["first_page"] <= WINDOW // 8 + 2 for group in groups)
    assert np.array_equal(found, expected)
    note("checked", len(IDS))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("arch", architectures)
def test_save(note: Note, tmp_path: Path, tiny_path: Callable[..., Path], arch: str, device: str) -> None:
    note("cell", f"families|{arch}|save")
    path = small(arch, tmp_path, tiny_path)
    with load(path, device=device).session() as s:
        s.forward(IDS[:40])
        s.save(tmp_path / "s.kv")
        expected = s.forward(IDS[40:], all_logits=True)
    with load(path, device=device).restore(tmp_path / "s.kv") as restored:
        assert restored.position == 40
        assert np.array_equal(restored.forward(IDS[40:], all_logits=True), expected)
    note("checked", len(expected))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("arch", architectures)
def test_fork(note: Note, tmp_path: Path, tiny_path: Callable[..., Path], arch: str, device: str) -> None:
    """Either side goes on as a session that was never forked."""
    note("cell", f"families|{arch}|fork")
    path = small(arch, tmp_path, tiny_path)
    model = load(path, device=device)
    ways = [IDS[40:], IDS[40:][::-1]]
    with model.session() as s:
        s.forward(IDS[:40])
        with s.fork() as fork:
            found = [one.forward(way, all_logits=True) for one, way in zip((s, fork), ways, strict=True)]
    for logits, way in zip(found, ways, strict=True):
        with model.session() as plain:
            plain.forward(IDS[:40])
            assert np.array_equal(plain.forward(way, all_logits=True), logits)
    note("checked", sum(map(len, found)))
