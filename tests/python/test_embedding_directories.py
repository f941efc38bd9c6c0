"""Directories as sentence-transformers writes them: the pooling, whether rows are made 1 long, and what ends a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hf_directories
import numpy as np
import pytest
import synthetic
import tokenizers
from families import FAMILIES, HIDDEN
from foundry import CompiledModel, ModelFormatError
from test_embeddings import BOUND, ORACLE, WAYS, load, off

ENDS = {"lasttoken": "last", "mean": "mean", "cls": "cls"}
MODULE = "sentence_transformers.models."


def older(way: str, *more: str) -> dict[str, Any]:
    """1_Pooling/config.json before version 5.2, with a key for each way."""
    ways = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    on = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}.get(way, way)
    keys: dict[str, Any] = {f"pooling_mode_{one}": one in (on, *more) for one in ways}
    return {"word_embedding_dimension": HIDDEN, **keys, "include_prompt": True}


def write(
    folder: Path,
    pooling: dict[str, Any] | None = None,
    kinds: tuple[str, ...] = ("Transformer", "Pooling", "Normalize"),
    config: dict[str, Any] | None = None,
    left_out: tuple[str, ...] = (),
) -> Path:
    """qwen3, its weights without the "model." that Qwen3-Embedding's lack too."""
    theirs = hf_directories.their_weights(FAMILIES["qwen3"])
    tensors = {name.removeprefix("model."): v for name, v in theirs.items() if name not in left_out}
    hf_directories.write_directory(folder, {**hf_directories.CONFIGS["qwen3"], **(config or {})}, tensors)
    made = hf_directories.byte_level_tokenizer()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 256)]
    )
    hf_directories.write_tokenizer(folder, made, eos_token="<|im_end|>", add_bos_token=False)
    modules = [
        {"idx": i, "name": str(i), "path": "" if i == 0 else f"{i}_{kind}", "type": MODULE + kind}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling or older("lasttoken")))
    return folder


@pytest.mark.parametrize("name", ENDS)
def test_rows_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    way = ENDS[name]
    for i, pooling in enumerate((older(name), {"embedding_dimension": HIDDEN, "pooling_mode": name})):
        model = load(write(tmp_path / str(i), pooling))
        assert model.pooling == way
        assert off(model.embed(ORACLE["ids"], normalize=False)[0], ORACLE["models"]["qwen3"][way]) < BOUND


def test_rows_are_one_long_where_the_modules_say_so(tmp_path: Path) -> None:
    with_it = load(write(tmp_path / "a"))
    without = load(write(tmp_path / "b", kinds=("Transformer", "Pooling")))
    text = "One and two"
    assert abs(np.linalg.norm(with_it.embed(text)) - 1) < 1e-6
    assert np.array_equal(without.embed(text), with_it.embed(text, normalize=False))
    assert np.array_equal(without.embed(text, normalize=True), with_it.embed(text))


def test_a_text_ends_as_its_tokenizer_says_and_not_with_what_the_configuration_calls_eos(tmp_path: Path) -> None:
    """As Qwen3-Embedding's directories have it: tokenizer.json puts <|endoftext|> behind a text, and the EOS of
    tokenizer_config.json is <|im_end|>."""
    model = load(write(tmp_path / "m"))
    ids = [*map(synthetic.byte_tokens().index, "One"), 256]
    assert model.tokenizer.encode("One") == ids
    assert model.tokenizer.eos_id == 258 and model.tokenizer.encode("One<|endoftext|>") == ids
    assert np.array_equal(model.embed("One"), model.embed(ids))
    assert model.tokenizer.encode_prompt("One") == ids[:-1]


