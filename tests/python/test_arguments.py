"""What callers and files get wrong is theirs, said in one way: expected and found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import synthetic
from foundry import CapacityPolicy, CompiledModel, ModelFormatError, SamplingParams
from foundry.models import build_graph
from foundry.tokenizer import Tokenizer

HUGE = 1 << 70


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.reserve(HUGE),
        lambda s: s.reserve(-1),
        lambda s: s.rewind(1.5),
        lambda s: s.rewind("1"),
        lambda s: s.generate([1], 2.5),
        lambda s: s.generate([1], HUGE),
        lambda s: s.generate([1], -2),
        lambda s: s.generate([1], 1, temperature="hot"),
        lambda s: s.generate([1], 1, temperature=float("nan")),
        lambda s: s.generate([1], 1, top_p="x"),
        lambda s: s.generate([1], 1, min_p=[]),
        lambda s: s.generate([1], 1, top_k=1.5),
        lambda s: s.generate([1], 1, top_k=HUGE),
        lambda s: s.generate([1], 1, seed=True),
        lambda s: s.generate([1], 1, stop=[5]),
        lambda s: s.generate([1], 1, stop=5),
        lambda s: s.chat(5),
        lambda s: s.chat([]),
        lambda s: s.save("\udcff"),
        lambda s: s.model.restore("\udcff"),
        lambda s: s.model.session(HUGE),
        lambda s: s.model.session("5"),
        lambda s: s.model.plan(5, 2.5),
        lambda s: s.model.tokenizer.encode("\ud800"),
        lambda s: CapacityPolicy(headroom=HUGE),
        lambda s: CapacityPolicy(step=0),
    ],
)
def test_a_callers_fault_is_a_value_error(tiny: CompiledModel, call: Callable[[Any], object]) -> None:
    with tiny.session() as s:
        with pytest.raises(ValueError, match="expected"):
            call(s)
        assert s.position == 0
        s.forward([1])


def test_numbers_of_numpy_are_numbers(tiny: CompiledModel) -> None:
    with tiny.session(np.int64(8), np.int32(4)) as s:
        s.forward(np.arange(8))
        s.rewind(np.int16(4))
        out = s.generate([1], np.int64(3), temperature=np.float32(0.5), top_k=np.uint8(3), ignore_eos=True)
        assert len(out.token_ids) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"memory_limit": "8G"},
        {"memory_limit": 8e9},
        {"memory_limit": 0},
        {"memory_limit": HUGE},
        {"threads": 0},
        {"threads": 1.0},
        {"kv_dtype": ("f16",)},
        {"kv_dtype": ("f16", 5)},
        {"kv_dtype": 5},
        {"kv_dtype": "q5_0"},
        {"kv_dtype": "\udcff"},
        {"device": "\udcff"},
        {"device": None},
        {"page_tokens": 7},
        {"page_tokens": -1},
        {"chunk_tokens": HUGE},
        {"prefix_cache_bytes": -1},
    ],
)
def test_options_of_load(tiny_path: Callable[..., Path], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        CompiledModel.load(tiny_path(), **options)


@pytest.mark.parametrize("content", [None, 5, [5], [{"type": "image_url"}], [{"type": "text"}]])
def test_messages_that_are_no_text(tiny: CompiledModel, content: Any) -> None:
    with tiny.session() as s, pytest.raises(ValueError, match=r"messages\[0\]: expected content"):
        s.chat([{"role": "user", "content": content}], 1)


def test_parts_of_text_are_joined(tiny: CompiledModel) -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    encode = tiny.tokenizer.encode_chat
    assert encode([{"role": "user", "content": parts}]) == encode([{"role": "user", "content": "Hello"}])


def test_stop_strings_count_the_token_that_ends_them(tiny: CompiledModel) -> None:
    with tiny.session() as s:
        free = s.generate("Hello", 20, params=SamplingParams(temperature=1, seed=4, ignore_eos=True))
        s.rewind(0)
        letter = next(c for c in free.text[5:] if c.isascii())
        out = s.generate("Hello", 20, temperature=1, seed=4, ignore_eos=True, stop=[letter])
        assert out.finish_reason == "stop" and letter not in out.text
        assert len(out.token_ids) == out.usage.completion_tokens
        assert out.token_ids == free.token_ids[: len(out.token_ids)]


def metadata(path: Path, **changes: Any) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    from foundry import _core

    file = _core.GgufFile(str(path))
    return {**file.metadata, **changes}, {name: shape for name, (_, shape, _) in file.tensors.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": "abc"},
        {"llama.rope.scaling.factor": [1]},
        {"llama.rope.scaling.factor": 0},
        {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 0.0},
        {"llama.rope.scaling.type": "llama3", "llama.rope.scaling.factor": 8.0},  # and no factors in the file
        {"llama.rope.scaling.type": [1], "llama.rope.scaling.factor": 2.0},
        {"llama.expert_count": 8},
        {"llama.final_logit_softcapping": 30.0},
        {"llama.attention.sliding_window": -1},
        {"llama.attention.sliding_window": "x"},
        {"llama.block_count": 20000},  # of a file that has two
        {"llama.block_count": 1 << 20},
        {"general.architecture": ["llama"]},
    ],
    ids=str,
)
def test_hyperparameters_that_make_no_sense(tiny_path: Callable[..., Path], changes: dict[str, Any]) -> None:
    with pytest.raises(ModelFormatError, match=r"expected|no tensor"):
        build_graph(*metadata(tiny_path(), **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer.ggml.token_type": 5},
        {"tokenizer.ggml.token_type": ["a"] * synthetic.VOCAB},
        {"tokenizer.ggml.tokens": [1, 2]},
        {"tokenizer.ggml.tokens": ["\udcff"]},
        {"tokenizer.ggml.merges": [1, 2]},
        {"tokenizer.ggml.merges": "a b"},
        {"tokenizer.ggml.pre": [1]},
        {"tokenizer.ggml.model": ["gpt2"]},
        {"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": "x"},
    ],
    ids=str,
)
def test_tokenizers_that_make_no_sense(tiny_path: Callable[..., Path], changes: dict[str, Any]) -> None:
    with pytest.raises(ModelFormatError, match="expected"):
        Tokenizer(metadata(tiny_path(), **changes)[0])


@pytest.mark.parametrize("template", ["{{ 1/0 }}", "\udcff", "{{ messages.x.y }}", "{% for %}", "{{ 'a' * 10**12 }}"])
def test_templates_that_fail_are_the_files_fault(tiny_path: Callable[..., Path], template: str) -> None:
    tokenizer = Tokenizer(metadata(tiny_path(), **{"tokenizer.chat_template": template})[0])
    with pytest.raises(ModelFormatError, match=r"tokenizer\.chat_template"):
        tokenizer.encode_chat([{"role": "user", "content": "Hi"}])


def test_a_template_that_refuses_is_the_callers_fault(tiny_path: Callable[..., Path]) -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    tokenizer = Tokenizer(metadata(tiny_path(), **{"tokenizer.chat_template": template})[0])
    with pytest.raises(ValueError, match="roles must alternate"):
        tokenizer.encode_chat([{"role": "user", "content": "Hi"}])


def test_a_file_of_another_architecture(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((8, 8), np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(ModelFormatError, match=r"expected one of exaone, gemma2, .*, starcoder2, found 'mamba'"):
        CompiledModel.load(tmp_path / "x.gguf")


def test_modules_are_there_without_saying_so() -> None:
    code = "import foundry; print(foundry.hub.DEFAULT_MODEL, foundry.errors.FoundryError.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "smollm2 FoundryError\n"
