"""The table of formats against the package gguf, and every list that users see against the table."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from foundry import CompiledModel, _core, hub
from foundry.cli.arguments import parser

FORMATS = _core.formats()
WEIGHTS = [f for f in FORMATS if f.linear != _core.Readers.none]
KV = [f.name for f in FORMATS if f.kv != _core.Readers.none]


def listed(names: list[str], last: str) -> str:
    """a, b and c"""
    return f"{', '.join(names[:-1])} {last} {names[-1]}"


@pytest.mark.parametrize("index", range(len(FORMATS)), ids=[f.name for f in FORMATS])
def test_numbers_names_and_sizes_are_ggmls(index: int) -> None:
    form = _core.formats()[index]
    kind = gguf.GGMLQuantizationType(form.number)
    assert (form.file_name, form.name) == (kind.name, kind.name.lower())
    assert (form.block_elements, form.block_bytes) == gguf.GGML_QUANT_SIZES[kind]


def test_the_formats_that_there_are() -> None:
    """Saved histories hold these numbers: none may change."""
    known = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q4_1": 3, "q4_0": 2}
    assert known.items() <= {f.name: f.number for f in FORMATS}.items()
    assert all(f.table != _core.Readers.none for f in WEIGHTS)
    assert "q4_1" not in KV and {"f32", "f16", "bf16", "q8_0", "q4_0"} <= set(KV)


def test_the_readme_lists_them() -> None:
    readme = " ".join((Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split())
    weights = listed([f.file_name for f in WEIGHTS], "and")
    assert f"weights in {weights}; K/V in {listed(KV, 'or')}, each apart" in readme


def test_load_and_the_command_line_list_those_of_k_and_v(
    tiny_path: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    quoted = listed([f'"{name}"' for name in KV], "or")
    about = " ".join((inspect.getdoc(CompiledModel.load) or "").split())
    assert f"kv_dtype: {quoted}, or a pair" in about
    with pytest.raises(SystemExit):
        parser().parse_args(["generate", "--help"])
    assert f"{', '.join(KV)}, or a pair K,V" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ValueError, match=f"kv_dtype: expected {listed(KV, 'or')}, found"):
        CompiledModel.load(tiny_path(), kv_dtype="q4_1")


def test_a_hub_gives_files_of_every_format_that_is_read() -> None:
    assert set(hub.NAMED.values()) == {f.file_name for f in WEIGHTS}
    assert tuple(hub.NAMED) == hub.READABLE and {f.file_name for f in WEIGHTS} <= set(hub.READABLE)


def random_blocks(form: _core.Format, count: int) -> np.ndarray:
    """Every bit at random, so that each scale of f16 comes up: subnormal, the largest, infinite, no number."""
    return np.random.default_rng(form.number).integers(0, 256, (count, form.block_bytes), dtype=np.uint8)


@pytest.mark.parametrize("index", range(len(FORMATS)), ids=[f.name for f in FORMATS])
def test_values_are_ggmls_bit_for_bit(index: int) -> None:
    form = _core.formats()[index]
    blocks = random_blocks(form, 4000)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(form.number)).ravel()
    found = _core.dequantise(form, blocks.tobytes())
    assert found.shape == expected.shape == (4000 * form.block_elements,)
    numbers = ~np.isnan(expected)
    assert numbers.mean() > 0.8 and np.array_equal(np.isnan(found), ~numbers)
    assert np.array_equal(found.view(np.uint32)[numbers], expected.view(np.uint32)[numbers])
    with pytest.raises(ValueError, match=f"{form.name}: expected a multiple of {form.block_bytes} bytes, found 1"):
        _core.dequantise(form, b"x")