def test_without_weights_for_text_it_embeds_alone(tmp_path: Path) -> None:
    """Qwen3-Embedding-8B's are not tied, and there is no lm_head.weight."""
    config = {"tie_word_embeddings": False}
    model = load(write(tmp_path / "m", config=config))
    assert off(model.embed(ORACLE["ids"], normalize=False)[0], ORACLE["models"]["qwen3"]["last"]) < BOUND
    for make in (model.session, lambda: model.restore(tmp_path / "m" / "config.json")):
        with pytest.raises(ValueError, match=r"expected a model that makes text.*no lm_head\.weight"):
            make()
    with load(write(tmp_path / "tied")).session() as session:
        assert session.generate("Hello", 4, ignore_eos=True).usage.completion_tokens == 4
    (tmp_path / "m" / "modules.json").unlink()
    with pytest.raises(ModelFormatError, match=r"expected lm_head\.weight"):
        load(tmp_path / "m")


BAD: list[tuple[str, Any, str]] = [
    ("modules.json", {"a": 1}, r"modules\.json: expected a list, found dict"),
    ("modules.json", [], r"expected the modules Transformer, Pooling and perhaps Normalize, found "),
    ("modules.json", [1], "expected modules with a type, found 1"),
    ("modules.json", [{"type": 3}], "expected modules with a type"),
    (
        "1_Pooling/config.json",
        older("max_tokens"),
        r"expected one pooling of lasttoken, mean, cls, found \['pooling_mode",
    ),
    ("1_Pooling/config.json", older("mean", "cls_token"), "expected one pooling of lasttoken, mean, cls, found"),
    ("1_Pooling/config.json", {}, r"expected one pooling of lasttoken, mean, cls, found \[\]"),
    ("1_Pooling/config.json", {"pooling_mode": ["mean", "cls"]}, "expected one pooling"),
    ("1_Pooling/config.json", {"pooling_mode": {}}, "expected one pooling"),
    ("1_Pooling/config.json", [], "expected keys and values, found list"),
]


@pytest.mark.parametrize(("name", "value", "told"), BAD, ids=lambda value: str(value)[:40])
def test_what_is_damaged_or_asks_for_more_is_refused(tmp_path: Path, name: str, value: Any, told: str) -> None:
    folder = write(tmp_path / "m")
    (folder / name).write_text(json.dumps(value))
    with pytest.raises(ModelFormatError, match=told):
        CompiledModel.load(folder)


def test_modules_that_are_not_done_and_places_elsewhere_are_refused(tmp_path: Path) -> None:
    for kinds in (("Transformer", "Pooling", "Dense", "Normalize"), ("Transformer",), ("Pooling", "Transformer")):
        with pytest.raises(ModelFormatError, match=f"perhaps Normalize, found {', '.join(kinds)}"):
            load(write(tmp_path / "m", kinds=kinds))
    folder = write(tmp_path / "m")
    modules = json.loads((folder / "modules.json").read_text())
    for place in ("", "..", "../m/1_Pooling", "a\\b", None, "\0"):
        modules[1]["path"] = place
        (folder / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(ModelFormatError, match="expected the path of a folder beside it, found"):
            load(folder)
    modules[1]["path"] = "2_Other"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(
        ModelFormatError, match=r"2_Other.config\.json: expected the configuration of the pooling, found no"
    ):
        load(folder)


def test_a_prompt_that_would_stand_before_each_text_is_warned_of(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    prompts = {"prompts": {"query": "Instruct: find\n", "document": ""}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    load(folder)
    (folder / "config_sentence_transformers.json").write_text(json.dumps({**prompts, "default_prompt_name": "query"}))
    with pytest.warns(UserWarning, match="the prompt 'query' is not put before texts"):
        load(folder)


def test_a_plan_is_of_the_header_as_ever(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    model = load(folder)
    options: dict[str, Any] = {"kv_dtype": "f32", "threads": 1, "page_tokens": 8, "chunk_tokens": 32}
    assert CompiledModel.plan_file(folder, 10, 10, **options).total == model.plan(10, 10).total
    assert set(WAYS) == set(ENDS.values())
