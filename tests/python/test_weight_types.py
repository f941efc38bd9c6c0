"""Models whose weights are of each type: they generate, fork, save and go on with the same bits; and files whose rows
are no whole blocks are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import families
import gguf
import numpy as np
import pytest
import quantisers
import synthetic
from foundry import CompiledModel, ModelFormatError, _core

KINDS = list(synthetic.TYPES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_each_type_generates_forks_and_saves(
    tiny_path: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    path = tiny_path(**synthetic.of_type(kind))
    model = CompiledModel.load(path, threads=2, page_tokens=8, check_every_step=True)
    ids = [int(i) for i in np.random.default_rng(5).integers(0, 256, 40)]
    with model.session() as s:
        s.forward(ids)
        s.save(tmp_path / "s.kv")
        with s.fork() as fork, CompiledModel.load(path, threads=1, page_tokens=8).restore(tmp_path / "s.kv") as back:
            answers = [
                one.generate(ids[:3], max_new_tokens=12, seed=1, ignore_eos=True).token_ids for one in (s, fork, back)
            ]
    assert len(answers[0]) == 12 and answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_cpu_says_what_the_reference_says(tiny_path: Callable[..., Path], kind: str) -> None:
    """Row by row and all at once, for both the table and the layers are of the type."""
    path = tiny_path(**synthetic.of_type(kind))
    ids = [int(i) for i in np.random.default_rng(6).integers(0, 256, 33)]
    logits = {}
    for device in ("reference", "cpu"):
        with CompiledModel.load(path, device=device, kv_dtype="f32").session() as s:
            logits[device] = s.forward(ids, all_logits=True)
    with CompiledModel.load(path, kv_dtype="f32").session() as s:
        one_by_one = np.stack([s.forward([i]) for i in ids])
    assert np.array_equal(one_by_one.reshape(logits["cpu"].shape), logits["cpu"])
    off = np.abs(logits["cpu"] - logits["reference"]).max() / logits["reference"].std()
    assert off < 5e-3


@pytest.mark.parametrize("kind", sorted(synthetic.WIDE))
def test_rows_that_are_no_whole_blocks_are_refused(tmp_path: Path, kind: str) -> None:
    """As a quantiser never writes them: the file says a row of 64 is of the type."""
    form = next(f for f in _core.formats() if f.name == kind)
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tensor("token_embd.weight", np.zeros((4, 320), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = path.read_bytes()
    at = data.index(b"token_embd.weight") + len("token_embd.weight") + 4 + 2 * 8  # dimensions, then the type
    path.write_bytes(data[:at] + form.number.to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(ModelFormatError, match=f"expected a multiple of 256, the block of {form.file_name}.*found 320"):
        CompiledModel.load(path)


@pytest.mark.parametrize(("number", "name", "block_bytes"), [(19, "IQ1_S", 50), (29, "IQ1_M", 56)])
def test_types_that_are_not_computed_with_are_refused_by_name(
    tmp_path: Path, number: int, name: str, block_bytes: int
) -> None:
    path = tmp_path / "m.gguf"
    family = families.Family("qwen3", head_norms=families.HEAD_DIM)
    raw = gguf.GGMLQuantizationType(number)
    writer = synthetic.Writer(str(path), "qwen3")
    for key, value in families.metadata_of(family).items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    synthetic.add_byte_tokenizer(writer)
    for tensor, values in families.tensors_of(family).items():
        if tensor == "blk.1.ffn_up.weight":
            writer.add_tensor(tensor, np.zeros((values.shape[0], block_bytes), np.uint8), raw_dtype=raw)
        else:
            writer.add_tensor(tensor, values)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    for opened in (CompiledModel.load, CompiledModel.plan_file):
        with pytest.raises(ModelFormatError, match=rf"blk.1.ffn_up.weight.*expected one of F32, F16, .*found {name}"):
            opened(path)


@pytest.mark.parametrize("kind", sorted(k for k in KINDS if k not in ("f32", "f16", "bf16")))
def test_the_tests_quantisers_are_near_what_they_are_given(kind: str) -> None:
    """A step of the codes is about the range over their number: a slip in a layout is off by far more."""
    form = next(f for f in _core.formats() if f.name == kind)
    values = np.random.default_rng(8).standard_normal((16, 512)).astype(np.float32)
    blocks = quantisers.quantise(values, synthetic.TYPES[kind])
    assert blocks.shape == (16, 512 * form.block_bytes // form.block_elements)
    off = np.sqrt(np.mean((_core.dequantise(form, blocks.tobytes()).reshape(values.shape) - values) ** 2))
    codes = 4 if kind == "mxfp4" else int(kind.split("_")[0].lstrip("iq"))  # "q5_k" has codes of 5 bits
    assert off < {8: 0.007, 6: 0.03, 5: 0.05, 4: 0.12, 3: 0.2, 2: 0.36}[codes]
