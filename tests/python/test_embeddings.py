"""Embeddings beside Hugging Face transformers (values made once by tests/oracle/make_embeddings.py) and beside numpy,
and what a caller may count on: bits, memory, errors."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import families
import numpy as np
import numpy.typing as npt
import pytest
from conftest import Tiny, exact_devices
from families import CONTEXT, FAMILIES, HIDDEN
from foundry import (
    CancelledError,
    CompiledModel,
    ContextOverflowError,
    MemoryLimitError,
    ModelFormatError,
    NumericError,
)
from numpy_decoder import NumpyDecoder

ORACLE = json.loads((Path(__file__).parents[1] / "oracle" / "embeddings.json").read_text(encoding="utf-8"))
BOUND = 1e-5  # of the row's range
WAYS = {"mean": 1, "cls": 2, "last": 3}  # llama.cpp's pooling_type
TEXTS = ["One", "", "Two and two are four. " * 9, "Ünïcödé 日本", "a", "The sixth. " * 5]
EOS = 258  # of synthetic's vocabulary
Floats = npt.NDArray[np.float32]


def write(
    path: Path, name: str = "qwen3", kind: int | str | None = 3, around: tuple[bool, bool] = (False, True)
) -> Path:
    """A family's file that is an embedding model, ``kind`` its pooling_type; as Qwen3-Embedding it puts EOS behind a
    text."""
    return families.write(path, FAMILIES[name], {"pooling_type": kind}, around=around)


def load(path: Path, device: str = "cpu", **options: Any) -> CompiledModel:
    return CompiledModel.load(
        path, device, **{"kv_dtype": "f32", "threads": 1, "page_tokens": 8, "chunk_tokens": 32, **options}
    )


def off(found: Floats, expected: list[float]) -> float:
    return float(np.abs(found - np.asarray(expected)).max() / np.ptp(expected))


def check_a_gpus_rows(path: Path, device: str) -> None:
    """They are the reference's, and in the strict mode a row is its text's alone."""
    texts = [list(text.encode()) for text in TEXTS if text]
    for way in WAYS:
        strict = load(path, f"{device}:strict")
        rows = strict.embed(texts, pooling=way)
        assert np.array_equal(rows, np.concatenate([strict.embed(text, pooling=way) for text in texts])), way
        expected = load(path, "reference").embed(texts, pooling=way)
        for found in (rows, load(path, device).embed(texts, pooling=way)):
            np.testing.assert_allclose(found, expected, rtol=0, atol=0.02 * float(np.abs(expected).max()))


@pytest.fixture
def model(tmp_path: Path) -> CompiledModel:
    return load(write(tmp_path / "m.gguf"))


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("name", ORACLE["models"])
def test_rows_are_those_of_transformers(tmp_path: Path, name: str, device: str) -> None:
    """Over 100 tokens, in chunks of 32, by the pooling that the file names; the rest of its logits are as before."""
    for way, kind in WAYS.items():
        expected = ORACLE["models"][name][way]
        model = load(write(tmp_path / f"{kind}.gguf", name, kind), device)
        assert model.pooling == way
        raw = model.embed(ORACLE["ids"], normalize=False)
        assert raw.shape == (1, HIDDEN) and raw.dtype == np.float32
        assert off(raw[0], expected) < BOUND, way
        unit = np.asarray(expected) / np.linalg.norm(expected)
        assert np.abs(model.embed(ORACLE["ids"])[0] - unit).max() < BOUND, way


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_numpys(tiny_path: Tiny, way: str) -> None:
    path = tiny_path(type="f32")
    ids = np.random.default_rng(4).integers(0, 256, 40)
    states = NumpyDecoder(path).hidden_states(ids)
    pooled = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[way]
    assert off(load(path).embed(ids, pooling=way, normalize=False)[0], pooled.tolist()) < BOUND


@pytest.mark.parametrize("device", exact_devices())
def test_a_row_is_its_texts_alone(tmp_path: Path, device: str) -> None:
    """The same bits in a batch, in other chunks, pages and types of it, and whoever was there before."""
    path = write(tmp_path / "m.gguf")
    texts = [list(text.encode()) for text in TEXTS if text]
    one = load(path, device)
    for way in WAYS:
        rows = one.embed(texts, pooling=way)
        assert rows.shape == (len(texts), HIDDEN)
        assert np.array_equal(rows, np.concatenate([one.embed(text, pooling=way) for text in texts])), way
        assert np.array_equal(rows[::-1], one.embed(texts[::-1], pooling=way)), way
        other = load(path, device, page_tokens=32, chunk_tokens=7, threads=2)
        assert np.array_equal(rows, other.embed(texts, pooling=way)), way


def test_texts_share_steps_and_give_their_memory_back(model: CompiledModel) -> None:
    texts = [[i, i + 1, i + 2] for i in range(20)]
    before = model.memory()
    told: list[tuple[int, int]] = []
    model.embed(texts, progress=lambda done, total: told.append((done, total)))
    assert model._core.counts.rows == 60
    assert model._core.counts.steps == 2  # 30 rows each, of the 32 that a step has
    assert model.memory() == before
    assert told[0] == (0, 60) and told[-1] == (60, 60) and told == sorted(told)


def test_others_go_on_beside_it_and_no_bit_of_theirs_or_ours_changes(model: CompiledModel) -> None:
    expected, found = model.embed(TEXTS), []
    with model.session() as session:
        alone = session.generate("Hello", 60, ignore_eos=True).token_ids
    running = threading.Thread(target=lambda: found.extend(model.embed(TEXTS) for _ in range(20)))
    running.start()
    with model.session() as session:
        assert session.generate("Hello", 60, ignore_eos=True).token_ids == alone
    running.join()
    assert len(found) == 20 and all(np.array_equal(one, expected) for one in found)


def test_rows_are_one_long_unless_asked_otherwise(model: CompiledModel) -> None:
    raw, unit, short = model.embed(TEXTS, normalize=False), model.embed(TEXTS), model.embed(TEXTS, dimensions=10)
    wide = raw.astype(np.float64)
    assert np.abs(np.linalg.norm(wide, axis=1) - 1).min() > 0.1
    assert np.allclose(unit, wide / np.linalg.norm(wide, axis=1, keepdims=True), rtol=1e-6, atol=0)
    cut = wide[:, :10]
    assert short.shape == (len(TEXTS), 10) and short.flags.c_contiguous
    assert np.allclose(short, cut / np.linalg.norm(cut, axis=1, keepdims=True), rtol=1e-6, atol=0)
    assert np.array_equal(model.embed(TEXTS, dimensions=10, normalize=False), raw[:, :10])
    assert np.array_equal(model.embed(TEXTS, dimensions=HIDDEN), unit)


def test_what_may_be_given(model: CompiledModel) -> None:
    row = model.embed("One")
    ids = model.tokenizer.encode("One")
    for texts in (["One"], ids, [ids], np.array(ids), [np.array(ids)], tuple(ids), [tuple(ids)]):
        assert np.array_equal(model.embed(texts), row)
    assert np.array_equal(model.embed(["One", ids]), np.concatenate([row, row]))
    assert model.embed([]).shape == (0, HIDDEN)
    assert np.array_equal(model.embed(text for text in ["One"]), row)  # type: ignore[arg-type]
    assert model.embed(np.array([ids, ids])).shape == (2, HIDDEN)


def test_bos_and_eos_stand_around_a_text_as_the_file_says(tmp_path: Path) -> None:
    for begins, ends in ((False, False), (True, False), (False, True), (True, True)):
        model = load(write(tmp_path / "m.gguf", around=(begins, ends)))
        around = [257] * begins + list(b"One") + [EOS] * ends
        assert np.array_equal(model.embed("One"), model.embed(around))
        if begins or ends:  # then a text without a letter has a row as well
            assert np.array_equal(model.embed(""), model.embed([257] * begins + [EOS] * ends))
        else:
            with pytest.raises(ValueError, match="text 1: expected at least one token, found none"):
                model.embed(["One", ""])


def test_an_embedding_model_makes_text_as_ever(tmp_path: Path) -> None:
    plain, embeds = load(write(tmp_path / "a.gguf", kind=None)), load(write(tmp_path / "b.gguf"))
    with plain.session() as one, embeds.session() as other:
        assert one.generate("Hello", 12).token_ids == other.generate("Hello", 12).token_ids


def test_without_a_pooling_the_caller_names_one(tmp_path: Path) -> None:
    for kind, told in ((None, "no such key"), (0, "0, a row for each token"), (4, "4, a score"), (9, "found 9")):
        model = load(write(tmp_path / "m.gguf", kind=kind))
        assert model.pooling is None
        with pytest.raises(ValueError, match=rf"qwen3\.pooling_type is 1 \(mean\), 2 \(cls\) or 3 \(last\).*{told}"):
            model.embed("One")
        rows = {way: model.embed("One two", pooling=way) for way in WAYS}
        assert all(rows[way].shape == (1, HIDDEN) for way in WAYS)
        assert not np.array_equal(rows["mean"], rows["last"]) and not np.array_equal(rows["cls"], rows["last"])
    with pytest.raises(ModelFormatError, match=r"qwen3\.pooling_type: expected a whole number, found 'last'"):
        load(write(tmp_path / "m.gguf", kind="last")).embed("One")


def test_what_can_not_be_done_is_refused_by_name_and_nothing_runs(model: CompiledModel) -> None:
    bad: list[tuple[Any, dict[str, Any], str]] = [
        ("One", {"pooling": "max"}, "pooling: expected mean, cls, last"),
        ("One", {"dimensions": 0}, "dimensions: expected a whole number from 1 to 64, found 0"),
        ("One", {"dimensions": 65}, "dimensions: expected a whole number from 1 to 64, found 65"),
        ([], {"dimensions": 65}, "dimensions: expected"),
        (["One", []], {}, "text 1: expected at least one token, found none"),
        (["One", [1, 900]], {}, "text 1: expected ids from 0 to 258, found 900"),
        (["One", [0.5]], {}, "texts: text 1: token_ids: expected one row of whole numbers"),
        (["One", "\ud800"], {}, "texts: text 1: text: expected Unicode"),
        ([None], {}, "texts: text 0: token_ids: expected"),
        (None, {}, "texts: expected a text, token ids or a list of either, found None"),
        (7, {}, "texts: expected a text, token ids or a list of either, found 7"),
    ]
    for texts, options, told in bad:
        with pytest.raises(ValueError, match=told):
            model.embed(texts, **options)
    with pytest.raises(ContextOverflowError, match=f"text 1: needed 300 tokens, available {CONTEXT}") as found:
        model.embed(["One", [1] * 300])
    assert (found.value.needed, found.value.available) == (300, CONTEXT)
    assert model._core.counts.steps == 0


def test_too_little_memory_is_told_and_a_call_can_be_given_up(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf")
    roomy = load(path)
    tight = load(path, memory_limit=roomy.memory()["total"] + roomy.memory()["estimated"] + (40 << 10))
    with pytest.raises(MemoryLimitError):
        tight.embed([1] * CONTEXT)

    def told(done: int, total: int) -> None:
        if done:
            raise CancelledError("given up")

    before = roomy.memory()
    with pytest.raises(CancelledError):
        roomy.embed([[1] * 20] * 50, progress=told)
    assert roomy.memory() == before and roomy._core.counts.rows < 100


def test_a_row_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    tensors = families.tensors_of(FAMILIES["qwen3"])
    tensors["token_embd.weight"][7] = np.inf
    model = load(families.write(tmp_path / "m.gguf", FAMILIES["qwen3"], tensors=tensors))
    with pytest.raises(NumericError, match="text 1: the hidden state at position 2 is not finite") as found:
        model.embed([[1, 2], [1, 2, 7]], pooling="last")
    assert (found.value.session, found.value.position) == (1, 2)
