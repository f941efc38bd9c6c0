"""bench/peers: what its ratios, limits and long histories are made of. Its commands are no test's."""

from __future__ import annotations

import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import foundry
import numpy as np
import pytest
import synthetic
from foundry.files import open_model

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.peers.figures import better, ratio, share_of_limit
from bench.peers.models import SIZES, Model
from bench.peers.rows import Row, smoke, table
from bench.peers.tiling import tile_saved, tile_state


def test_a_tiled_history_is_restored_and_begins_as_the_computed_one(tmp_path: Path) -> None:
    path = synthetic.write(tmp_path / "model.gguf", synthetic.Shape(max_seq_len=1024))
    model = foundry.CompiledModel.load(path)
    ids = np.arange(100, 228, dtype=np.int32)
    with model.session(200, 8) as computed:
        computed.forward(ids)
        computed.save(tmp_path / "computed.kv")
        expected = computed.forward([7, 8])
    tile_saved(tmp_path / "computed.kv", tmp_path / "tiled.kv", 500)
    with model.restore(tmp_path / "tiled.kv", 8) as tiled:
        assert tiled.token_ids.tolist() == np.resize(ids, 500).tolist()
        assert np.isfinite(tiled.forward([9])).all()
        tiled.rewind(128)
        np.testing.assert_array_equal(tiled.forward([7, 8]), expected)


def test_of_experts_what_a_token_reads_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has them all, with the types that were counted."""
    model = Model("moe-q4_0")
    s = model.sizes
    assert (s.experts, s.used) == (16, 4)
    per_layer = 2 * s.hidden * s.heads * s.head_dim + 2 * s.hidden * s.kv_heads * s.head_dim + 4 * 3 * s.ffn * s.hidden
    assert model.linear_operations == 2 * s.layers * per_layer
    monkeypatch.setitem(SIZES, "moe", replace(s, layers=1, hidden=256, vocab=300, ffn=32))
    path = model.file(tmp_path)
    tensors = open_model(str(path)).tensors
    assert tensors["blk.0.ffn_down_exps.weight"][:2] == ("Q4_0", (16 * 256, 32))
    assert tensors["token_embd.weight"][0] == "Q6_K"
    with foundry.CompiledModel.load(path).session() as session:
        assert np.isfinite(session.forward([1, 2, 3])).all()


def test_half_a_page_can_not_be_tiled(tmp_path: Path) -> None:
    model = foundry.CompiledModel.load(synthetic.write(tmp_path / "model.gguf"))
    with model.session(100, 8) as session:
        session.forward(np.arange(100, dtype=np.int32))
        session.save(tmp_path / "short.kv")
    with pytest.raises(ValueError, match="expected one group and whole pages, found 100 tokens in 64s"):
        tile_saved(tmp_path / "short.kv", tmp_path / "tiled.kv", 500)


def llama_state(tokens: int, transposed: bool) -> bytes:
    """As llama.cpp writes the state of sequence 3: two layers, K rows of 4 bytes and V of 3 dims in 2 bytes, in which
    token t has what token t % 3 has."""
    of = [t % 3 for t in range(tokens)]
    parts = [struct.pack("<IiII", 0xFEED, 3, 1, tokens)]
    parts += [struct.pack("<iIi", position, 1, 3) for position in range(tokens)]
    parts.append(struct.pack("<II", transposed, 2))
    for layer in range(2):
        parts += [struct.pack("<iQ", 1, 4), *(struct.pack("<HH", 10 * layer + t, t) for t in of)]
    for layer in range(2):
        if transposed:
            parts.append(struct.pack("<iII", 1, 2, 3))
            parts += [struct.pack("<H", 100 * dim + 10 * layer + t) for dim in range(3) for t in of]
        else:
            parts.append(struct.pack("<iQ", 1, 6))
            parts += [struct.pack("<3H", *(100 * dim + 10 * layer + t for dim in range(3))) for t in of]
    return b"".join(parts)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_tiled_state_is_what_llama_cpp_would_have_written(transposed: bool) -> None:
    assert tile_state(llama_state(3, transposed), 7) == llama_state(7, transposed)


def test_a_state_that_is_not_understood_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the state's end, found 1 bytes more"):
        tile_state(llama_state(3, True) + b"x", 7)


def result(*rounds: dict[str, float], **more: Any) -> dict[str, Any]:
    turns = [{name: {"decode": value} for name, value in turn.items()} for turn in rounds]
    return {"rounds": turns, "errors": {}, "histories": {}, "others": [0.0]} | more


def test_the_ratio_is_of_each_round_and_to_the_better_setting() -> None:
    found = result(
        {"foundry": 30.0, "fa off": 10.0, "fa on": 20.0},
        {"foundry": 40.0, "fa off": 50.0, "fa on": 20.0},
        {"foundry": 44.0, "fa off": 10.0, "fa on": 40.0},
    )
    reached = ratio(found, "decode")
    assert better(found, "decode") == "fa on"
    assert reached is not None
    assert (reached.median, reached.least, reached.most) == (1.5, 1.1, 2.0)


def test_without_a_peer_there_is_no_ratio() -> None:
    assert ratio(result({"foundry": 30.0}), "decode") is None


def test_a_token_reads_the_bytes_that_such_files_have() -> None:
    model = Model("0.5b-q4_0")
    assert model.weight_bytes == pytest.approx(0.346e9, rel=0.01)  # Q4_0, the embedding in Q8_0
    assert model.kv_bytes("f16") == 12_288
    assert model.kv_bytes("q8_0") == 6_528
    kinds = [kind for _, _, kind in Model("1b-q4_k_m").matrices()]
    assert kinds.count("q6_k") == 1 + 2 * 8  # the embedding; V and down of half of 16 layers


def test_the_share_of_the_limit_is_bytes_read_over_bandwidth() -> None:
    found = result({"foundry": 50.0}, limits={"read_huge": 40e9, "f32": 1e11, "int8": 1e12})
    share = share_of_limit(Row("decode", "0.5b-q4_0", "f16", 30_000), found)
    assert share == pytest.approx(50 * (0.346e9 + 30_000 * 12_288) / 40e9, rel=0.01)


def test_rows_are_told_apart_by_name() -> None:
    for rows in (table(2, 16), smoke(4)):
        assert len({row.name for row in rows}) == len(rows)


def test_a_file_s_vocabulary_merges_and_spells_what_it_was_given(tmp_path: Path) -> None:
    path = synthetic.write(tmp_path / "model.gguf", synthetic.Shape(vocab=70_000))
    tokenizer = foundry.CompiledModel.load(path).tokenizer
    ids = tokenizer.encode("The capital")
    assert len(ids) < len("The capital")
    assert tokenizer.decode(ids) == "The capital"
