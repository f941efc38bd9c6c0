"""Models split into several GGUF files: all parts are one model, and parts that don't agree are refused by name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import synthetic
from foundry import CompiledModel, ModelFormatError
from foundry.files import open_model
from split_files import split, write_part

SHAPE = synthetic.Shape(layers=3, type="q8_0", tied=False)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return synthetic.write(tmp_path / "whole.gguf", SHAPE)


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("first_is_empty", [False, True])
def test_any_part_opens_all(whole: Path, tmp_path: Path, count: int, first_is_empty: bool) -> None:
    """The same logits, plan and text as of the file in one, whichever part is named."""
    parts = split(whole, count, tmp_path, first_is_empty=first_is_empty)
    one = CompiledModel.load(whole)
    for path in (parts[0], parts[-1]):
        model = CompiledModel.load(path)
        with one.session() as a, model.session() as b:
            assert np.array_equal(a.forward([5, 6, 7]), b.forward([5, 6, 7]))
        assert replace(model.plan(8, 8), available=0) == replace(one.plan(8, 8), available=0)
        planned, told = CompiledModel.plan_file(path, 8, 8), CompiledModel.plan_file(whole, 8, 8)
        assert replace(planned, available=0) == replace(told, available=0)
        assert model.tokenizer.encode("abc") == one.tokenizer.encode("abc")


def test_what_is_told_of_the_files(whole: Path, tmp_path: Path) -> None:
    parts = split(whole, 3, tmp_path)
    found, one = open_model(str(parts[1])), open_model(str(whole))
    assert found.kind == "GGUF version 3 in 3 parts" and one.kind == "GGUF version 3"
    assert found.tensors == one.tensors and dict(found.metadata) == dict(one.metadata)


def test_saves_belong_to_all_parts(whole: Path, tmp_path: Path) -> None:
    """A weight of the last part that differs is another model."""
    parts = split(whole, 3, tmp_path)
    other = split(synthetic.write(tmp_path / "o.gguf", replace(SHAPE, seed=2)), 3, tmp_path, "other")
    model = CompiledModel.load(parts[0])
    with model.session() as session:
        session.forward([1, 2, 3])
        session.save(tmp_path / "s.kv")
    assert CompiledModel.load(parts[1]).restore(tmp_path / "s.kv").position == 3
    parts[2].unlink()
    other[2].rename(parts[2])
    with pytest.raises(ModelFormatError, match="model"):
        CompiledModel.load(parts[0]).restore(tmp_path / "s.kv")


def test_a_part_that_is_missing_is_named(whole: Path, tmp_path: Path) -> None:
    parts = split(whole, 3, tmp_path)
    parts[1].unlink()
    with pytest.raises(ModelFormatError, match=r"expected all 3 parts in one folder, found no part 2, .*00002-of-0"):
        CompiledModel.load(parts[0])
    parts[0].unlink()
    with pytest.raises(ModelFormatError, match=r"found no part 1, .*m-00001-of-00003\.gguf"):
        CompiledModel.plan_file(parts[2])


SAYS = {"split.no": 1, "split.count": 3}


@pytest.mark.parametrize(
    ("says", "said"),
    [
        (SAYS | {"split.no": 2}, r"split\.no: expected 1 in .*00002-of-00003.gguf by its name, found 2"),
        (SAYS | {"split.no": None}, r"split\.no: expected a whole number from 0 to 2 in .*00002.*, found None"),
        (SAYS | {"split.count": 4}, r"split\.count: expected 3, as .*00001-of-00003.gguf has it, found 4 in .*00002"),
        (SAYS | {"split.count": None}, r"split\.count: expected a whole number from 1 to 99999 in .*, found None"),
    ],
    ids=str,
)
def test_parts_that_do_not_agree_are_refused(
    whole: Path, tmp_path: Path, says: dict[str, int | None], said: str
) -> None:
    parts = split(whole, 3, tmp_path)
    write_part(parts[1], gguf.GGUFReader(whole), [1, 2], says, whole=False)
    with pytest.raises(ModelFormatError, match=said):
        CompiledModel.load(parts[0])


def test_tensors_are_counted(whole: Path, tmp_path: Path) -> None:
    parts, reader = split(whole, 3, tmp_path), gguf.GGUFReader(whole)
    n = len(reader.tensors)
    write_part(parts[1], reader, [n // 2], SAYS, whole=False)
    with pytest.raises(ModelFormatError, match=rf"split\.tensors\.count: expected {n} tensors in all 3 parts, found"):
        CompiledModel.load(parts[0])


def test_a_tensor_that_is_in_two_parts_is_refused(whole: Path, tmp_path: Path) -> None:
    parts, reader = split(whole, 3, tmp_path), gguf.GGUFReader(whole)
    there = len(gguf.GGUFReader(parts[1]).tensors)
    write_part(parts[1], reader, range(there), SAYS, whole=False)
    with pytest.raises(
        ModelFormatError, match=r"00002-of-.*tensor \"token_embd.weight\": expected each name once, found it in .*00001"
    ):
        CompiledModel.load(parts[0])


def test_parts_of_two_models_are_refused(whole: Path, tmp_path: Path) -> None:
    parts = split(whole, 3, tmp_path)
    other = synthetic.write(tmp_path / "q.gguf", replace(SHAPE, arch="qwen2"))
    write_part(parts[1], gguf.GGUFReader(other), [1, 2], SAYS, whole=True)
    with pytest.raises(ModelFormatError, match=r"split: expected parts of one model, found 'llama' in .* and 'qwen2'"):
        CompiledModel.load(parts[0])


def test_a_part_under_another_name_is_refused(whole: Path, tmp_path: Path) -> None:
    """The others are found by its name alone."""
    part = split(whole, 3, tmp_path)[0]
    for name in ("model.gguf", "m-00002-of-00003.gguf", "m-00001-of-00004.gguf"):
        renamed = part.with_name(name)
        renamed.unlink(missing_ok=True)
        part = part.rename(renamed)
        with pytest.raises(ModelFormatError, match=rf"-00001-of-00003\.gguf, .* found '{re.escape(name)}'"):
            CompiledModel.load(part)


@pytest.mark.parametrize("of", [0, 1, 2])
def test_a_part_cut_short_is_refused_by_its_name(whole: Path, tmp_path: Path, of: int) -> None:
    parts = split(whole, 3, tmp_path)
    parts[of].write_bytes(parts[of].read_bytes()[:-1000])
    for opened in (CompiledModel.load, CompiledModel.plan_file):
        with pytest.raises(ModelFormatError, match=rf"{parts[of].name}: byte .*inside the data section"):
            opened(parts[0])
