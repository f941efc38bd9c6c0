"""The case table is well formed and covers what it promises."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import cases
import pytest
from foundry import _core

OPS = {"embed", "rms_norm", "linear", "rope", "kv_append", "attention", "swiglu", "geglu", "add", "select_rows"}
OPS |= {"linear_routed", "sum_routed", "swiglu_clamped", "short_conv", "gated_delta", "sigmoid_gate"}
OPS |= {"layer_norm", "gelu", "scale", "resize_heads", "sample"}
OPS |= {"fused", "rope_append"}  # linear, and kv_append, with what GPUs run beside it
FORMATS = _core.formats()
WEIGHTS = [f for f in FORMATS if f.linear != _core.Readers.none]


def test_lists_multiply_and_parts_stay_together() -> None:
    expanded = cases.expand("bench linear rows=1,3 out=4+5 type=f32,f16  # why")
    assert [case.text for case in expanded] == [
        "linear rows=1 out=4+5 type=f32",
        "linear rows=1 out=4+5 type=f16",
        "linear rows=3 out=4+5 type=f32",
        "linear rows=3 out=4+5 type=f16",
    ]
    assert all(case.bench for case in expanded)


def test_every_op_is_covered_once() -> None:
    table = cases.load()
    assert {case.op for case in table} == OPS
    texts = [case.text for case in table]
    assert len(set(texts)) == len(texts), "a case stands in the table twice"


def test_groups_stand_for_formats_of_whole_blocks() -> None:
    names = [f.name for f in WEIGHTS]
    assert [case.settings["type"] for case in cases.expand("embed width=512 type=@weights")] == names
    plain = [f.name for f in WEIGHTS if f.block_elements == 1]
    assert [case.settings["type"] for case in cases.expand("embed width=7 type=@weights")] == plain
    assert cases.expand("linear in=33 type=@quantised") == []
    with pytest.raises(ValueError, match="no such group: @all"):
        cases.expand("embed width=7 type=@all")


@pytest.mark.parametrize("kind", [f.name for f in WEIGHTS])
def test_every_weight_format_is_covered(kind: str) -> None:
    for op in ("embed", "linear", "fused"):
        rows = {case.settings["rows"] for case in cases.load(op) if case.settings["type"] == kind}
        assert len(rows) >= 3, (op, kind)
    of_experts = [case.settings for case in cases.load("linear_routed") if case.settings["type"] == kind]
    assert len({s["rows"] for s in of_experts}) >= 2 and {"0", "1"} <= {s.get("bias") for s in of_experts}


def test_linear_covers_types_rows_and_epilogues() -> None:
    linear = cases.load("linear")
    for kind in (f.name for f in WEIGHTS):
        of_kind = [case.settings for case in linear if case.settings["type"] == kind]
        assert {"1", "3", "17", "64"} <= {s["rows"] for s in of_kind}
        assert {("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")} <= {(s.get("bias"), s.get("residual")) for s in of_kind}
        assert any("+" in s["out"] for s in of_kind)
        assert any(int(s["out"].split("+")[0]) % 16 for s in of_kind)


def test_attention_covers_groups_pages_windows_and_boundaries() -> None:
    attention = cases.load("attention")
    settings = [case.settings for case in attention]
    assert {1, 3, 4, 7} <= {int(s["heads"]) // int(s["kv_heads"]) for s in settings}
    assert {8, 24, 64, 80, 96, 128, 256} <= {int(s["head_dim"]) for s in settings}
    assert {8, 16, 64} <= {int(s["page_tokens"]) for s in settings}
    kv = [f.name for f in FORMATS if f.kv != _core.Readers.none]
    for op in ("attention", "kv_append"):
        assert {(k, v) for k in kv for v in kv} <= {
            (c.settings["k_type"], c.settings["v_type"]) for c in cases.load(op)
        }
    assert any(int(s.get("window", 0)) not in (0, 256) for s in settings)
    assert any(len(case.sequences()) > 3 for case in attention)
    assert any(start < 256 < start + rows for case in attention for start, rows in case.sequences())
